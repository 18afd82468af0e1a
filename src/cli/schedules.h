#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace dhp::cli {

/// Adds --schedules, a list of planners. `schedules` must outlive the command.
void add_schedules_option(CLI::App& command, std::string& schedules);

/// The planners of such a list; all that need no number where it is empty. Throws InputError for an unknown name; a
/// number that a planner cannot use is the planner's to refuse.
std::vector<std::string> schedules_of(const std::string& list);

}  // namespace dhp::cli
