// Why a task has its degree: what the next narrower one that is allowed would have meant, and what allows no wider one.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <unordered_map>

#include "base/index.h"
#include "base/text.h"
#include "dhp/explain.h"
#include "dhp/plan_options.h"
#include "formats/sequence_index.h"
#include "plan/explain/start_cause.h"

namespace dhp {

using namespace plan;

namespace {

std::string seconds_text(double seconds) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), seconds < 0.1 ? "%.3g ms" : "%.2f s",
                seconds < 0.1 ? seconds * 1e3 : seconds);
  return text.data();
}

bool is_power_of_two(int degree) { return (degree & (degree - 1)) == 0; }

/// "--max-degree 4", "--within-node"
std::string given(const PlanOptions& options, const std::string& name) {
  const std::string text = option_text(options, name);
  return option_flag(name) + (text == "true" ? "" : ' ' + text);
}

class DegreeReasons {
 public:
  DegreeReasons(const Plan& plan, const Cluster& cluster, const CostModel& cost, const Timeline& timeline,
                const PlanOptions& options)
      : plan_(plan),
        cluster_(cluster),
        cost_(cost),
        timeline_(timeline),
        options_(options),
        live_ranks_(static_cast<int>(cluster.live_ranks().size())),
        keeps_shards_(uses_option(plan.planner, "min_shard_tokens")) {
    const auto all = [&](auto condition) { return std::all_of(plan.tasks.begin(), plan.tasks.end(), condition); };
    powers_of_two_ = all([](const Task& task) { return is_power_of_two(task.degree()); });
    one_degree_ =
        plan.tasks.size() > 1 && all([&](const Task& task) { return task.degree() == plan.tasks.front().degree(); });
    for (const Task& task : plan.tasks) {
      MicroBatch& micro_batch = micro_batches_[task.micro_batch];
      micro_batch.busy_ranks += task.degree();  // in lockstep each has one task
      micro_batch.slowest_s = std::max(micro_batch.slowest_s, seconds_of(task));
    }
  }

  std::string reason(const Task& task, const std::vector<Sequence>& sequences) const {
    const Load load = load_of(sequences);
    const std::string ceiling = ceiling_text(task, load, sequences);
    if (task.degree() > 1) return why_not_narrower(task, load) + ceiling + frame_text(task, load) + nodes_text(task);
    if (load.sequences == 1) return "alone on one rank: fits, no transfer" + ceiling;
    return std::to_string(load.sequences) + " sequences packed on one rank: they fit, no transfer" + ceiling;
  }

 private:
  double seconds_of(const Task& task) const {
    return timeline_.end_s[index(task.id)] - timeline_.start_s[index(task.id)];
  }

  bool divides_all(int degree) const {
    return std::all_of(options_.degrees_divide.begin(), options_.degrees_divide.end(),
                       [&](int number) { return number % degree == 0; });
  }

  bool may_have(int degree) const { return (!powers_of_two_ || is_power_of_two(degree)) && divides_all(degree); }

  /// 1 may always be had.
  int next_narrower(int degree) const {
    do --degree;
    while (!may_have(degree));
    return degree;
  }

  int fewest_by_memory(const Load& load, int most) const {
    const double budget = activation_budget_bytes(cost_, cluster_);
    int degree = 1;
    while (degree < most && task_memory_bytes(cost_, load, degree) > budget) ++degree;
    return degree;
  }

  /// 1 without a cap, and where the plan breaks it: then it decided nothing.
  int fewest_by_tokens(const Load& load, int most) const {
    const auto cap = static_cast<double>(options_.max_tokens_per_rank);
    if (cap == 0.0 || load.tokens > most * cap) return 1;
    return std::max(1, static_cast<int>(std::ceil(load.tokens / cap)));
  }

  /// On nodes as full as can be, at the speed of the task's own group.
  double seconds_at(const Task& task, const Load& load, int degree) const {
    GroupShape shape = consecutive_shape(cluster_, 0, degree);
    shape.speed = shape_of(cluster_, task.ranks).speed;
    return task_seconds(cost_, cluster_, load, shape, degree == 1 ? Exchange::ring : task.exchange);
  }

  /// Where memory or the cap on tokens leaves no narrower degree; else empty.
  std::string forced_text(int degree, const Load& load) const {
    const int by_memory = fewest_by_memory(load, degree);
    const int by_tokens = fewest_by_tokens(load, degree);
    const int fewest = std::max(by_memory, by_tokens);
    if (fewest <= next_narrower(degree)) return "";
    const std::string word = by_memory >= by_tokens ? "memory: " : "tokens: ";
    const std::string cap = by_memory >= by_tokens ? "" : " under " + given(options_, "max_tokens_per_rank");
    if (fewest == degree) return word + ranks_text(degree) + " are the fewest that hold it" + cap;
    std::string text = word + ranks_text(fewest) + " would hold it" + cap;
    if (!may_have(degree)) return text;  // the plan breaks the option
    bool divides_first = true;
    for (int between = fewest; between < degree; ++between) divides_first = divides_first && !divides_all(between);
    return text + ", " + std::to_string(degree) + " is the next " +
           (divides_first ? "degree under " + given(options_, "degrees_divide") : "power of two");
  }

  std::string why_not_narrower(const Task& task, const Load& load) const {
    const int degree = task.degree();
    const int narrower = next_narrower(degree);
    if (std::string forced = forced_text(degree, load); !forced.empty()) return forced;
    if (one_degree_) return "one degree: every task of the plan has " + ranks_text(degree);

    const double seconds = seconds_at(task, load, narrower);
    const std::string then = "at degree " + std::to_string(narrower) + " it would take " + seconds_text(seconds);
    if (const std::string length = length_text(task, seconds); !length.empty()) return "length: " + then + length;
    if (options_.no_idle_ranks && plan_.schedule == Schedule::lockstep &&
        micro_batches_.at(task.micro_batch).busy_ranks == live_ranks_) {
      return "no idle ranks: at degree " + std::to_string(narrower) + " ranks would have no task in micro-batch " +
             std::to_string(task.micro_batch) + " (--no-idle-ranks)";
    }
    if (degree * seconds_of(task) <= narrower * seconds) {
      return "cost: " + then + ", no fewer rank-seconds";
    }
    return "time: " + seconds_text(seconds_of(task)) + " instead of " + seconds_text(seconds) + " at degree " +
           std::to_string(narrower) + "; the step had room for that, too";
  }

  /// What the task would outlast if it took so long; empty if nothing.
  std::string length_text(const Task& task, double seconds) const {
    if (plan_.schedule == Schedule::lockstep) {
      const double slowest_s = micro_batches_.at(task.micro_batch).slowest_s;
      if (seconds <= slowest_s) return "";
      return " and hold up micro-batch " + std::to_string(task.micro_batch) + ", which takes " +
             seconds_text(slowest_s);
    }
    if (seconds > timeline_.makespan_s) return ", longer than the step";
    const double end_s = timeline_.start_s[index(task.id)] + seconds;
    return end_s > timeline_.makespan_s ? " and end " + seconds_text(end_s - timeline_.makespan_s) + " after the step"
                                        : "";
  }

  /// The option that keeps the task from the next wider degree, if it would be quicker there.
  std::string ceiling_text(const Task& task, const Load& load, const std::vector<Sequence>& sequences) const {
    if (const std::string broken = ceiling_option(task.degree()); !broken.empty()) {
      return "; more than " + given(options_, broken) + " allows";
    }
    int wider = task.degree() + 1;
    if (one_degree_ || wider > live_ranks_) return "";
    std::string option = ceiling_option(wider);
    if (option.empty()) {
      while (!divides_all(wider)) ++wider;  // there is one, or that option would be the ceiling
      // A pack on one rank is there to be packed, not for want of ranks.
      const bool pack = task.degree() == 1 && sequences.size() > 1;
      if (keeps_shards_ && !pack && cuts_too_fine(sequences, wider)) option = "min_shard_tokens";
    }
    if (option.empty() || seconds_at(task, load, wider) >= seconds_of(task)) return "";
    return "; " + given(options_, option) + " allows no more";
  }

  /// The option that forbids so many ranks and all that are more; empty if none does.
  std::string ceiling_option(int degree) const {
    if (options_.max_degree > 0 && degree > options_.max_degree) return "max_degree";
    if (options_.max_peers > 0 && degree > options_.max_peers + 1) return "max_peers";
    if (options_.within_node && degree > cluster_.ranks_per_node) return "within_node";
    while (degree <= live_ranks_ && !divides_all(degree)) ++degree;
    return degree > live_ranks_ ? "degrees_divide" : "";
  }

  bool cuts_too_fine(const std::vector<Sequence>& sequences, int degree) const {
    return std::any_of(sequences.begin(), sequences.end(), [&](const Sequence& sequence) {
      return sequence.tokens < std::int64_t{degree} * options_.min_shard_tokens;
    });
  }

  /// Vision that its ranks do not share evenly.
  std::string frame_text(const Task& task, const Load& load) const {
    constexpr double kWorthWords = 1.01;  // times an even share
    const VisionSeconds vision = vision_seconds(cost_, load);
    const double fullest_s = vision.on(task.degree());
    if (fullest_s <= kWorthWords * vision.work_s / task.degree()) return "";
    if (fullest_s > vision.frame_s) {
      return "; its " + grouped(static_cast<std::int64_t>(load.frames)) +
             " frames do not divide evenly: the fullest share takes " + seconds_text(fullest_s) + ", an even one " +
             seconds_text(vision.work_s / task.degree());
    }
    return "; its largest frame (" + std::to_string(static_cast<std::int64_t>(load.largest_frame)) +
           " patches) stays on one rank for " + seconds_text(vision.frame_s);
  }

  std::string nodes_text(const Task& task) const {
    const GroupShape shape = shape_of(cluster_, task.ranks);
    if (shape.nodes == 1) return "";
    if (task.degree() > cluster_.ranks_per_node) return "; cross-node: wider than a node";
    return "; spans " + std::to_string(shape.nodes) + " nodes";
  }

  const Plan& plan_;
  const Cluster& cluster_;
  const CostModel& cost_;
  const Timeline& timeline_;
  const PlanOptions& options_;
  int live_ranks_ = 0;
  bool keeps_shards_ = false;   ///< the planner keeps min_shard_tokens
  bool powers_of_two_ = false;  ///< every degree of the plan is one
  bool one_degree_ = false;     ///< the plan has one degree for all
  struct MicroBatch {
    double slowest_s = 0.0;  ///< of its slowest task
    int busy_ranks = 0;
  };
  std::unordered_map<int, MicroBatch> micro_batches_;  ///< by number, which may be any
};

std::string start_text(const Plan& plan, const StartCause& cause) {
  switch (cause.kind) {
    case StartCause::Kind::step:
      break;
    case StartCause::Kind::rank:
      return "starts when rank " + std::to_string(cause.rank) + " is done with task " + std::to_string(cause.task);
    case StartCause::Kind::barrier:
      return "starts when task " + std::to_string(cause.task) + " has ended micro-batch " +
             std::to_string(plan.tasks[index(cause.task)].micro_batch);
  }
  return "starts with the step";
}

}  // namespace

std::vector<TaskReason> explain_tasks(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                      const CostModel& cost, const PlanOptions& options) {
  validate(options);
  require_shape(plan, cluster);
  validate(batch, "batch");
  validate(cost, "cost");
  const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost));
  const std::vector<StartCause> causes = start_causes(plan, timeline);
  const SequenceIndex by_id(batch);

  const DegreeReasons degrees(plan, cluster, cost, timeline, options);
  std::vector<TaskReason> reasons;
  for (const Task& task : plan.tasks) {
    std::vector<Sequence> sequences;
    for (const std::int64_t id : task.sequences) sequences.push_back(*by_id.find(id));
    reasons.push_back({.task = task.id,
                       .tokens = std::accumulate(sequences.begin(), sequences.end(), std::int64_t{0},
                                                 [](std::int64_t sum, const Sequence& s) { return sum + s.tokens; }),
                       .start_s = timeline.start_s[index(task.id)],
                       .seconds = timeline.end_s[index(task.id)] - timeline.start_s[index(task.id)],
                       .degree = degrees.reason(task, sequences),
                       .start = start_text(plan, causes[index(task.id)])});
  }
  return reasons;
}

}  // namespace dhp
