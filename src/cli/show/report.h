#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/text.h"
#include "dhp/explain.h"
#include "dhp/metrics.h"

namespace dhp::cli {

/// "8×1 2×2 1×6": degree × groups, widest first; "none" without any.
std::string groups_text(const std::vector<std::pair<int, int>>& degrees);

/// Three to four significant digits with a unit: "1.204 s", "12.3 ms".
std::string seconds_text(double seconds);

/// "3.1 %"
std::string percent_text(double share);

/// The value with so many digits after the point.
std::string fixed_text(double value, int digits);

/// "29.8 GiB", "112.0 MiB", "288.0 KiB", "0 B"
std::string bytes_text(double bytes);

/// The same, or "1,024 tokens" where the cost counts those.
std::string memory_text(double amount, const CostModel& cost);

/// How much `to` is above or below `from`: "+11.3 %"
std::string change_text(double from, double to);

/// "1 task", "2 tasks", "3 micro-batches"
std::string count(std::size_t number, const std::string& what);

/// The value that a share `q` of the values does not exceed, the nearest rank of them. There must be one.
double percentile(std::vector<double> values, double q);
/// The same of values that are in order already.
double percentile_of_sorted(const std::vector<double>& values, double q);

/// {"1": 171, "2": 32}: tasks by degree.
nlohmann::ordered_json degrees_json(const Explanation& explanation);

/// A bound, or what compares with it: null where the bound is 0, so none is known.
nlohmann::ordered_json if_bounded(double lower_bound_s, double value);

/// {"sequence": 0.02, "task": 0.02, "rank": 0.01}
nlohmann::ordered_json errors_json(const ErrorSizes& sizes);

/// The text as JSON output wants it: exactly one newline at its end.
std::string line(std::string text);
/// JSON as commands print it: nothing in it steers a terminal, and what is not UTF-8 is replaced.
std::string json_line(const nlohmann::ordered_json& json);

/// A plan in a few lines. `stages` of the pipeline that it is for.
std::string summary_text(const Plan& plan, const Explanation& explanation, const PlanMetrics& metrics, int stages);
std::string summary_json(const Plan& plan, const Explanation& explanation, const PlanMetrics& metrics, int stages);

/// "5 at most share tasks with one rank"
std::string peers_text(int most_peers);

}  // namespace dhp::cli
