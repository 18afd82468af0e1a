#pragma once

#include <cmath>
#include <cstdint>
#include <optional>
#include <string>

#include "base/json_reader.h"
#include "dhp/error.h"

namespace dhp {

/// Bounds that keep every product of frames, height and width inside 64 bits.
inline constexpr std::int64_t kMaxSide = std::int64_t{1} << 20;
inline constexpr int kMaxFrames = 1 << 20;
inline constexpr std::int64_t kMaxTotalFrames = std::int64_t{1} << 40;
inline constexpr std::int64_t kMaxPixels = std::int64_t{1} << 50;

/// Throws InputError unless low <= value <= high.
inline void check_range(std::int64_t value, std::int64_t low, std::int64_t high, const char* source,
                        const char* location, const std::string& unit = "") {
  if (value >= low && value <= high) return;
  throw InputError(
      source, location,
      "found " + std::to_string(value) + ", expected " + std::to_string(low) + " to " + std::to_string(high) + unit);
}

inline void check_size(std::int64_t height, std::int64_t width, const char* source) {
  check_range(height, 1, kMaxSide, source, "height", " pixels");
  check_range(width, 1, kMaxSide, source, "width", " pixels");
}

inline void check_rate(double fps, const char* location) {
  if (fps > 0.0 && std::isfinite(fps)) return;
  throw InputError("video", location, "found " + number_text(fps) + ", expected a number above 0");
}

/// A clip's file, and how it is to be sampled: at a rate or by a number of frames.
inline void check_clip(std::int64_t total_frames, double source_fps, std::optional<double> fps,
                       std::optional<int> frames) {
  check_rate(source_fps, "fps of the file");
  check_range(total_frames, 1, kMaxTotalFrames, "video", "frames");
  if (fps && frames) {
    throw InputError("video", "sampling", "found both fps and a number of frames, expected one of them");
  }
  if (fps) check_rate(*fps, "fps");
  if (frames) check_range(*frames, 1, kMaxFrames, "video", "nframes");
}

}  // namespace dhp
