#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "dhp/batch.h"
#include "dhp/error.h"
#include "dhp/plan.h"

namespace dhp {

/// Finds sequences by id. Ids are mostly 0, 1, 2 … : in order, where they are positions, or in any order, where a table
/// is far quicker than a hash map.
class SequenceIndex {
 public:
  explicit SequenceIndex(const Batch& batch) {
    if (batch.sequences.empty()) return;
    const auto [least, most] = std::minmax_element(batch.sequences.begin(), batch.sequences.end(), by_id);
    first_ = least->id;
    if (are_positions(batch)) {
      in_order_ = batch.sequences;
      return;
    }
    const std::uint64_t span = offset(most->id);
    constexpr std::uint64_t kSparse = 4;  // table entries a sequence
    if (span < kSparse * batch.sequences.size()) {
      table_.assign(span + 1, nullptr);
      for (const Sequence& sequence : batch.sequences) table_[offset(sequence.id)] = &sequence;
      return;
    }
    sorted_.reserve(batch.sequences.size());
    for (const Sequence& sequence : batch.sequences) sorted_.push_back(&sequence);
    std::sort(sorted_.begin(), sorted_.end(), [](const Sequence* a, const Sequence* b) { return a->id < b->id; });
  }

  /// Null if the batch lacks it.
  const Sequence* find(std::int64_t id) const {
    if (!in_order_.empty()) return id >= first_ && offset(id) < in_order_.size() ? &in_order_[offset(id)] : nullptr;
    if (sorted_.empty()) return id >= first_ && offset(id) < table_.size() ? table_[offset(id)] : nullptr;
    const auto found =
        std::lower_bound(sorted_.begin(), sorted_.end(), id,
                         [](const Sequence* sequence, std::int64_t value) { return sequence->id < value; });
    return found != sorted_.end() && (*found)->id == id ? *found : nullptr;
  }

  /// Has the processor fetch the sequences of a task that is looked at soon: in a batch of a million, more than its
  /// caches hold, each would otherwise be waited for.
  void prefetch(const Task& task) const {
    if (in_order_.empty()) return;
    for (const std::int64_t id : task.sequences) {
      const Sequence* sequence = find(id);
      if (sequence != nullptr) __builtin_prefetch(sequence);
    }
  }

  /// What a task's sequences are together. Throws InputError where the batch lacks one.
  Load load_of(const Plan& plan, std::size_t task) const {
    Load load;
    for (const std::int64_t id : plan.tasks[task].sequences) {
      const Sequence* sequence = find(id);
      if (sequence == nullptr) {
        throw InputError(
            "plan", "tasks[" + std::to_string(task) + "].sequences",
            "found sequence " + std::to_string(id) + ", which the batch lacks; is it the plan of another batch?");
      }
      load.add(*sequence);
    }
    return load;
  }

 private:
  bool are_positions(const Batch& batch) const {
    for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
      if (offset(batch.sequences[i].id) != i) return false;
    }
    return true;
  }
  static bool by_id(const Sequence& a, const Sequence& b) { return a.id < b.id; }
  /// Ids may span more than an int64_t holds.
  std::uint64_t offset(std::int64_t id) const {
    return static_cast<std::uint64_t>(id) - static_cast<std::uint64_t>(first_);
  }

  std::int64_t first_ = 0;
  std::span<const Sequence> in_order_;   // by id - first_, where these are positions in the batch
  std::vector<const Sequence*> table_;   // by id - first_, where they are in another order
  std::vector<const Sequence*> sorted_;  // instead, where ids are sparse
};

}  // namespace dhp
