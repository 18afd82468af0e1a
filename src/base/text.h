#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dhp {

/// The text as a terminal may show it, whoever wrote it: control characters and marks that reorder a line become
/// escapes ("\\x1b", "\\u202e"), bytes that are not UTF-8 U+FFFD. Line ends and tabs stay.
std::string printable(std::string_view text);

/// The same on one line: line ends and tabs become escapes too ("\\n"), as a name with a line end must not pass for two
/// lines of ours.
std::string on_one_line(std::string_view text);

/// JSON whose strings hold none of those: they become JSON's own escapes.
std::string printable_json(std::string_view json);

/// "7,654,321"
std::string grouped(std::int64_t number);

/// "1 rank", "2 ranks"
std::string ranks_text(int ranks);

}  // namespace dhp
