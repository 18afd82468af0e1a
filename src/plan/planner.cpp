#include "dhp/planner.h"

#include <charconv>

#include "dhp/error.h"
#include "plan/planners.h"

namespace dhp {
namespace {

constexpr std::string_view kStaticPrefix = "static:";

std::string join(const std::vector<int>& numbers) {
  std::string text;
  for (const int number : numbers) {
    if (!text.empty()) text += ", ";
    text += std::to_string(number);
  }
  return text;
}

/// The CP of "static:CP".
int parse_degree(const std::string& schedule, int ranks) {
  const std::string_view digits = std::string_view(schedule).substr(kStaticPrefix.size());
  int degree = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), degree);
  if (error != std::errc{} || end != digits.data() + digits.size() || degree < 1) {
    throw InputError("--schedule", "",
                     "found \"" + schedule + "\", expected a whole number of at least 1 after static:");
  }
  if (ranks % degree != 0) {
    throw InputError("--schedule", "",
                     "found \"" + schedule + "\", but " + std::to_string(degree) + " does not divide the " +
                         std::to_string(ranks) + " ranks; choose one of " + join(divisors(ranks)));
  }
  return degree;
}

void check_arguments(const Cluster& cluster, const PlanOptions& options) {
  if (cluster.nodes < 1 || cluster.ranks_per_node < 1) {
    throw InputError("cluster", cluster.nodes < 1 ? "nodes" : "ranks_per_node",
                     "found " + std::to_string(cluster.nodes < 1 ? cluster.nodes : cluster.ranks_per_node) +
                         ", expected at least 1");
  }
  if (cluster.nodes > kMaxRanks / cluster.ranks_per_node) {
    throw InputError("cluster", "nodes", "found more than " + std::to_string(kMaxRanks) + " ranks");
  }
  if (options.min_shard_tokens < 1) {
    throw InputError("--min-shard-tokens", "",
                     "found " + std::to_string(options.min_shard_tokens) + ", expected at least 1");
  }
}

}  // namespace

std::vector<int> divisors(int number) {
  std::vector<int> result;
  for (int divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) result.push_back(divisor);
  }
  return result;
}

const std::vector<PlannerInfo>& planners() {
  static const std::vector<PlannerInfo> kPlanners = {
      {"paper", "the paper's: sequences packed into bins by memory, every bin its own degree, in lockstep"},
      {"static", "what frameworks run: one degree for all; the best degree and pack size by prediction"},
      {"static:CP", "the same at the degree CP, which must divide the ranks"},
  };
  return kPlanners;
}

PlanResult plan_batch(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options) {
  check_arguments(cluster, options);
  validate(batch, "batch");
  const std::string& schedule = options.schedule;
  const bool is_static = schedule == "static" || schedule.starts_with(kStaticPrefix);
  if (schedule != "paper" && !is_static) {
    throw InputError("--schedule", "", "found \"" + schedule + "\", expected paper, static or static:CP");
  }
  std::optional<int> degree;
  if (schedule.starts_with(kStaticPrefix)) degree = parse_degree(schedule, cluster.ranks());

  PlanResult result = Plan{};
  if (batch.sequences.empty()) {
    std::get<Plan>(result).schedule = is_static ? Schedule::free : Schedule::lockstep;
  } else if (is_static) {
    result = plan_static(batch, cluster, cost, degree);
  } else {
    result = plan_paper(batch, cluster, cost, options);
  }
  if (Plan* plan = std::get_if<Plan>(&result)) {
    plan->ranks = cluster.ranks();
    if (plan->planner.empty()) plan->planner = schedule;
    annotate(*plan, batch, cluster, cost);
  }
  return result;
}

}  // namespace dhp
