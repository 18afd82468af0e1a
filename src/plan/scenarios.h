#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dhp/error_sizes.h"
#include "dhp/plan.h"
#include "formats/sequence_index.h"

namespace dhp::plan {

/// A step under errors of estimates, drawn several times: the same draws for every plan of a batch, so that plans are
/// compared under the same errors. The draws are constants, and all scenarios of a plan are replayed at once, in
/// single precision and a fixed order: the same bytes with every compiler.
class Scenarios {
 public:
  static constexpr int kCount = 32;
  static constexpr std::size_t kRows = 1021;  ///< of draws at most; what counts beyond begins anew
  /// One number a scenario.
  using Row = std::array<float, kCount>;

  /// The batch, whose sequences are sorted by id, must outlive it. `first_row` is of the draws: with another one, other
  /// sequences, tasks and ranks err as much.
  Scenarios(const ErrorSizes& sizes, const Batch& batch, const Cluster& cluster, const CostModel& cost,
            std::size_t first_row = 0);

  /// Mean makespan in seconds, over the scenarios, of a plan whose tasks take `task_s` by estimate and end after
  /// `makespan_s`.
  double expected_s(const Plan& plan, std::span<const double> task_s, double makespan_s) const;

  /// Factors of the sequence at that place of the batch, of the task with that number, of the rank that comes as number
  /// `member` if the ranks of all tasks are counted in the order of the plan.
  const Row& of_sequence(std::size_t place) const { return sequence_[place % sequence_.size()]; }
  const Row& of_task(std::size_t number) const { return task_[number % task_.size()]; }
  const Row& of_rank(std::size_t member) const { return rank_[member % rank_.size()]; }
  /// Seconds of a sequence alone on one rank: its weight in a task.
  double alone_s(std::size_t place) const { return alone_s_[place]; }

 private:
  std::size_t place_of(std::int64_t id) const {
    return static_cast<std::size_t>(index_.find(id) - batch_->sequences.data());
  }

  const Batch* batch_;
  SequenceIndex index_;
  std::vector<double> alone_s_;  // by place
  std::vector<Row> sequence_;
  std::vector<Row> task_;
  std::vector<Row> rank_;
};

}  // namespace dhp::plan
