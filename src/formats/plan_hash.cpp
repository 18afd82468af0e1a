#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "base/random.h"
#include "dhp/plan.h"

namespace dhp {
namespace {

/// The algorithm that plan.h documents.
class Hasher {
 public:
  void add(std::int64_t value) {
    const auto word = static_cast<std::uint64_t>(value);
    first_ = splitmix64(first_ ^ word);
    second_ = splitmix64(second_ ^ word);
    ++words_;
  }

  std::string digest() {
    add(words_);
    std::string text;
    for (const std::uint64_t lane : {first_, second_}) {
      for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[(lane >> shift) & 0xfU];
    }
    return text;
  }

 private:
  std::uint64_t first_ = 0x243f6a8885a308d3U;  // the fraction of pi
  std::uint64_t second_ = 0x13198a2e03707344U;
  std::int64_t words_ = 0;
};

}  // namespace

std::string plan_hash(const Plan& plan, const Batch& batch) {
  Hasher hasher;
  hasher.add(1);  // version of the stream
  hasher.add(static_cast<std::int64_t>(plan.schedule));
  hasher.add(plan.ranks);
  hasher.add(static_cast<std::int64_t>(plan.tasks.size()));
  for (const Task& task : plan.tasks) {
    hasher.add(task.id);
    hasher.add(static_cast<std::int64_t>(task.ranks.size()));
    for (const Rank rank : task.ranks) hasher.add(rank);
    hasher.add(static_cast<std::int64_t>(task.sequences.size()));
    for (const std::int64_t sequence : task.sequences) hasher.add(sequence);
    hasher.add(task.micro_batch);
    hasher.add(static_cast<std::int64_t>(task.exchange));
  }
  hasher.add(static_cast<std::int64_t>(batch.sequences.size()));
  for (const Sequence& sequence : batch.sequences) {
    hasher.add(sequence.id);
    hasher.add(sequence.tokens);
    hasher.add(sequence.patches);
  }
  const auto has_frame = [](const Sequence& sequence) { return sequence.frame_patches != 0; };
  if (std::any_of(batch.sequences.begin(), batch.sequences.end(), has_frame)) {
    for (const Sequence& sequence : batch.sequences) hasher.add(sequence.frame_patches);
  }
  return hasher.digest();
}

}  // namespace dhp
