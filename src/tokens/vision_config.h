#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/json_reader.h"

// Fields of vision towers in config.json that token rules and costs both read.
namespace dhp {

struct Sides {
  std::int64_t height = 0;
  std::int64_t width = 0;
};

/// One number for a square, or a list of both.
inline Sides sides(const JsonObject& entry, const char* key, int max) {
  if (!entry.is_array(key)) {
    const int side = entry.integer(key, 1, max);
    return {side, side};
  }
  const std::vector<int> both = entry.integers(key, 1, max);
  if (both.size() != 2) entry.fail(key, "found " + std::to_string(both.size()) + " numbers, expected height and width");
  return {both[0], both[1]};
}

/// Patches of a token's side in InternVL, by `downsample_ratio`: 2 unless given.
inline int merge_side(const JsonObject& config) {
  constexpr int kMaxMerge = 1 << 4;
  const double ratio = config.has("downsample_ratio") ? config.number("downsample_ratio") : 0.5;
  const double side = ratio > 0.0 ? std::round(1.0 / ratio) : 0.0;
  if (side < 1.0 || side > kMaxMerge || std::abs(side * ratio - 1.0) > 1e-9) {
    config.fail("downsample_ratio", "found " + number_text(ratio) + ", expected 1 divided by a whole number up to " +
                                        std::to_string(kMaxMerge));
  }
  return static_cast<int>(side);
}

}  // namespace dhp
