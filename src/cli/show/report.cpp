#include "cli/show/report.h"
#include "cli/show/json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
namespace dhp::cli {
namespace {

std::string format(const char* pattern, double value) {
  std::array<char, 64> text{};
  // The patterns are the literals below.
  std::snprintf(text.data(), text.size(), pattern, value);  // NOLINT
  return text.data();
}

/// Those that have tasks; their numbers may leave some out.
int micro_batches(const Plan& plan) {
  int count = 0;
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    if (i == 0 || plan.tasks[i].micro_batch != plan.tasks[i - 1].micro_batch) ++count;
  }
  return count;
}

}  // namespace

std::string groups_text(const std::vector<std::pair<int, int>>& degrees) {
  std::string text;
  const std::vector<std::pair<int, int>> widest_first(degrees.rbegin(), degrees.rend());
  for (const auto& [degree, groups] : widest_first) {
    if (!text.empty()) text += ' ';
    text += std::to_string(degree);
    text += "×" + std::to_string(groups);
  }
  return text.empty() ? "none" : text;
}

std::string seconds_text(double seconds) {
  if (seconds != 0.0 && seconds < 0.1) return format("%.3g ms", seconds * 1e3);
  return format("%.3f s", seconds);
}

std::string percent_text(double share) {
  constexpr double kShown = 0.0005;  // what is less is 0, not -0
  return format("%.1f %%", std::abs(share) < kShown ? 0.0 : share * 100.0);
}

std::string fixed_text(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);  // NOLINT
  return text.data();
}

std::string bytes_text(double bytes) {
  constexpr double kKilo = 1024.0;
  constexpr std::array<const char*, 4> kUnits = {"KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1.0) return "0 B";
  double value = bytes / kKilo;
  std::size_t unit = 0;
  for (; value >= kKilo && unit + 1 < kUnits.size(); ++unit) value /= kKilo;
  return fixed_text(value, 1) + " " + kUnits[unit];
}

std::string memory_text(double amount, const CostModel& cost) {
  return counts_tokens(cost) ? grouped(static_cast<std::int64_t>(std::ceil(amount))) + " tokens" : bytes_text(amount);
}

std::string change_text(double from, double to) {
  return format("%+.1f %%", from > 0.0 ? (to / from - 1.0) * 100.0 : 0.0);
}

std::string count(std::size_t number, const std::string& what) {
  return std::to_string(number) + ' ' + what + (number == 1 ? "" : what.ends_with("ch") ? "es" : "s");
}

double percentile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return percentile_of_sorted(values, q);
}

double percentile_of_sorted(const std::vector<double>& values, double q) {
  const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}

nlohmann::ordered_json degrees_json(const Explanation& explanation) {
  Json degrees = Json::object();
  for (const auto& [degree, tasks] : explanation.degrees) degrees[std::to_string(degree)] = tasks;
  return degrees;
}

Json errors_json(const ErrorSizes& sizes) {
  return {{"sequence", sizes.sequence}, {"task", sizes.task}, {"rank", sizes.rank}};
}

Json if_bounded(double lower_bound_s, double value) { return lower_bound_s > 0.0 ? Json(value) : Json(nullptr); }

std::string line(std::string text) {
  while (text.ends_with('\n')) text.pop_back();
  return text + '\n';
}

std::string json_line(const Json& json) {
  return line(printable_json(json.dump(1, ' ', false, Json::error_handler_t::replace)));
}

std::string peers_text(int most_peers) { return std::to_string(most_peers) + " at most share tasks with one rank"; }

std::string summary_text(const Plan& plan, const Explanation& explanation, const PlanMetrics& metrics, int stages) {
  std::string text = on_one_line(plan.planner) + ": " + count(plan.tasks.size(), "task");
  if (plan.schedule != Schedule::free) {
    text += " in " + count(static_cast<std::size_t>(micro_batches(plan)), "micro-batch");
  }
  text += " on " + count(static_cast<std::size_t>(plan.ranks), "rank") + ", " + std::string(to_string(plan.schedule));
  text += "\ngroups    " + groups_text(explanation.degrees);
  text += "\nmakespan  " + seconds_text(explanation.makespan_s);
  if (uses_all_to_all(plan)) {
    text += "\nbound     none is known for all_to_all";
  } else {
    text += "\nbound     " + seconds_text(explanation.lower_bound_s) + ", " + explanation.limited_by;
    text += "\ngap       " + percent_text(explanation.gap);
  }
  if (stages > 1) {
    text += "\npipeline  " + seconds_text(metrics.pipeline_s(stages)) + " with " +
            count(static_cast<std::size_t>(stages), "stage") + ", the slowest micro-batch " +
            seconds_text(metrics.slowest_micro_batch_s);
  }
  text += "\nidle      " + percent_text(explanation.idle_share);
  text += "\npeers     " + peers_text(metrics.most_peers);
  text += "\nhash      " + on_one_line(plan.hash) + '\n';
  return text;
}

std::string summary_json(const Plan& plan, const Explanation& explanation, const PlanMetrics& metrics, int stages) {
  Json json = {{"planner", plan.planner},
               {"schedule", to_string(plan.schedule)},
               {"ranks", plan.ranks},
               {"tasks", plan.tasks.size()},
               {"micro_batches", micro_batches(plan)},
               {"degrees", degrees_json(explanation)},
               {"makespan_s", explanation.makespan_s},
               {"lower_bound_s", if_bounded(explanation.lower_bound_s, explanation.lower_bound_s)},
               {"gap", if_bounded(explanation.lower_bound_s, explanation.gap)},
               {"idle_share", explanation.idle_share},
               {"most_peers", metrics.most_peers},
               {"hash", plan.hash}};
  if (stages > 1) json["pipeline_s"] = metrics.pipeline_s(stages);
  return json_line(json);
}

}  // namespace dhp::cli
