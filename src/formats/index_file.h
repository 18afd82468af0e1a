#pragma once

#include <string_view>

namespace dhp {

/// Whether the text is what `dhp index` writes: JSON lines behind a header of the format dhp.index/1.
bool is_index(std::string_view text);

}  // namespace dhp
