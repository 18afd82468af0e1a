#pragma once

#include <algorithm>
#include <cstddef>

#include "dhp/plan.h"

namespace dhp {

/// Keeps the tasks of a plan that is being read within 2.9 times its text, so that both together take less than four
/// bytes a byte. What dhp writes comes nowhere near that: this is for files of many millions of tasks with no field
/// that could be left out, or of one digit after the other.
class PlanMemory {
 public:
  explicit PlanMemory(std::size_t text_bytes, std::size_t always_allowed = std::size_t{1} << 30)
      : most_(std::max(text_bytes / kOf * kMost, always_allowed)) {}

  /// Whether there is room for the task.
  bool add(const Task& task) {
    taken_ += sizeof(Task) + block(task.ranks.size() * sizeof(Rank)) +
              block(task.sequences.size() * sizeof(task.sequences.front()));
    return taken_ <= most_;
  }

 private:
  static constexpr std::size_t kMost = 29;
  static constexpr std::size_t kOf = 10;

  /// What the allocator takes for it: its own words, and rounding.
  static std::size_t block(std::size_t bytes) {
    constexpr std::size_t kLeast = 32;
    return bytes == 0 ? 0 : std::max(kLeast, bytes + kLeast / 2);
  }

  std::size_t most_;
  std::size_t taken_ = 0;
};

}  // namespace dhp
