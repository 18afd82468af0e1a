#pragma once

#include <nlohmann/json.hpp>

namespace dhp::cli {

using Json = nlohmann::ordered_json;  ///< keys in the order in which they are written

}  // namespace dhp::cli
