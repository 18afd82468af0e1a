#pragma once

#include <cstdint>
#include <string>

namespace dhp {

/// "7,654,321"
std::string grouped(std::int64_t number);

/// "1 rank", "2 ranks"
std::string ranks_text(int ranks);

}  // namespace dhp
