#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dhp {

/// Whether the text begins as what `dhp index` writes, today or in older versions.
bool is_index(std::string_view text);

/// What planning needs of an index: its header and columns, without the records behind them. Nothing for a file that is
/// no index, and for a pipe. Throws InputError for an index that is cut off.
std::optional<std::string> read_index_columns(const std::string& file);

}  // namespace dhp
