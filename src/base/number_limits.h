#pragma once

#include <limits>
#include <string>

#include "base/json_reader.h"
#include "dhp/error.h"

// Numbers of files and values that describe a device, a model or a network: far beyond any of them, and near enough
// that all that is summed over any batch stays finite.
namespace dhp {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();
inline constexpr double kMostSeconds = 1e6;
inline constexpr double kMostBytes = 1e18;
inline constexpr double kLeastRate = 1.0;  // FLOP or bytes a second
inline constexpr double kMostRate = 1e21;
inline constexpr double kMostBandwidth = 1e30;  // bytes a second of a link that takes no time
inline constexpr int kMaxHeads = 1 << 12;       // of attention
inline constexpr double kLeastSpeed = 1e-6;     // of a rank in service

/// Throws InputError for what is outside, NaN too.
inline void check_number(double value, double least, double most, const std::string& name, const std::string& source) {
  if (value >= least && value <= most) return;
  throw InputError(source, name,
                   "found " + number_text(value) + ", expected a number from " + format_number(least) + " to " +
                       format_number(most));
}

}  // namespace dhp
