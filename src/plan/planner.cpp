#include "dhp/planner.h"

#include <algorithm>

#include "dhp/error.h"
#include "dhp/plan_options.h"
#include "plan/planners.h"
#include "plan/shared_links.h"

namespace dhp {

bool uses_option(const std::string& planner, const std::string& option) {
  if (plan::own_users(option).empty()) return true;
  const std::string name = planner.substr(0, planner.find(':'));
  return std::any_of(plan::planner_table().begin(), plan::planner_table().end(),
                     [&](const plan::Planner& known) { return name == known.name && plan::has_own(known, option); });
}

void refuse_unused(const PlanOptions& options) {
  const plan::Planner& planner = plan::find_planner(options.planner);
  for (const OptionInfo& info : plan_options()) {
    if (uses_option(planner.name, info.name) || option_text(options, info.name) == info.default_text) continue;
    throw InputError(option_flag(info.name), "",
                     std::string("is not used by ") + planner.name +
                         ": leave it out, or take a planner that uses it (" + plan::own_users(info.name) + ")");
  }
}

std::vector<PlannerInfo> planners() {
  std::vector<PlannerInfo> infos;
  for (const plan::Planner& planner : plan::planner_table()) {
    infos.push_back({planner.name, planner.help});
    if (planner.argument == plan::Argument::none) continue;
    infos.push_back({std::string(planner.name) + ":" + planner.argument_name, planner.argument_help});
  }
  return infos;
}

namespace {

/// What plan_batch() and infeasible_sequences() make of their arguments.
struct Request {
  const plan::Planner& planner;
  std::optional<int> argument;
  plan::Limits limits;
};

Request request_of(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options) {
  validate(cluster, "cluster");
  validate(cost, "cost");
  validate(options);
  validate(batch, "batch");
  const plan::Planner& planner = plan::find_planner(options.planner);
  const std::optional<int> argument = plan::parse_argument(planner, options.planner, cluster.ranks());
  return {planner, argument, plan::Limits(cluster, cost, options, planner.exchanges)};
}

std::vector<Infeasible> find_infeasible(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                        const PlanOptions& options, std::size_t most) {
  const auto [planner, argument, limits] = request_of(batch, cluster, cost, options);
  if (batch.sequences.empty()) return {};
  if (auto nothing_fits = limits.find_nothing_fits()) return {std::move(*nothing_fits)};
  plan::SequenceCheck check;
  if (planner.check != nullptr) {
    check = planner.check(limits, options, argument);
    auto answer = check(batch.sequences.front());
    if (answer && !answer->sequence) return {std::move(*answer)};
  }
  std::vector<Infeasible> answers;
  for (const Sequence& sequence : batch.sequences) {
    std::optional<Infeasible> answer;
    if (!limits.holds(sequence, limits.widest())) {
      answer = limits.why_not(sequence, limits.widest());
    } else if (check) {
      answer = check(sequence);
    }
    if (!answer) continue;
    answers.push_back(std::move(*answer));
    if (answers.size() == most) break;
  }
  return answers;
}

}  // namespace

std::vector<Infeasible> infeasible_sequences(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                             const PlanOptions& options) {
  return find_infeasible(batch, cluster, cost, options, batch.sequences.size());
}

std::optional<Infeasible> first_infeasible(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                           const PlanOptions& options) {
  std::vector<Infeasible> answers = find_infeasible(batch, cluster, cost, options, 1);
  if (answers.empty()) return std::nullopt;
  return std::move(answers.front());
}

PlanResult plan::plan_without_times(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                    const PlanOptions& options) {
  const auto [planner, argument, limits] = request_of(batch, cluster, cost, options);
  if (auto infeasible = limits.find_infeasible(batch)) return std::move(*infeasible);

  PlanResult result = Plan{.schedule = planner.schedule};
  if (!batch.sequences.empty()) {
    result = planner.sees_shared_links && options.pipeline_stages == 1 && shares_links(cluster)
                 ? plan_for_shared_links(planner, batch, limits, options, argument)
                 : planner.plan(batch, limits, options, argument);
  }
  if (Plan* plan = std::get_if<Plan>(&result)) {
    plan->ranks = cluster.ranks();
    plan->schedule = planner.schedule;
    if (plan->planner.empty()) plan->planner = options.planner;
  }
  return result;
}

PlanResult plan_batch(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options) {
  PlanResult result = plan::plan_without_times(batch, cluster, cost, options);
  if (Plan* plan = std::get_if<Plan>(&result)) {
    annotate(*plan, batch, cluster, cost);
    if (options.tighter_bound) certify(*plan, batch, cluster, cost);
  }
  return result;
}

}  // namespace dhp
