#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "dhp/plan.h"

namespace dhp {

/// What a plan is predicted to cost, besides its makespan.
struct PlanMetrics {
  double makespan_s = 0.0;
  double slowest_micro_batch_s =
      0.0;                  ///< of a lockstep plan; 0 for others, which have no micro-batches common to all ranks
  double idle_share = 0.0;  ///< share of ranks in service x makespan in which no task runs
  /// Rank-seconds in which a task runs but only waits for transfers, and their share of the same.
  double exposed_transfer_s = 0.0;
  double exposed_transfer_share = 0.0;
  std::vector<double> memory_bytes = {};  ///< by rank: activations of its largest task
  double peak_memory_bytes = 0.0;         ///< of the fullest rank
  double peak_memory_share = 0.0;         ///< the same as a share of the activation budget
  std::vector<int> peers = {};            ///< by rank: distinct ranks that it shares tasks with
  int most_peers = 0;

  /// The step of a lockstep plan in a pipeline of `stages`, each a mesh of the plan's ranks: all micro-batches pass
  /// every stage, and each further stage waits once more for the slowest.
  double pipeline_s(int stages) const { return makespan_s + (stages - 1) * slowest_micro_batch_s; }
  bool operator==(const PlanMetrics&) const = default;
};

/// Number of distinct ranks that each rank of the plan shares tasks with, by rank. Throws InputError if the plan cannot
/// be walked (require_shape).
std::vector<int> count_peers(const Plan& plan);

/// The plan must be valid (check_plan); figures of an invalid plan mean nothing. Throws InputError for a plan that
/// cannot be walked (require_shape), and for a batch or a cost out of range (validate).
PlanMetrics plan_metrics(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost);

/// The factors that multiply the time of every task of a plan in a trial of a seed, of these sizes and as ErrorSizes
/// describes them. A sequence's draws go by its id, a task's by its number, a rank's by how many ranks tasks
/// have had before it in the order of the plan: a sequence errs alike in every plan. The same on every machine. Throws
/// InputError for sizes out of range, and for a plan that cannot be walked (require_shape) or is of another batch.
class NoiseFactors {
 public:
  /// The plan must outlive them.
  NoiseFactors(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
               const ErrorSizes& noise, std::uint64_t seed);
  /// By task. Trials are the same in any order.
  std::vector<double> of_trial(int trial) const;

 private:
  const Plan& plan_;
  ErrorSizes noise_;
  std::uint64_t seed_;
  std::vector<double> alone_s_;  // of the sequences of the tasks, one after the other
  std::vector<double> sum_s_;    // by task
};
/// Those of one trial.
std::vector<double> noise_factors(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                  const ErrorSizes& noise, std::uint64_t seed, int trial);

/// Of what is called the expected step where nothing else is asked for.
inline constexpr int kExpectedTrials = 200;
inline constexpr std::uint64_t kExpectedSeed = 7;

/// Makespans in seconds of `trials` steps in which every task takes its predicted time times its noise factor. Throws
/// as NoiseFactors does, and std::invalid_argument for negative trials.
std::vector<double> noisy_makespans(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                    const ErrorSizes& noise, int trials, std::uint64_t seed);

}  // namespace dhp
