#pragma once

#include <algorithm>
#include <cstddef>

#include "dhp/plan.h"

namespace dhp {

/// Keeps the tasks of a plan that is being read within 3.9 times its bytes, its text included where that is in memory
/// too. What dhp writes comes nowhere near that, and no numbered tasks of any length do: this is for files of many
/// millions of tasks of one digit a number.
class PlanMemory {
 public:
  /// Of a file that is read piece by piece.
  static PlanMemory of_file(std::size_t bytes) { return {bytes / kOf * kMost, std::size_t{64} << 20}; }
  /// Of a text that is in memory.
  static PlanMemory of_text(std::size_t bytes) { return {bytes / kOf * (kMost - kOf), std::size_t{1} << 30}; }

  PlanMemory(std::size_t most_bytes, std::size_t always_allowed) : most_(std::max(most_bytes, always_allowed)) {}

  /// Whether there is room for the task.
  bool add(const Task& task) {
    taken_ += sizeof(Task) + block(task.ranks.size() * sizeof(Rank)) +
              block(task.sequences.size() * sizeof(task.sequences.front()));
    return taken_ <= most_;
  }

  std::size_t most_tasks() const { return most_ / sizeof(Task) + 1; }

 private:
  static constexpr std::size_t kMost = 39;
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
