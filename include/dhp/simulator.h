#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dhp/plan.h"
#include "dhp/result.h"

namespace dhp {

/// Runs a plan on a model of the cluster, event by event; docs/simulator.md.
///
///     const Simulation simulation = simulate(plan, batch, cluster, cost, {.steps = 10, .noise = ErrorSizes{}});
///     for (const SimulatedStep& step : simulation.steps) std::cout << step.seconds << '\n';
///
/// If no link is shared between tasks (the cluster has neither node_bandwidth_bytes_per_s nor
/// switch_bandwidth_bytes_per_s), every task takes as long as task_seconds() says and starts when replay() says, up to
/// rounding.

struct SimulateOptions {
  int steps = 1;
  /// Every part of a task takes its time multiplied by the task's own factor (noise_factors(), step k is trial k).
  ErrorSizes noise = {0.0, 0.0, 0.0};
  std::uint64_t seed = 7;
  /// Time to plan the next batch, on a separate processor during this step.
  double planning_s = 0.0;
  /// Number of steps, from the first, for which details inside tasks are kept: SimulatedStep::segments.
  int recorded_steps = 0;
};

/// A stretch of time in a task, the same for all ranks of its group.
struct Segment {
  enum class Kind {
    task,      ///< fixed cost of a task
    vision,    ///< vision tower, forward and backward
    linear,    ///< the part that is linear in tokens
    block,     ///< one attention step: queries with one shard of keys and values
    transfer,  ///< shards in flight, hidden behind blocks or not
    wait,      ///< for a transfer, with nothing to compute
  };
  Kind kind = Kind::task;
  bool backward = false;
  int task = 0;
  int step = 0;  ///< for blocks, from 0; for transfers, from 1: transfer k brings the shard of block k
  double start_s = 0.0;
  double end_s = 0.0;
  double bytes = 0.0;  ///< for transfers: moved between all ranks of the group
  bool operator==(const Segment&) const = default;
};

struct SimulatedTask {
  double start_s = 0.0;
  double end_s = 0.0;
  double forward_end_s = 0.0;  ///< when its activations are largest
  double transfer_s = 0.0;     ///< shards were in flight, hidden or not
  double exposed_s = 0.0;      ///< its ranks only waited for them
  double compute_s() const { return end_s - start_s - exposed_s; }
  bool operator==(const SimulatedTask&) const = default;
};

/// Where the time of a rank goes. The figures add up to the step's seconds, except for ranks out of service, where all
/// are 0.
struct SimulatedRank {
  double compute_s = 0.0;
  IdleTime idle = {};
  double reduce_s = 0.0;     ///< gradient reduction
  double optimizer_s = 0.0;  ///< of this rank
  double transfer_s = 0.0;   ///< shards of its tasks were in flight; all but idle.transfer_s of it was hidden
  bool operator==(const SimulatedRank&) const = default;
};

struct SimulatedStep {
  double seconds = 0.0;                   ///< the whole step
  double tasks_end_s = 0.0;               ///< the makespan of the plan
  double reduce_end_s = 0.0;              ///< gradients are summed; the optimizer follows
  double optimizer_end_s = 0.0;           ///< if planning takes longer, the wait for the next batch follows
  double shard_bytes = 0.0;               ///< moved between ranks for tasks, both passes
  double crossing_bytes = 0.0;            ///< the part of it that moved between nodes
  IdleTime idle = {};                     ///< summed over ranks
  std::vector<SimulatedTask> tasks = {};  ///< in plan order; empty in late steps that are not recorded, see simulate()
  std::vector<SimulatedRank> ranks = {};  ///< the same
  std::vector<Segment> segments = {};     ///< if recorded: by end, then task
  bool operator==(const SimulatedStep&) const = default;
};

struct Simulation {
  std::vector<SimulatedStep> steps = {};
  std::vector<SimulatedRank> rank_totals = {};  ///< summed over steps
  bool operator==(const Simulation&) const = default;
};

/// The plan must be valid (check_plan). Throws InputError if it cannot be walked (require_shape) or a time does not fit
/// a double, and std::invalid_argument for options out of range. Steps that are not recorded keep their tasks and ranks
/// up to a million rows in all; for later steps only the sums are kept, one SimulatedStep each.
Simulation simulate(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                    const SimulateOptions& options = {});

/// SimulatedStep::tasks_end_s of the first step, without noise. Nothing where tasks share links so much that streams
/// and links would have to be looked at more often than `most_looks`, about a nanosecond each. Throws as simulate()
/// does.
std::optional<double> tasks_end_s(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                  std::int64_t most_looks);

/// What every rank in service does from the start of the step to its end, rank by rank; time without a task is left
/// out. The step must be recorded and belong to this plan: InputError if its sizes are not the plan's.
std::vector<ResultSpan> rank_spans(const Plan& plan, const Cluster& cluster, const SimulatedStep& step);

/// Activations of every rank, by rank, then time. They grow from the start of a task to the end of its forward pass,
/// and shrink from there. The step must be the plan's, and the plan valid for the batch: InputError if sizes are not
/// the plan's.
std::vector<MemoryPoint> memory_over_time(const Plan& plan, const Batch& batch, const CostModel& cost,
                                          const SimulatedStep& step);

/// The whole simulation, with timeline and memory of its first step, which must be recorded. All arguments are those of
/// simulate(): InputError if sizes are not the plan's.
Result to_result(const Simulation& simulation, const Plan& plan, const Batch& batch, const Cluster& cluster,
                 const CostModel& cost);

}  // namespace dhp
