#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace dhp::cli {

/// Puts today's names of options in place of those that they had before the last release, which are read for one more,
/// and says so on standard error; so it does with a plan that has no --plan before it. `words` is the command line from
/// the command on, `app` has the commands. Throws InputError where an option is given by both names.
void replace_old_names(std::vector<std::string>& words, const CLI::App& app);

}  // namespace dhp::cli
