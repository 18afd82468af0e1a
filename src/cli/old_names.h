#pragma once

#include <string>
#include <vector>

namespace dhp::cli {

/// Puts today's names of options in place of those that they had before the last release, which are read for one more,
/// and says so on standard error. `words` is the command line from the command on. Throws InputError where an option
/// is given by both names.
void replace_old_names(std::vector<std::string>& words);

}  // namespace dhp::cli
