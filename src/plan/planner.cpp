#include "dhp/planner.h"

#include <algorithm>
#include <charconv>

#include "dhp/error.h"
#include "dhp/plan_options.h"
#include "plan/planners.h"

namespace dhp {
namespace {

using enum Exchange;

using PlanFunction = PlanResult (*)(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                    std::optional<int> argument);

using CheckFunction = SequenceCheck (*)(const Limits& limits, const PlanOptions& options, std::optional<int> argument);

/// What the number after the colon of a name may be.
enum class Argument { none, number, divides_ranks };

struct Planner {
  const char* name;
  Argument argument;  ///< may be left out
  const char* argument_name;
  Schedule schedule;
  std::vector<Exchange> exchanges;            ///< where the options name none
  std::vector<std::string_view> own_options;  ///< used beyond what all planners use
  PlanFunction plan;
  CheckFunction check;  ///< of sequences alone, beyond what the limits say; null: they say all
  const char* help;
  const char* argument_help;
};

const std::vector<Planner>& table() {
  static const std::vector<Planner> kTable = {
      {"free",
       Argument::none,
       "",
       Schedule::free,
       {ring, direct, hierarchical},
       {"min_shard_tokens", "effort"},
       plan_free,
       nullptr,
       "no barrier: the whole batch as one schedule, groups of any ranks, degrees, places and packs chosen together",
       ""},
      {"lockstep",
       Argument::none,
       "",
       Schedule::lockstep,
       {ring, direct, hierarchical},
       {"min_shard_tokens", "effort", "pipeline_stages", "no_idle_ranks"},
       plan_lockstep,
       nullptr,
       "for FSDP and pipelines: micro-batches, packing and degrees chosen together, by time",
       ""},
      {"paper",
       Argument::none,
       "",
       Schedule::lockstep,
       {ring},
       {"min_shard_tokens", "no_idle_ranks"},
       plan_paper,
       nullptr,
       "the paper's: sequences packed into bins by memory, every bin its own degree, in lockstep",
       ""},
      {"static",
       Argument::divides_ranks,
       "CP",
       Schedule::free,
       {ring},
       {},
       plan_static,
       check_for_static,
       "what frameworks run: one degree for all; the best degree and pack size by prediction",
       "the same at the degree CP, which must divide the ranks"},
      {"balanced-static",
       Argument::divides_ranks,
       "CP",
       Schedule::free,
       {ring},
       {},
       plan_balanced_static,
       check_for_static,
       "the best of production: one degree for all, packs balanced over the groups by predicted time",
       "the same at the degree CP, which must divide the ranks"},
      {"ulysses",
       Argument::divides_ranks,
       "SP",
       Schedule::free,
       {all_to_all},
       {},
       plan_ulysses,
       check_for_ulysses,
       "DeepSpeed-Ulysses: static, but heads are split instead of sequences; degrees divide the query heads",
       "the same at the degree SP, which must divide the ranks"},
      {"megatron-hybrid",
       Argument::number,
       "M",
       Schedule::rounds,
       {ring},
       {},
       plan_megatron_hybrid,
       check_for_megatron,
       "Megatron-Core's BalancedCPScheduler: powers of two by length, samples one at a time, barriers",
       "the same with at most M tokens of a sample on a rank, instead of the best of five M"},
      {"megatron-dynamic",
       Argument::number,
       "M",
       Schedule::lockstep,
       {ring},
       {"no_idle_ranks"},
       plan_megatron_dynamic,
       check_for_megatron,
       "Megatron-Core's DefaultDynamicCPScheduler: powers of two, packed, micro-batch by micro-batch",
       "the same with at most M tokens on a rank, instead of the best of five M"},
  };
  return kTable;
}

std::string join(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) {
    if (!text.empty()) text += ", ";
    text += std::to_string(number);
  }
  return text;
}

std::string known_names() {
  std::string text;
  for (const PlannerInfo& planner : planners()) text += (text.empty() ? "" : ", ") + planner.name;
  return text;
}

[[noreturn]] void fail(const char* option, const std::string& problem) { throw InputError(option, "", problem); }

bool has_own(const Planner& planner, std::string_view option) {
  return std::find(planner.own_options.begin(), planner.own_options.end(), option) != planner.own_options.end();
}

const Planner& find_planner(const std::string& schedule) {
  const std::string name = schedule.substr(0, schedule.find(':'));
  for (const Planner& planner : table()) {
    const bool takes_argument = planner.argument != Argument::none;
    if (name == planner.name && (takes_argument || name == schedule)) return planner;
  }
  fail("--schedule", "found \"" + schedule + "\", expected one of " + known_names());
}

/// The number after the colon, if there is one.
std::optional<int> parse_argument(const Planner& planner, const std::string& schedule, int ranks) {
  const std::size_t colon = schedule.find(':');
  if (colon == std::string::npos) return std::nullopt;
  const std::string_view digits = std::string_view(schedule).substr(colon + 1);
  int degree = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), degree);
  if (error != std::errc{} || end != digits.data() + digits.size() || degree < 1) {
    fail("--schedule", "found \"" + schedule + "\", expected a whole number of at least 1 after " + planner.name + ":");
  }
  if (planner.argument == Argument::divides_ranks && ranks % degree != 0) {
    fail("--schedule", "found \"" + schedule + "\", but " + std::to_string(degree) + " does not divide the " +
                           std::to_string(ranks) + " ranks; choose one of " + join(divisors(ranks)));
  }
  return degree;
}

}  // namespace

std::vector<int> divisors(int number) {
  std::vector<int> result;
  for (int divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) result.push_back(divisor);
  }
  return result;
}

std::string own_users(const std::string& option) {
  std::string users;
  for (const Planner& planner : table()) {
    if (has_own(planner, option)) users += (users.empty() ? "" : ", ") + std::string(planner.name);
  }
  return users;
}

bool uses_option(const std::string& schedule, const std::string& name) {
  if (own_users(name).empty()) return true;
  const std::string planner_name = schedule.substr(0, schedule.find(':'));
  return std::any_of(table().begin(), table().end(),
                     [&](const Planner& planner) { return planner_name == planner.name && has_own(planner, name); });
}

void refuse_unused(const PlanOptions& options) {
  const Planner& planner = find_planner(options.schedule);
  for (const OptionInfo& info : plan_options()) {
    if (uses_option(planner.name, info.name) || option_text(options, info.name) == info.default_text) continue;
    throw InputError(option_flag(info.name), "",
                     std::string("is not used by ") + planner.name +
                         ": leave it out, or take a schedule that uses it (" + own_users(info.name) + ")");
  }
}

const std::vector<PlannerInfo>& planners() {
  static const std::vector<PlannerInfo> kPlanners = [] {
    std::vector<PlannerInfo> infos;
    for (const Planner& planner : table()) {
      infos.push_back({planner.name, planner.help});
      if (planner.argument == Argument::none) continue;
      infos.push_back({std::string(planner.name) + ":" + planner.argument_name, planner.argument_help});
    }
    return infos;
  }();
  return kPlanners;
}

namespace {

/// What plan_batch() and infeasible_sequences() make of their arguments.
struct Request {
  const Planner& planner;
  std::optional<int> argument;
  Limits limits;
};

Request request_of(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options) {
  validate(cluster, "cluster");
  validate(cost, "cost");
  validate(options);
  validate(batch, "batch");
  const Planner& planner = find_planner(options.schedule);
  const std::optional<int> argument = parse_argument(planner, options.schedule, cluster.ranks());
  return {planner, argument, Limits(cluster, cost, options, planner.exchanges)};
}

std::vector<Infeasible> find_infeasible(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                        const PlanOptions& options, std::size_t most) {
  const auto [planner, argument, limits] = request_of(batch, cluster, cost, options);
  if (batch.sequences.empty()) return {};
  if (auto nothing_fits = limits.find_nothing_fits()) return {std::move(*nothing_fits)};
  SequenceCheck check;
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

PlanResult plan_without_times(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                              const PlanOptions& options) {
  const auto [planner, argument, limits] = request_of(batch, cluster, cost, options);
  if (auto infeasible = limits.find_infeasible(batch)) return std::move(*infeasible);

  PlanResult result = Plan{.schedule = planner.schedule};
  if (!batch.sequences.empty()) result = planner.plan(batch, limits, options, argument);
  if (Plan* plan = std::get_if<Plan>(&result)) {
    plan->ranks = cluster.ranks();
    plan->schedule = planner.schedule;
    if (plan->planner.empty()) plan->planner = options.schedule;
  }
  return result;
}

PlanResult plan_batch(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options) {
  PlanResult result = plan_without_times(batch, cluster, cost, options);
  if (Plan* plan = std::get_if<Plan>(&result)) {
    annotate(*plan, batch, cluster, cost);
    if (options.tighter_bound) certify(*plan, batch, cluster, cost);
  }
  return result;
}

}  // namespace dhp
