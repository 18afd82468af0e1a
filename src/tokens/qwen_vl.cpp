#include "dhp/qwen_vl.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "dhp/error.h"
#include "tokens/media_limits.h"

namespace dhp::qwen_vl {
namespace {

constexpr double kMaxAspectRatio = 200.0;
constexpr std::int64_t kUtilsFrameFactor = 2;  // FRAME_FACTOR of qwen-vl-utils, whatever the temporal patch

struct Size {
  std::int64_t height = 0;
  std::int64_t width = 0;
};

/// qwen-vl-utils computes with a limit that need not be whole.
struct PixelLimits {
  std::int64_t min = 0;
  double max = 0.0;
};

/// Width first, as people give it.
std::string pixels_text(const Size& size) {
  return std::to_string(size.width) + " x " + std::to_string(size.height) + " pixels (width x height)";
}

/// Python's int / int, then round(): half to even.
std::int64_t round_quotient(std::int64_t value, std::int64_t divisor) {
  return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(value) / static_cast<double>(divisor)));
}

/// A size in whole `factor`s, from lengths that need not be.
Size floored(double height, double width, std::int64_t factor) {
  const auto unit = static_cast<double>(factor);
  return {static_cast<std::int64_t>(std::floor(height / unit)) * factor,
          static_cast<std::int64_t>(std::floor(width / unit)) * factor};
}

Size ceiled(double height, double width, std::int64_t factor) {
  const auto unit = static_cast<double>(factor);
  return {static_cast<std::int64_t>(std::ceil(height / unit)) * factor,
          static_cast<std::int64_t>(std::ceil(width / unit)) * factor};
}

void check_aspect(const Size& size, const char* source) {
  const auto ratio =
      static_cast<double>(std::max(size.height, size.width)) / static_cast<double>(std::min(size.height, size.width));
  if (ratio <= kMaxAspectRatio) return;
  throw InputError(source, "size",
                   "found " + pixels_text(size) + ", expected sides that differ by a factor of at most 200");
}

/// Height and width after resizing so that both are multiples of `factor` and `frames` of them keep the limits.
/// Source: `smart_resize` of transformers' image and video processors; for pictures, and for clips with limits on each
/// frame, frames and temporal patch are 1.
Size resized(Size size, std::int64_t frames, std::int64_t temporal_patch, std::int64_t factor,
             const PixelLimits& limits, const char* source) {
  check_aspect(size, source);
  Size result{round_quotient(size.height, factor) * factor, round_quotient(size.width, factor) * factor};
  const std::int64_t padded_frames = round_quotient(frames, temporal_patch) * temporal_patch;
  const auto volume = static_cast<double>(padded_frames * result.height * result.width);
  const auto actual_volume = static_cast<double>(frames * size.height * size.width);
  const auto height = static_cast<double>(size.height);
  const auto width = static_cast<double>(size.width);
  if (volume > limits.max) {
    const double beta = std::sqrt(actual_volume / limits.max);
    const Size smaller = floored(height / beta, width / beta, factor);
    result = {std::max(factor, smaller.height), std::max(factor, smaller.width)};
  } else if (volume < static_cast<double>(limits.min)) {
    const double beta = std::sqrt(static_cast<double>(limits.min) / actual_volume);
    result = ceiled(height * beta, width * beta, factor);
  }
  return result;
}

/// Source: `smart_resize` of qwen-vl-utils, which keeps a thin side when rounding and loses it when shrinking.
Size utils_resized(Size size, std::int64_t factor, const PixelLimits& limits, const char* source) {
  if (limits.max < static_cast<double>(limits.min)) {
    throw InputError(source, "max_pixels",
                     "found " + std::to_string(static_cast<std::int64_t>(limits.max)) + ", expected at least " +
                         std::to_string(limits.min) + " (min_pixels)");
  }
  check_aspect(size, source);
  Size result{std::max(factor, round_quotient(size.height, factor) * factor),
              std::max(factor, round_quotient(size.width, factor) * factor)};
  const auto area = static_cast<double>(result.height * result.width);
  const auto height = static_cast<double>(size.height);
  const auto width = static_cast<double>(size.width);
  if (area > limits.max) {
    const double beta = std::sqrt(height * width / limits.max);
    result = floored(height / beta, width / beta, factor);
  } else if (area < static_cast<double>(limits.min)) {
    const double beta = std::sqrt(static_cast<double>(limits.min) / (height * width));
    result = ceiled(height * beta, width * beta, factor);
  }
  if (result.height == 0 || result.width == 0) {
    throw InputError(source, "size",
                     "found " + pixels_text(size) + ", of which qwen-vl-utils leaves " + std::to_string(result.width) +
                         " x " + std::to_string(result.height) + "; raise max_pixels");
  }
  return result;
}

/// numpy.linspace(0, total - 1, count).round(), bit for bit. torch.linspace, which qwen-vl-utils takes, computes in
/// single precision and may round a tie to the frame beside.
std::vector<std::int64_t> spread_indices(std::int64_t total, std::int64_t count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count), 0);
  const auto last = static_cast<double>(total - 1);
  const double step = count > 1 ? last / static_cast<double>(count - 1) : 0.0;
  for (std::size_t i = 1; i < indices.size(); ++i) indices[i] = std::lrint(static_cast<double>(i) * step);
  if (count > 1) indices.back() = total - 1;
  return indices;
}

/// torch.arange(0, total, total / count).int(); its length is rounded up, now and then to one more than `count`.
std::vector<std::int64_t> stepped_indices(std::int64_t total, std::int64_t count) {
  const auto end = static_cast<double>(total);
  const double step = end / static_cast<double>(count);
  std::vector<std::int64_t> indices(static_cast<std::size_t>(std::ceil(end / step)), 0);
  for (std::size_t i = 0; i < indices.size(); ++i) {
    indices[i] = static_cast<std::int64_t>(static_cast<float>(static_cast<double>(i) * step));
  }
  return indices;
}

std::int64_t whole_multiple(double value, std::int64_t factor) {
  return static_cast<std::int64_t>(std::floor(value / static_cast<double>(factor))) * factor;
}

/// Frames of a clip at some rate, as far as counts allow.
struct FrameRange {
  double wanted = 0.0;
  std::int64_t least = 0;
  std::int64_t most = 0;
};

double clamped(const FrameRange& range) {
  return std::min(std::max(range.wanted, static_cast<double>(range.least)), static_cast<double>(range.most));
}

FrameRange frame_range(const Rules& rules, std::int64_t total, double source_fps, const Sampling& sampling) {
  return {static_cast<double>(total) / source_fps * sampling.fps.value_or(rules.fps), rules.min_frames,
          std::min<std::int64_t>(rules.max_frames, total)};
}

/// Source: `sample_frames` of transformers' Qwen3VLVideoProcessor.
std::vector<std::int64_t> qwen3_frames(const Rules& rules, std::int64_t total, double source_fps,
                                       const Sampling& sampling) {
  if (sampling.frames) return spread_indices(total, *sampling.frames);
  FrameRange range = frame_range(rules, total, source_fps, sampling);
  range.wanted = std::trunc(range.wanted);
  return spread_indices(total, static_cast<std::int64_t>(clamped(range)));
}

void refuse_count(std::int64_t count, std::int64_t total, std::int64_t least) {
  if (count >= least && count <= total) return;
  throw InputError("video", "frames",
                   "found " + std::to_string(count) + " sampled of " + std::to_string(total) + ", expected " +
                       (count < least ? "at least " + std::to_string(least) : "no more than there are"));
}

/// Source: `sample_frames` of transformers' Qwen2VLVideoProcessor.
std::vector<std::int64_t> qwen2_frames(const Rules& rules, std::int64_t total, double source_fps,
                                       const Sampling& sampling) {
  const std::int64_t factor = rules.temporal_patch_size;
  std::int64_t count = 0;
  if (sampling.frames) {
    count = round_quotient(*sampling.frames, factor) * factor;
  } else {
    FrameRange range = frame_range(rules, total, source_fps, sampling);
    range.most = whole_multiple(static_cast<double>(range.most), factor);
    count = whole_multiple(clamped(range), factor);
  }
  refuse_count(count, total, factor);
  return stepped_indices(total, count);
}

/// Source: `smart_nframes` of qwen-vl-utils.
std::vector<std::int64_t> utils_frames(const Rules& rules, std::int64_t total, double source_fps,
                                       const Sampling& sampling) {
  constexpr std::int64_t kFactor = kUtilsFrameFactor;
  std::int64_t count = 0;
  if (sampling.frames) {
    count = round_quotient(*sampling.frames, kFactor) * kFactor;
  } else {
    FrameRange range = frame_range(rules, total, source_fps, sampling);
    range.least += range.least % kFactor;
    range.most -= range.most % kFactor;
    count = whole_multiple(clamped(range), kFactor);
  }
  refuse_count(count, total, kFactor);
  return spread_indices(total, count);
}

/// Source: `sample_frames` of transformers' Glm4vVideoProcessor. Frames at equal times, each once, and an even number:
/// the last one may stand twice.
std::vector<std::int64_t> glm4v_frames(const Rules& rules, std::int64_t total, double source_fps,
                                       const Sampling& sampling) {
  std::vector<std::int64_t> indices;
  if (sampling.frames) {
    if (*sampling.frames != total) {
      throw InputError("video", "frames",
                       "found " + std::to_string(*sampling.frames) + " of " + std::to_string(total) +
                           ", expected none: frames are taken by time; give fps");
    }
    for (std::int64_t i = 0; i < total; ++i) indices.push_back(i);
    return indices;
  }
  const double fps = sampling.fps.value_or(rules.fps);
  const double duration = static_cast<double>(total) / source_fps;
  const auto add = [&](double at) {
    const auto index = static_cast<std::int64_t>(std::min(static_cast<double>(total - 1), std::ceil(at)));
    if (indices.empty() || indices.back() != index) indices.push_back(index);  // they only rise
  };
  const auto refuse_more_than_most = [&](double count) {
    if (count <= kMaxFrames) return;
    throw InputError("video", "fps",
                     "found " + number_text(fps) + ", which looks at " + number_text(count) +
                         " frames of the clip, expected at most " + std::to_string(kMaxFrames));
  };
  const double most = std::trunc(rules.max_duration_s * fps);
  if (duration <= rules.max_duration_s) {
    const double count = std::max(1.0, std::floor(duration * fps));
    refuse_more_than_most(count);
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(count); ++i) {
      add(static_cast<double>(i) * source_fps / fps);
      if (indices.back() == total - 1) break;
    }
  } else if (most >= static_cast<double>(total)) {
    refuse_more_than_most(static_cast<double>(total));
    for (std::int64_t i = 0; i < total; ++i) indices.push_back(i);
  } else {
    refuse_more_than_most(most);
    const double step = most > 1.0 ? duration / (most - 1.0) : 0.0;
    const auto looks = static_cast<std::int64_t>(most);
    for (std::int64_t i = 0; i < looks; ++i) {
      add((i > 0 && i == looks - 1 ? duration : static_cast<double>(i) * step) * source_fps);
    }
  }
  if (indices.size() % 2 == 1) indices.push_back(indices.back());
  return indices;
}

std::vector<std::int64_t> sampled_frames(const Rules& rules, std::int64_t total, double source_fps,
                                         const Sampling& sampling) {
  switch (rules.processor) {
    case Processor::qwen2_vl:
      return qwen2_frames(rules, total, source_fps, sampling);
    case Processor::qwen_vl_utils:
      return utils_frames(rules, total, source_fps, sampling);
    case Processor::glm4v:
      return glm4v_frames(rules, total, source_fps, sampling);
    case Processor::qwen3_vl:
      break;
  }
  return qwen3_frames(rules, total, source_fps, sampling);
}

/// Small pictures and frames grow until no side is below a token's.
Size grown(Size size, std::int64_t factor) {
  if (size.height >= factor && size.width >= factor) return size;
  const double scale = std::max(static_cast<double>(factor) / static_cast<double>(size.height),
                                static_cast<double>(factor) / static_cast<double>(size.width));
  return {static_cast<std::int64_t>(static_cast<double>(size.height) * scale),
          static_cast<std::int64_t>(static_cast<double>(size.width) * scale)};
}

/// Source: `smart_resize` of transformers' Qwen3VLVideoProcessor and Glm4vVideoProcessor.
Size volume_frame_size(const Rules& rules, const Size& size, std::int64_t frames, const Sampling& sampling) {
  const std::int64_t factor = rules.token_side();
  std::int64_t most = rules.video_max_pixels;
  if (sampling.max_pixels && *sampling.max_pixels <= most / frames) most = *sampling.max_pixels * frames;
  return resized(grown(size, factor), frames, rules.temporal_patch_size, factor,
                 {rules.video_min_pixels, static_cast<double>(most)}, "video");
}

Size frame_size(const Rules& rules, Size size, std::int64_t frames, const Sampling& sampling) {
  if (rules.processor == Processor::qwen3_vl || rules.processor == Processor::glm4v) {
    return volume_frame_size(rules, size, frames, sampling);
  }
  const auto asked = static_cast<double>(sampling.max_pixels.value_or(kMaxPixels));
  const auto most = static_cast<double>(rules.video_max_pixels);
  if (rules.processor == Processor::qwen2_vl) {
    return resized(size, 1, 1, rules.token_side(), {rules.video_min_pixels, std::min(asked, most)}, "video");
  }
  // Source: `fetch_video` of qwen-vl-utils: a frame's share of the clip's pixels, at least 1.05 times min_pixels.
  const double share = static_cast<double>(rules.video_total_pixels) / static_cast<double>(frames) *
                       static_cast<double>(kUtilsFrameFactor);
  const double least = std::trunc(static_cast<double>(rules.video_min_pixels) * 1.05);
  return utils_resized(size, rules.token_side(),
                       {rules.video_min_pixels, std::min(asked, std::max(std::min(most, share), least))}, "video");
}

/// The mean time of first and last frame of each temporal patch, the last frame repeated to fill the last patch; of
/// GLM-4V the time of the first. Source: `_calculate_timestamps` of processing_qwen3_vl, `replace_video_token` of
/// processing_glm4v.
std::vector<double> patch_times(const std::vector<std::int64_t>& indices, double source_fps, const Rules& rules) {
  const std::size_t step = static_cast<std::size_t>(rules.temporal_patch_size);
  std::vector<double> times;
  for (std::size_t i = 0; i < indices.size(); i += step) {
    const std::size_t last = rules.processor == Processor::glm4v ? i : std::min(i + step, indices.size()) - 1;
    times.push_back((static_cast<double>(indices[i]) / source_fps + static_cast<double>(indices[last]) / source_fps) /
                    2.0);
  }
  return times;
}

}  // namespace

std::int64_t visual_tokens(const Rules& rules, const Grid& grid) {
  return grid.patches() / (static_cast<std::int64_t>(rules.merge_size) * rules.merge_size);
}

Grid image_grid(const Rules& rules, std::int64_t height, std::int64_t width, std::optional<std::int64_t> max_pixels) {
  check_size(height, width, "image");
  if (max_pixels) check_range(*max_pixels, 1, kMaxPixels, "image", "max_pixels");
  const std::int64_t frames = rules.processor == Processor::glm4v ? rules.temporal_patch_size : 1;
  const std::int64_t most =
      max_pixels && *max_pixels <= kMaxPixels / frames ? *max_pixels * frames : rules.image_max_pixels;
  const PixelLimits limits{rules.image_min_pixels, static_cast<double>(most)};
  if (rules.processor == Processor::glm4v) {
    const Size size =
        resized(grown({height, width}, rules.token_side()), frames, frames, rules.token_side(), limits, "image");
    return {.frames = 1, .height = size.height / rules.patch_size, .width = size.width / rules.patch_size};
  }
  const Size size = rules.processor == Processor::qwen_vl_utils
                        ? utils_resized({height, width}, rules.token_side(), limits, "image")
                        : resized({height, width}, 1, 1, rules.token_side(), limits, "image");
  return {.frames = 1, .height = size.height / rules.patch_size, .width = size.width / rules.patch_size};
}

Clip sample_clip(const Rules& rules, std::int64_t height, std::int64_t width, std::int64_t total_frames,
                 double source_fps, const Sampling& sampling) {
  check_size(height, width, "video");
  check_clip(total_frames, source_fps, sampling.fps, sampling.frames);
  if (sampling.max_pixels) check_range(*sampling.max_pixels, 1, kMaxPixels, "video", "max_pixels");
  Clip clip;
  clip.frame_indices = sampled_frames(rules, total_frames, source_fps, sampling);
  const auto frames = std::ssize(clip.frame_indices);
  if (frames < rules.temporal_patch_size) {
    throw InputError("video", "frames",
                     "found " + std::to_string(frames) + " of " + std::to_string(total_frames) +
                         ", expected at least " + std::to_string(rules.temporal_patch_size) + " (temporal_patch_size)");
  }
  const Size size = frame_size(rules, {height, width}, frames, sampling);
  clip.grid = {.frames = (frames + rules.temporal_patch_size - 1) / rules.temporal_patch_size,
               .height = size.height / rules.patch_size,
               .width = size.width / rules.patch_size};
  clip.timestamps_s = patch_times(clip.frame_indices, source_fps, rules);
  return clip;
}

int timestamp_tokens(double time_s) {
  constexpr int kAround = 4;     // "<", ".", " seconds", ">"
  std::array<char, 400> text{};  // the largest double has 309 digits
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), time_s, std::chars_format::fixed, 1);
  if (error != std::errc()) return kAround;
  return kAround + static_cast<int>(std::count_if(text.data(), end, [](char c) { return c >= '0' && c <= '9'; }));
}

}  // namespace dhp::qwen_vl
