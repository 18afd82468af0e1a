#include "plan_properties.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <vector>

#include "dhp/bound.h"
#include "option_rules.h"

namespace dhp::test {
namespace {

constexpr double kRounding = 1e-9;

PlanResult plan_of(const Case& made) { return plan_batch(made.batch, made.cluster, made.cost, made.options); }

std::string shown(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.17g", value);
  return text.data();
}

/// The same case in other words.
struct Twin {
  bool reversed = false;
  double time = 1.0;     ///< powers of two: rounding stays what it is
  double memory = 1.0;   ///< of bytes that are held
  double traffic = 1.0;  ///< of bytes that are sent
  std::int64_t id_step = 1;
};

/// By position in the batch of rising ids.
std::map<std::int64_t, std::int64_t> new_ids(const Batch& batch, std::int64_t step) {
  std::map<std::int64_t, std::int64_t> ids;
  for (const Sequence& sequence : batch.sequences) ids[sequence.id] = sequence.id;
  if (step == 1) return ids;
  std::int64_t next = -7;
  for (auto& [id, changed] : ids) changed = next += step;
  return ids;
}

Case apply(const Twin& twin, Case made) {
  const auto ids = new_ids(made.batch, twin.id_step);
  for (Sequence& sequence : made.batch.sequences) sequence.id = ids.at(sequence.id);
  auto& sequences = made.batch.sequences;
  if (twin.reversed) {
    // Not only reversed: two in three also change places with a neighbour further on.
    std::reverse(sequences.begin(), sequences.end());
    for (std::size_t i = 0; i + 2 < sequences.size(); i += 3) std::swap(sequences[i], sequences[i + 2]);
  }
  CostModel& cost = made.cost;
  for (double* bytes : {&cost.token_bytes, &cost.patch_bytes, &cost.state_bytes, &made.cluster.memory_bytes}) {
    *bytes *= twin.memory;
  }
  for (double* seconds : {&cost.task_s, &cost.patch_s, &cost.patch_pair_s}) *seconds *= twin.time;
  for (PassCost* pass : {&cost.forward, &cost.backward}) {
    for (double* seconds : {&pass->token_s, &pass->pair_s, &pass->step_s, &pass->sequence_step_s}) {
      *seconds *= twin.time;
    }
    pass->ring_bytes_per_token *= twin.traffic;
    pass->all_to_all_bytes_per_token *= twin.traffic;
  }
  for (Link* link : {&made.cluster.intra_node, &made.cluster.inter_node}) {
    link->latency_s *= twin.time;
    link->bandwidth_bytes_per_s *= twin.traffic / twin.time;
  }
  return made;
}

/// What the twin's plan should be but is not; empty if the plans are twins.
std::string difference(const Plan& plan, Plan other, const Case& made, const Twin& twin) {
  std::map<std::int64_t, std::int64_t> old_ids;
  for (const auto& [id, changed] : new_ids(made.batch, twin.id_step)) old_ids[changed] = id;
  if (plan.tasks.size() != other.tasks.size()) {
    return std::to_string(other.tasks.size()) + " instead of " + std::to_string(plan.tasks.size()) + " tasks";
  }
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    Task& task = other.tasks[i];
    for (std::int64_t& id : task.sequences) id = old_ids.at(id);
    for (std::optional<double>* seconds : {&task.start_s, &task.end_s}) **seconds /= twin.time;
    if (task != plan.tasks[i]) return "task " + std::to_string(i) + " differs";
  }
  if (plan.predicted->makespan_s * twin.time != other.predicted->makespan_s) return "the makespan differs";
  return "";
}

std::string difference_of(const Case& made, const Plan& plan_of_made, const Twin& twin) {
  const PlanResult result = plan_of(apply(twin, made));
  const Plan* other = std::get_if<Plan>(&result);
  return other == nullptr ? "infeasible" : difference(plan_of_made, *other, made, twin);
}

/// Whether no more is asked for than that shards are not too short.
bool is_unconstrained(const PlanOptions& options) {
  return options.max_degree == 0 && options.degrees_divide.empty() && options.max_tokens_per_rank == 0 &&
         options.max_peers == 0 && !options.within_node && options.placement == Placement::any &&
         options.exchanges.empty();
}

/// The time of free over that of the best static plan, where that is one that free might have made. Static plans
/// depend on the order of the batch, free ones do not: compared in the order of ids.
std::optional<double> over_static(const Case& made) {
  if (made.options.planner != "free" || !is_unconstrained(made.options)) return std::nullopt;
  Case other = made;
  other.options.planner = "static";
  std::sort(other.batch.sequences.begin(), other.batch.sequences.end(),
            [](const Sequence& a, const Sequence& b) { return a.id < b.id; });
  const PlanResult result = plan_of(other);
  const Plan* best = std::get_if<Plan>(&result);
  if (best == nullptr || best->tasks.empty() || !broken_options(*best, made).empty()) return std::nullopt;
  return std::get<Plan>(plan_of(made)).predicted->makespan_s / best->predicted->makespan_s;
}

std::vector<Broken> broken_by_static(const Case& made) {
  const std::optional<double> ratio = over_static(made);
  // What the plan may give up for errors of estimates.
  const bool has_errors = made.options.expect_error.value_or(made.cost.expected_error.value_or(ErrorSizes{})).any();
  if (!ratio || *ratio <= (1 + kRounding) * (1 + (has_errors ? made.options.most_loss : 0.0))) return {};
  return {{"beats static", "takes " + std::to_string(*ratio) + " of the time of static"}};
}

/// Planned once with all changes at once; which of them matters is looked for afterwards. Time stands apart.
std::vector<Broken> broken_by_twins(const Case& made, const Plan& plan_of_made) {
  std::vector<Broken> broken;
  const auto compare = [&](const char* name, const Twin& twin) {
    const std::string detail = difference_of(made, plan_of_made, twin);
    if (!detail.empty()) broken.push_back({name, detail});
    return detail.empty();
  };
  compare("time", {false, 2, 1, 1, 1});
  if (difference_of(made, plan_of_made, {true, 1, 4, 8, 3}).empty()) return broken;
  bool each = compare("order", {true, 1, 1, 1, 1});
  each = compare("memory", {false, 1, 4, 1, 1}) && each;
  each = compare("traffic", {false, 1, 1, 8, 1}) && each;
  each = compare("ids", {false, 1, 1, 1, 3}) && each;
  if (each) broken.push_back({"order", "matters together with other units and ids"});
  return broken;
}

/// What holds for every plan.
std::vector<Broken> broken_by_plan(const Case& made, const Plan& plan) {
  std::vector<Broken> broken;
  for (const std::string& violation : check_plan(plan, made.batch, made.cluster, made.cost)) {
    broken.push_back({"valid", violation});
  }
  const double makespan = plan.predicted->makespan_s;
  if (!std::isfinite(makespan)) return {{"bounds", "the makespan is not finite"}};
  if (!uses_all_to_all(plan)) {
    for (const auto& [name, bound] :
         {std::pair{"simple", simple_lower_bound_s(made.batch, made.cluster, made.cost)},
          std::pair{"tighter", tighter_lower_bound_s(made.batch, made.cluster, made.cost)}}) {
      if (makespan >= bound * (1 - kRounding)) continue;
      broken.push_back({"bounds", shown(makespan) + " is below the " + name + " bound " + shown(bound)});
    }
  }
  if (parse_plan(to_json(plan), "plan") != plan) broken.push_back({"survives files", "another plan comes back"});
  const PlanResult again = plan_of(made);
  if (to_json(std::get<Plan>(again)) != to_json(plan)) broken.push_back({"same bytes", "another plan the second time"});
  return broken;
}

/// The answer is right: Infeasible where it must be, and nowhere else.
std::vector<Broken> broken_by_answer(const Case& made, const Infeasible* infeasible) {
  const std::optional<std::string> why = why_infeasible(made);
  if (infeasible == nullptr && why) return {{"infeasible", "there is a plan, although " + *why}};
  if (infeasible == nullptr || why) return {};
  // Whether all ranks can be kept busy takes a search: the planner may say no.
  if (made.options.no_idle_ranks && !infeasible->sequence) return {};
  return {{"infeasible", "the answer is: " + infeasible->reason}};
}

/// By option_rules.h; check_options() has to see the same.
std::vector<Broken> broken_by_options(const Case& made, const Plan& plan) {
  std::vector<Broken> broken;
  for (const BrokenOption& one : broken_options(plan, made)) broken.push_back({"keeps " + one.option, one.detail});
  const std::vector<std::string> seen = check_options(plan, made.batch, made.cluster, made.cost, made.options);
  if (seen.empty() == broken.empty()) return broken;
  broken.push_back({"checkers agree", seen.empty() ? "check_options() sees nothing: " + broken.front().detail
                                                   : "only check_options() sees: " + seen.front()});
  return broken;
}

/// Planners that choose the degree of every sequence. The others, with one degree for all or Megatron-Core's rules,
/// find no plan for some batches, and do not look at min_shard_tokens.
bool chooses_degrees(const std::string& planner) {
  return planner == "free" || planner == "lockstep" || planner == "paper";
}

std::vector<Broken> all_broken(const Case& made) {
  const std::string& planner = made.options.planner;
  const PlanResult result = plan_of(made);
  const Plan* plan = std::get_if<Plan>(&result);
  std::vector<Broken> broken;
  const auto append = [&](const std::vector<Broken>& more) { broken.insert(broken.end(), more.begin(), more.end()); };
  if (chooses_degrees(planner)) append(broken_by_answer(made, std::get_if<Infeasible>(&result)));
  if (plan == nullptr) return broken;
  append(broken_by_plan(made, *plan));
  if (chooses_degrees(planner)) {
    append(broken_by_options(made, *plan));
  } else {
    for (const std::string& one : check_options(*plan, made.batch, made.cluster, made.cost, made.options)) {
      broken.push_back({"keeps options", one});
    }
  }
  if (planner == "free" || planner == "lockstep") append(broken_by_twins(made, *plan));
  append(broken_by_static(made));
  return broken;
}

}  // namespace

std::optional<Broken> first_broken(const Case& made) {
  std::vector<Broken> broken;
  try {
    broken = all_broken(made);
  } catch (const std::exception& error) {
    broken = {{"answers", std::string("throws: ") + error.what()}};
  }
  return broken.empty() ? std::nullopt : std::optional(broken.front());
}

}  // namespace dhp::test
