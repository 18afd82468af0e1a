#pragma once

#include <cstddef>
#include <cstdint>

namespace dhp {

/// A number of the kind that containers are indexed by.
constexpr std::size_t index(std::int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace dhp
