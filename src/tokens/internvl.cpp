#include "dhp/internvl.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/json_reader.h"
#include "base/number_limits.h"
#include "dhp/error.h"
#include "tokens/media_limits.h"

namespace dhp::internvl {
namespace {

constexpr std::int64_t kMostTiles = 1 << 12;

std::int64_t square(std::int64_t side) { return side * side; }

void refuse_count(double count, std::int64_t least, std::int64_t most) {
  if (count >= static_cast<double>(least) && count <= static_cast<double>(most)) return;
  throw InputError(
      "video", "frames",
      "found " + number_text(count) + " sampled, expected " + std::to_string(least) + " to " + std::to_string(most));
}

/// Source: `sample_frames` of transformers' InternVLVideoProcessor: arange(shift, total, total / n) with a shift of
/// half a step, whose length is rounded up.
std::int64_t transformers_frames(std::int64_t total, double source_fps, double fps) {
  const double count = std::trunc(static_cast<double>(total) / source_fps * fps);
  refuse_count(count, 1, total);
  return static_cast<std::int64_t>(count);
}

/// Source: `get_frame_indices` of internvl_chat, sample "fpsX": the middle of every 1/X seconds, as long as there is a
/// frame at it. numpy.arange(gap / 2, duration + gap / 2, gap), times the clip's rate, rounded half to even.
std::int64_t chat_frames(std::int64_t total, double source_fps, double fps) {
  const double gap = 1.0 / fps;
  const double first = 0.0 + gap / 2;
  const double end = static_cast<double>(total) / source_fps + gap / 2;
  const double steps = std::ceil((end - first) / gap);
  refuse_count(steps, 0, kMaxFrames);
  const double step = first + gap - first;  // as numpy.arange fills: the difference of its first two values
  auto count = static_cast<std::int64_t>(steps);
  const auto frame = [&](std::int64_t i) {
    return std::nearbyint((first + static_cast<double>(i) * step) * source_fps);
  };
  while (count > 0 && frame(count - 1) >= static_cast<double>(total)) --count;
  refuse_count(static_cast<double>(count), 1, kMaxFrames);
  return count;
}

int digits(std::int64_t number) { return static_cast<int>(std::to_string(number).size()); }

}  // namespace

std::int64_t tokens_per_tile(const Rules& rules) {
  return square(rules.tile_size / rules.patch_size / rules.merge_size);
}

std::int64_t patches_per_tile(const Rules& rules) { return square(rules.tile_size / rules.patch_size); }

Tiles image_tiles(const Rules& rules, std::int64_t height, std::int64_t width, std::optional<int> max_tiles) {
  check_size(height, width, "image");
  const int most = max_tiles.value_or(rules.max_tiles);
  check_range(most, rules.min_tiles, kMostTiles, "image", "max_tiles");
  if (most <= 1) return {};
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  const auto area = static_cast<double>(width * height);
  double nearest = kInfinity;
  Tiles best;
  for (int count = std::max(1, rules.min_tiles); count <= most; ++count) {  // by number of tiles, then by columns
    for (int columns = 1; columns <= count; ++columns) {
      if (count % columns != 0) continue;
      const int rows = count / columns;
      const double distance = std::abs(ratio - static_cast<double>(columns) / static_cast<double>(rows));
      const double half = 0.5 * static_cast<double>(square(rules.tile_size)) * count;
      if (distance < nearest || (distance == nearest && area > half)) best = {columns, rows, false};
      nearest = std::min(nearest, distance);
    }
  }
  best.thumbnail = rules.thumbnail && best.columns * best.rows > 1;
  return best;
}

std::int64_t clip_frames(const Rules& rules, std::int64_t total_frames, double source_fps, const Sampling& sampling) {
  check_clip(total_frames, source_fps, sampling.fps, sampling.frames);
  const bool chat = rules.processor == Processor::internvl_chat;
  if (sampling.fps) {
    return chat ? chat_frames(total_frames, source_fps, *sampling.fps)
                : transformers_frames(total_frames, source_fps, *sampling.fps);
  }
  const std::int64_t count = sampling.frames.value_or(rules.max_frames);
  if (!chat) refuse_count(static_cast<double>(count), 1, total_frames);
  return count;  // internvl_chat repeats the last frame of a shorter clip
}

int frame_label_tokens(const Rules& rules, std::int64_t number) {
  if (rules.processor == Processor::internvl_chat) return digits(number) + 5;  // "Frame", "-", ":", " ", line end
  return digits(number) + (number > 1 ? 4 : 3);                                // line end, "Frame", ":", " "
}

}  // namespace dhp::internvl
