#include <algorithm>
#include <charconv>

#include "dhp/error.h"
#include "plan/planners.h"

namespace dhp::plan {
namespace {

using enum Exchange;

/// The planners known so far, in the order of the help text.
std::vector<Planner>& mutable_table() {
  static std::vector<Planner> planners = {
      {"free",
       Argument::none,
       "",
       Schedule::free,
       {ring, direct, hierarchical},
       {"min_shard_tokens", "effort", "expect_error", "most_loss"},
       plan_free,
       nullptr,
       "the whole batch as one plan without barriers; groups of any ranks; degrees, places and packs chosen together",
       "",
       true},
      {"lockstep",
       Argument::none,
       "",
       Schedule::lockstep,
       {ring, direct, hierarchical},
       {"min_shard_tokens", "effort", "expect_error", "most_loss", "pipeline_stages", "no_idle_ranks"},
       plan_lockstep,
       nullptr,
       "for FSDP and pipelines: micro-batches, packing and degrees chosen together, by predicted time",
       "",
       true},
      {"static",
       Argument::divides_ranks,
       "CP",
       Schedule::free,
       {ring},
       {},
       plan_static,
       check_for_static,
       "as most frameworks do: one degree for all; the best degree and pack size by prediction",
       "the same at the degree CP, which must divide the ranks"},
      {"balanced-static",
       Argument::divides_ranks,
       "CP",
       Schedule::free,
       {ring},
       {},
       plan_balanced_static,
       check_for_static,
       "the best in production use: one degree for all, packs balanced over the groups by predicted time",
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
  };
  return planners;
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

}  // namespace

const std::vector<Planner>& planner_table() { return mutable_table(); }

void add_planners(const std::vector<Planner>& more) {
  mutable_table().insert(mutable_table().end(), more.begin(), more.end());
}

bool has_own(const Planner& planner, std::string_view option) {
  return std::find(planner.own_options.begin(), planner.own_options.end(), option) != planner.own_options.end();
}

const Planner& find_planner(const std::string& text) {
  const std::string name = text.substr(0, text.find(':'));
  for (const Planner& planner : planner_table()) {
    const bool takes_argument = planner.argument != Argument::none;
    if (name == planner.name && (takes_argument || name == text)) return planner;
  }
  fail("--planner", "found \"" + text + "\", expected one of " + known_names());
}

/// The number after the colon, if there is one.
std::optional<int> parse_argument(const Planner& planner, const std::string& text, int ranks) {
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) return std::nullopt;
  const std::string_view digits = std::string_view(text).substr(colon + 1);
  int degree = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), degree);
  if (error != std::errc{} || end != digits.data() + digits.size() || degree < 1) {
    fail("--planner", "found \"" + text + "\", expected a whole number of at least 1 after " + planner.name + ":");
  }
  if (planner.argument == Argument::divides_ranks && ranks % degree != 0) {
    fail("--planner", "found \"" + text + "\", but " + std::to_string(degree) + " does not divide the " +
                          std::to_string(ranks) + " ranks; choose one of " + join(divisors(ranks)));
  }
  return degree;
}

std::vector<int> divisors(int number) {
  std::vector<int> result;
  for (int divisor = 1; divisor <= number; ++divisor) {
    if (number % divisor == 0) result.push_back(divisor);
  }
  return result;
}

std::string own_users(const std::string& option) {
  std::string users;
  for (const Planner& planner : planner_table()) {
    if (has_own(planner, option)) users += (users.empty() ? "" : ", ") + std::string(planner.name);
  }
  return users;
}

}  // namespace dhp::plan
