#pragma once

#include <string>

#include "dhp/explain.h"

namespace dhp::cli {

/// "8×1 2×2 1×6": degree × groups, widest first; "none" without any.
std::string groups_text(const std::vector<std::pair<int, int>>& degrees);

/// Three to four significant digits with a unit: "1.204 s", "12.3 ms".
std::string seconds_text(double seconds);

/// "3.1 %"
std::string percent_text(double share);

/// The text as JSON output wants it: exactly one newline at its end.
std::string line(std::string text);

/// Text of an explanation; the JSON form is below.
std::string to_text(const Explanation& explanation);
std::string to_json(const Explanation& explanation);

/// A plan in a few lines.
std::string summary_text(const Plan& plan, const Explanation& explanation);
std::string summary_json(const Plan& plan, const Explanation& explanation);

}  // namespace dhp::cli
