#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace dhp::cli {

/// Adds --planners, a list of planners. `list` must outlive the command.
void add_planners_option(CLI::App& command, std::string& list);

/// The planners of such a list; all that need no number where it is empty. Throws InputError for an unknown name; a
/// number that a planner cannot use is the planner's to refuse.
std::vector<std::string> planner_names(const std::string& list);

}  // namespace dhp::cli
