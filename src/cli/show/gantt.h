#pragma once

#include <string>

#include "cli/show/terminal.h"
#include "dhp/plan.h"

namespace dhp::cli {

/// Rows that fit a screen. With more ranks than that, ranks at equal distances stand for all.
inline constexpr int kMostGanttRows = 32;

/// Ranks down, time across. A cell shows the task that a rank spends most of it with: by its degree, as colour or,
/// where there is none, as a digit or letter; a bar where a task begins that is wider than a cell; a dot where the rank
/// idles for half of it or more. `most_rows` 0: all ranks. Empty for an empty plan.
std::string gantt_text(const Plan& plan, const Timeline& timeline, const Terminal& terminal, int most_rows);

}  // namespace dhp::cli
