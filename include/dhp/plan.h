#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dhp/batch.h"
#include "dhp/cluster.h"
#include "dhp/cost_model.h"

namespace dhp {

/// When tasks may start; docs/design.md, "Schedules".
enum class Schedule {
  lockstep,  ///< tasks of one micro-batch on disjoint ranks, a barrier between micro-batches
  free,      ///< no barrier: a task starts when the last of its ranks is ready
  rounds,    ///< a barrier between micro-batches, free inside
};
std::string_view to_string(Schedule schedule);
/// Throws InputError naming `source` and `location` for an unknown name.
Schedule parse_schedule(std::string_view name, const std::string& source, const std::string& location);

/// A set of sequences run together, forward and backward, on a group of ranks.
struct Task {
  int id = 0;
  std::vector<Rank> ranks = {};              ///< distinct, in ring order; any ranks
  std::vector<std::int64_t> sequences = {};  ///< ids, in packing order
  int micro_batch = 0;
  Exchange exchange = Exchange::ring;
  std::optional<double> start_s = {};  ///< predicted
  std::optional<double> end_s = {};    ///< predicted

  int degree() const { return static_cast<int>(ranks.size()); }
  bool operator==(const Task&) const = default;
};

struct Prediction {
  double makespan_s = 0.0;
  double lower_bound_s = 0.0;  ///< the best one computed: simple, or tighter after certify(); 0 if none is known
  double gap = 0.0;            ///< makespan / lower bound - 1; 0 for an empty batch and if no bound is known

  bool operator==(const Prediction&) const = default;
};

/// Which ranks share which sequences, in execution order.
struct Plan {
  Schedule schedule = Schedule::free;
  int ranks = 0;
  std::vector<Task> tasks = {};
  std::string planner = {};  ///< the planner that made it ("paper", "static:4"); informative, not hashed
  std::string hash = {};     ///< 32 hexadecimal digits, or empty
  std::optional<Prediction> predicted = {};
  std::optional<int> most_peers = {};  ///< largest number of ranks that one rank shares tasks with; not hashed

  bool operator==(const Plan&) const = default;
};

/// Reads `dhp.plan/1` JSON. Throws InputError. check_plan() decides whether the plan is *valid* for a batch.
Plan read_plan(const std::string& file);
/// The same for a text, which `source` names in errors.
Plan parse_plan(std::string_view text, const std::string& source);
/// The plan as JSON; parse_plan() reads it back as the same plan.
std::string to_json(const Plan& plan);

/// 128-bit hash over schedule, ranks, tasks (id, ranks, sequences, micro_batch, exchange) and the batch's ids, tokens,
/// patches and frame_patches, in that order. Works on any plan, even one that cannot be walked. Equal inputs give equal
/// digits on every machine; it is no defence against forgery.
///
/// The stream of 64-bit words (two's complement): 1 (version of the stream); schedule (lockstep 0, free 1, rounds 2);
/// ranks; number of tasks; per task: id, number of ranks, each rank, number of sequences, each sequence id,
/// micro_batch, exchange (ring 0, direct 1, hierarchical 2, all_to_all 3); number of sequences in the batch; per
/// sequence: id, tokens, patches; if any is not 0, the frame_patches of every sequence (so batches without them hash as
/// they did before the field existed); finally the number of words before this one. Two lanes begin with
/// 0x243f6a8885a308d3 and 0x13198a2e03707344; each word w turns a lane h into mix(h xor w), where, modulo 2^64, mix(z)
/// is
///     z += 0x9e3779b97f4a7c15; z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9; z = (z ^ z >> 27) * 0x94d049bb133111eb;
///     z ^ z >> 31
/// The digest is both lanes as 16 lower-case hexadecimal digits each, one after the other.
std::string plan_hash(const Plan& plan, const Batch& batch);

/// Throws InputError ("plan: tasks[3].ranks: found 9, expected 0 to 7") unless the plan can be walked: 0 to kMaxRanks
/// ranks, ids that are positions, micro-batches of at least 0, and in every task at least one rank, all distinct and in
/// the plan. Any function that takes a plan and walks it calls this first.
void require_shape(const Plan& plan);
/// The same; in addition the cluster must have as many ranks, and no speeds or one for each.
void require_shape(const Plan& plan, const Cluster& cluster);

/// When each task starts and ends, given how long each takes, by the rules of the plan's schedule.
struct Timeline {
  std::vector<double> start_s = {};  ///< per task, in plan order
  std::vector<double> end_s = {};
  std::vector<double> busy_s;  ///< per rank
  double makespan_s = 0.0;

  /// Share of ranks x makespan in which no task ran; 0 for an empty plan. If not all ranks of the plan are in service,
  /// pass the number that are: the others do not count.
  double idle_share() const { return idle_share(static_cast<int>(busy_s.size())); }
  double idle_share(int ranks_in_service) const;
  bool operator==(const Timeline&) const = default;
};
/// `task_s` has one duration per task, in plan order. Throws InputError if the sizes differ or the plan cannot be
/// walked (require_shape).
Timeline replay(const Plan& plan, std::span<const double> task_s);

/// Predicted seconds of every task, in plan order. Throws InputError if the plan names sequences the batch lacks, or
/// cannot be walked (require_shape).
std::vector<double> predict_task_seconds(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                         const CostModel& cost);

/// Fills start_s, end_s, predicted (with the simple bound) and hash. Throws InputError as predict_task_seconds() does;
/// batch, cluster and cost must be valid (validate).
void annotate(Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost);

/// Raises the bound of an annotated plan to the tighter one (bound.h) if a bound is known, which excludes all_to_all.
/// Does nothing to a plan without `predicted`. Throws InputError for what validate() and require_shape() refuse.
void certify(Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost);

/// Whether a task of several ranks exchanges by all_to_all, for which no lower bound is known.
bool uses_all_to_all(const Plan& plan);

/// Everything that is wrong with a plan for this batch, cluster and cost, one sentence per violation; empty if it is
/// valid. Shares no code with the planners. Verifies hash, predicted, most_peers, start_s and end_s if present (times
/// to 1e-9 relative). A stated bound must be the simple or the tighter one.
std::vector<std::string> check_plan(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                    const CostModel& cost);

}  // namespace dhp
