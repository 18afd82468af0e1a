#pragma once

#include <stdexcept>
#include <string>

namespace dhp {

/// Bad input: a file, an option or a value that does not make sense. The message reads
///
///     batch.json: sequences[3].tokens: found -5, expected a whole number of at least 1
///
/// and the command line then exits with code 2. A batch that is well formed but cannot be planned is not an error: see
/// `Infeasible` in planner.h.
///
/// Messages quote the input, which may be any bytes. Bytes that are not UTF-8 are shown as U+FFFD, so that a terminal
/// and Python's str can show the whole message. Line ends and tabs are escaped: a message is one line.
class InputError : public std::runtime_error {
 public:
  /// `source` is the file (or "--option"), `location` the path inside it (may be empty). `problem` says what was found,
  /// what was expected and what to do.
  InputError(const std::string& source, const std::string& location, const std::string& problem);
};

}  // namespace dhp
