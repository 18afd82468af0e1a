#include "dhp/qwen3_vl.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/json_reader.h"
#include "dhp/error.h"

namespace dhp::qwen3_vl {
namespace {

/// Bounds that keep every product of frames, height and width inside 64 bits.
constexpr std::int64_t kMaxSide = std::int64_t{1} << 20;
constexpr int kMaxFrames = 1 << 20;
constexpr std::int64_t kMaxTotalFrames = std::int64_t{1} << 40;
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 50;
constexpr double kMaxAspectRatio = 200.0;

struct Size {
  std::int64_t height = 0;
  std::int64_t width = 0;
};

struct PixelLimits {
  std::int64_t min = 0;
  std::int64_t max = 0;
};

/// What the two processor files have in common.
struct ProcessorFile {
  int patch_size = 0;
  int temporal_patch_size = 0;
  int merge_size = 0;
  PixelLimits pixels;
};

/// Fields that a file leaves out get `defaults`, as the processor classes of transformers do.
ProcessorFile parse_processor(const JsonObject& root, const ProcessorFile& defaults) {
  constexpr int kMaxPatch = 1024;
  ProcessorFile file = defaults;
  file.patch_size = root.integer_or("patch_size", defaults.patch_size, 1, kMaxPatch);
  file.temporal_patch_size = root.integer_or("temporal_patch_size", defaults.temporal_patch_size, 1, kMaxPatch);
  file.merge_size = root.integer_or("merge_size", defaults.merge_size, 1, kMaxPatch);
  if (root.has_value("size")) {
    const JsonObject size = root.object("size");
    // min_pixels and max_pixels, where given, stand in for an edge that is not.
    if (!root.has_value("min_pixels") || size.has("shortest_edge")) {
      file.pixels.min = size.whole("shortest_edge", 1, kMaxPixels);
    }
    if (!root.has_value("max_pixels") || size.has("longest_edge")) {
      file.pixels.max = size.whole("longest_edge", 1, kMaxPixels);
    }
  }
  if (root.has_value("min_pixels")) file.pixels.min = root.whole("min_pixels", 1, kMaxPixels);
  if (root.has_value("max_pixels")) file.pixels.max = root.whole("max_pixels", 1, kMaxPixels);
  if (file.pixels.min > file.pixels.max) {
    root.fail("size", "found at least " + std::to_string(file.pixels.min) + " pixels and at most " +
                          std::to_string(file.pixels.max) + ", expected the first to be the smaller");
  }
  return file;
}

Rules image_rules(const JsonObject& image) {
  const ProcessorFile file =
      parse_processor(image, {.patch_size = 14,
                              .temporal_patch_size = 2,
                              .merge_size = 2,
                              .pixels = {.min = std::int64_t{56} * 56, .max = std::int64_t{28} * 28 * 1280}});
  Rules rules;
  rules.patch_size = file.patch_size;
  rules.temporal_patch_size = file.temporal_patch_size;
  rules.merge_size = file.merge_size;
  rules.image_min_pixels = file.pixels.min;
  rules.image_max_pixels = file.pixels.max;
  return rules;
}

void expect_same(const JsonObject& video, const char* key, int in_video, int in_image) {
  if (in_video == in_image) return;
  video.fail(key, "found " + std::to_string(in_video) + ", but the image processor has " + std::to_string(in_image) +
                      "; one vision tower has one value");
}

void add_video_rules(Rules& rules, const JsonObject& video) {
  const ProcessorFile file =
      parse_processor(video, {.patch_size = 16,
                              .temporal_patch_size = 2,
                              .merge_size = 2,
                              .pixels = {.min = std::int64_t{128} * 32 * 32, .max = std::int64_t{768} * 32 * 32}});
  expect_same(video, "patch_size", file.patch_size, rules.patch_size);
  expect_same(video, "temporal_patch_size", file.temporal_patch_size, rules.temporal_patch_size);
  expect_same(video, "merge_size", file.merge_size, rules.merge_size);
  rules.video_min_pixels = file.pixels.min;
  rules.video_max_pixels = file.pixels.max;
  if (video.has_value("fps")) rules.fps = video.positive("fps");
  rules.min_frames = video.integer_or("min_frames", rules.min_frames, 1, kMaxFrames);
  rules.max_frames = video.integer_or("max_frames", rules.max_frames, 1, kMaxFrames);
  if (video.has_value("cap_pixels_per_frame") && video.boolean_or("cap_pixels_per_frame", false)) {
    video.fail("cap_pixels_per_frame",
               "found true, which is not supported; set it to false and give max_pixels a clip");
  }
}

/// A processor's settings in a checkpoint folder, as transformers looks for them: `section` of processor_config.json,
/// else a file of its own.
class ProcessorSettings {
 public:
  ProcessorSettings(const std::filesystem::path& folder, const char* section, const char* own_file) {
    const std::filesystem::path common_file = folder / "processor_config.json";
    if (std::filesystem::exists(common_file)) {
      document_.emplace(read_text_file(common_file.string()), common_file.string());
      if (const JsonObject root = document_->root(); root.has_value(section)) {
        settings_ = root.object(section);
        return;
      }
    }
    const std::filesystem::path file = folder / own_file;
    if (!std::filesystem::exists(file)) return;
    document_.emplace(read_text_file(file.string()), file.string());
    settings_ = document_->root();
  }

  const std::optional<JsonObject>& get() const { return settings_; }

 private:
  std::optional<JsonDocument> document_;
  std::optional<JsonObject> settings_;  // a view into the document
};

/// Python's int / int, then round(): half to even.
std::int64_t round_quotient(std::int64_t value, std::int64_t divisor) {
  return static_cast<std::int64_t>(std::nearbyint(static_cast<double>(value) / static_cast<double>(divisor)));
}

void check_side(std::int64_t side, const char* name, const char* source) {
  if (side >= 1 && side <= kMaxSide) return;
  throw InputError(source, name,
                   "found " + std::to_string(side) + ", expected 1 to " + std::to_string(kMaxSide) + " pixels");
}

/// Height and width after resizing so that both are multiples of `factor` and `frames` of them keep the limits.
/// Source: `smart_resize` of the image and the video processor; for images frames and temporal patch are 1.
Size resized(Size size, std::int64_t frames, std::int64_t temporal_patch, std::int64_t factor,
             const PixelLimits& limits, const char* source) {
  const auto ratio =
      static_cast<double>(std::max(size.height, size.width)) / static_cast<double>(std::min(size.height, size.width));
  if (ratio > kMaxAspectRatio) {
    throw InputError(source, "size",
                     "found " + std::to_string(size.height) + " x " + std::to_string(size.width) +
                         " pixels, expected sides that differ by a factor of at most 200");
  }
  Size result{round_quotient(size.height, factor) * factor, round_quotient(size.width, factor) * factor};
  const std::int64_t padded_frames = round_quotient(frames, temporal_patch) * temporal_patch;
  const std::int64_t volume = padded_frames * result.height * result.width;
  const auto actual_volume = static_cast<double>(frames * size.height * size.width);
  const auto height = static_cast<double>(size.height);
  const auto width = static_cast<double>(size.width);
  const auto unit = static_cast<double>(factor);
  if (volume > limits.max) {
    const double beta = std::sqrt(actual_volume / static_cast<double>(limits.max));
    result.height = std::max(factor, static_cast<std::int64_t>(std::floor(height / beta / unit)) * factor);
    result.width = std::max(factor, static_cast<std::int64_t>(std::floor(width / beta / unit)) * factor);
  } else if (volume < limits.min) {
    const double beta = std::sqrt(static_cast<double>(limits.min) / actual_volume);
    result.height = static_cast<std::int64_t>(std::ceil(height * beta / unit)) * factor;
    result.width = static_cast<std::int64_t>(std::ceil(width * beta / unit)) * factor;
  }
  return result;
}

/// Frames that the processor samples.
int sampled_frames(const Rules& rules, std::int64_t total_frames, double source_fps, const Sampling& sampling) {
  if (sampling.frames) return *sampling.frames;
  const double wanted = std::trunc(static_cast<double>(total_frames) / source_fps * sampling.fps.value_or(rules.fps));
  const double most = std::min(static_cast<double>(rules.max_frames), static_cast<double>(total_frames));
  return static_cast<int>(std::min(std::max(wanted, static_cast<double>(rules.min_frames)), most));
}

/// numpy.linspace(0, total - 1, count).round(), bit for bit.
std::vector<std::int64_t> spread_indices(std::int64_t total, int count) {
  std::vector<std::int64_t> indices(static_cast<std::size_t>(count), 0);
  const auto last = static_cast<double>(total - 1);
  const double step = count > 1 ? last / (count - 1) : 0.0;
  for (int i = 1; i < count; ++i) indices[static_cast<std::size_t>(i)] = std::lrint(i * step);
  if (count > 1) indices.back() = total - 1;
  return indices;
}

void check_sampling(std::int64_t total_frames, double source_fps, const Sampling& sampling) {
  if (total_frames < 1 || total_frames > kMaxTotalFrames) {
    throw InputError("video", "frames",
                     "found " + std::to_string(total_frames) + ", expected 1 to " + std::to_string(kMaxTotalFrames));
  }
  if (!(source_fps > 0.0) || !std::isfinite(source_fps)) {
    throw InputError("video", "fps of the file", "found " + std::to_string(source_fps) + ", expected a number above 0");
  }
  if (sampling.fps && sampling.frames) {
    throw InputError("video", "sampling", "found both fps and a number of frames, expected one of them");
  }
  if (sampling.fps && (!(*sampling.fps > 0.0) || !std::isfinite(*sampling.fps))) {
    throw InputError("video", "fps", "found " + std::to_string(*sampling.fps) + ", expected a number above 0");
  }
  if (sampling.frames && (*sampling.frames < 1 || *sampling.frames > kMaxFrames)) {
    throw InputError("video", "nframes",
                     "found " + std::to_string(*sampling.frames) + ", expected 1 to " + std::to_string(kMaxFrames));
  }
}

void check_max_pixels(std::optional<std::int64_t> max_pixels, const char* source) {
  if (!max_pixels || (*max_pixels >= 1 && *max_pixels <= kMaxPixels)) return;
  throw InputError(source, "max_pixels",
                   "found " + std::to_string(*max_pixels) + ", expected 1 to " + std::to_string(kMaxPixels));
}

/// The mean time of first and last frame of each temporal patch, the last frame repeated to fill the last patch.
/// Source: `_calculate_timestamps` of processing_qwen3_vl.
std::vector<double> patch_times(const std::vector<std::int64_t>& indices, double source_fps, int temporal_patch) {
  const std::size_t step = static_cast<std::size_t>(temporal_patch);
  std::vector<double> times;
  for (std::size_t i = 0; i < indices.size(); i += step) {
    const std::size_t last = std::min(i + step, indices.size()) - 1;
    times.push_back((static_cast<double>(indices[i]) / source_fps + static_cast<double>(indices[last]) / source_fps) /
                    2.0);
  }
  return times;
}

}  // namespace

Rules parse_rules(std::string_view image_json, const std::string& image_source,
                  std::optional<std::string_view> video_json, const std::string& video_source) {
  const JsonDocument image(image_json, image_source);
  Rules rules = image_rules(image.root());
  if (video_json) {
    const JsonDocument video(*video_json, video_source);
    add_video_rules(rules, video.root());
  }
  return rules;
}

Rules read_rules(const std::string& checkpoint_folder) {
  const std::filesystem::path folder = checkpoint_folder;
  if (!std::filesystem::is_directory(folder)) {
    throw InputError(checkpoint_folder, "", "is not a folder, expected a Hugging Face checkpoint folder");
  }
  const ProcessorSettings image(folder, "image_processor", "preprocessor_config.json");
  if (!image.get()) {
    throw InputError((folder / "preprocessor_config.json").string(), "",
                     "is missing, and there is no processor_config.json with image_processor either; expected the "
                     "processor files of a Qwen3-VL checkpoint");
  }
  Rules rules = image_rules(*image.get());
  const ProcessorSettings video(folder, "video_processor", "video_preprocessor_config.json");
  if (video.get()) add_video_rules(rules, *video.get());
  return rules;
}

std::int64_t visual_tokens(const Rules& rules, const Grid& grid) {
  return grid.patches() / (static_cast<std::int64_t>(rules.merge_size) * rules.merge_size);
}

Grid image_grid(const Rules& rules, std::int64_t height, std::int64_t width, std::optional<std::int64_t> max_pixels) {
  check_side(height, "height", "image");
  check_side(width, "width", "image");
  check_max_pixels(max_pixels, "image");
  const std::int64_t factor = static_cast<std::int64_t>(rules.patch_size) * rules.merge_size;
  const PixelLimits limits{rules.image_min_pixels, max_pixels.value_or(rules.image_max_pixels)};
  const Size size = resized({height, width}, 1, 1, factor, limits, "image");
  return {.frames = 1, .height = size.height / rules.patch_size, .width = size.width / rules.patch_size};
}

Clip sample_clip(const Rules& rules, std::int64_t height, std::int64_t width, std::int64_t total_frames,
                 double source_fps, const Sampling& sampling) {
  check_side(height, "height", "video");
  check_side(width, "width", "video");
  check_max_pixels(sampling.max_pixels, "video");
  check_sampling(total_frames, source_fps, sampling);
  const int frames = sampled_frames(rules, total_frames, source_fps, sampling);
  if (frames < rules.temporal_patch_size) {
    throw InputError("video", "frames",
                     "found " + std::to_string(frames) + " of " + std::to_string(total_frames) +
                         ", expected at least " + std::to_string(rules.temporal_patch_size) + " (temporal_patch_size)");
  }
  const std::int64_t factor = static_cast<std::int64_t>(rules.patch_size) * rules.merge_size;
  Size size{height, width};
  if (height < factor || width < factor) {  // scaled up first, as the video processor does
    const double scale = std::max(static_cast<double>(factor) / static_cast<double>(height),
                                  static_cast<double>(factor) / static_cast<double>(width));
    size.height = static_cast<std::int64_t>(static_cast<double>(height) * scale);
    size.width = static_cast<std::int64_t>(static_cast<double>(width) * scale);
  }
  PixelLimits limits{rules.video_min_pixels, rules.video_max_pixels};
  if (sampling.max_pixels && *sampling.max_pixels <= limits.max / frames) limits.max = *sampling.max_pixels * frames;
  size = resized(size, frames, rules.temporal_patch_size, factor, limits, "video");
  Clip clip;
  clip.grid = {.frames = (frames + rules.temporal_patch_size - 1) / rules.temporal_patch_size,
               .height = size.height / rules.patch_size,
               .width = size.width / rules.patch_size};
  clip.frame_indices = spread_indices(total_frames, frames);
  clip.timestamps_s = patch_times(clip.frame_indices, source_fps, rules.temporal_patch_size);
  return clip;
}

}  // namespace dhp::qwen3_vl
