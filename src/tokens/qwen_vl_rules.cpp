#include "dhp/qwen_vl.h"

#include <filesystem>
#include <stdexcept>

#include "base/json_reader.h"
#include "dhp/error.h"
#include "tokens/media_limits.h"
#include "tokens/processor_settings.h"

namespace dhp::qwen_vl {
namespace {

struct PixelRange {
  std::int64_t min = 0;
  std::int64_t max = 0;
};

/// What the two processor files have in common.
struct ProcessorFile {
  int patch_size = 0;
  int temporal_patch_size = 0;
  int merge_size = 0;
  PixelRange pixels;
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

std::int64_t square(std::int64_t side) { return side * side; }

/// Pixels of a merged token's side.
Rules image_rules(const JsonObject& image, Processor processor) {
  const PixelRange pixels = processor == Processor::glm4v
                                ? PixelRange{.min = std::int64_t{112} * 112, .max = std::int64_t{28} * 28 * 15'000}
                                : PixelRange{.min = std::int64_t{56} * 56, .max = std::int64_t{28} * 28 * 1280};
  const ProcessorFile file =
      parse_processor(image, {.patch_size = 14, .temporal_patch_size = 2, .merge_size = 2, .pixels = pixels});
  Rules rules;
  rules.processor = processor;
  rules.patch_size = file.patch_size;
  rules.temporal_patch_size = file.temporal_patch_size;
  rules.merge_size = file.merge_size;
  rules.image_min_pixels = file.pixels.min;
  rules.image_max_pixels = file.pixels.max;
  if (processor == Processor::qwen2_vl ||
      processor == Processor::glm4v) {  // the video processor falls back to preprocessor_config.json
    rules.video_min_pixels = file.pixels.min;
    rules.video_max_pixels = file.pixels.max;
  }
  return rules;
}

void expect_same(const JsonObject& video, const char* key, int in_video, int in_image) {
  if (in_video == in_image) return;
  video.fail(key, "found " + std::to_string(in_video) + ", but the image processor has " + std::to_string(in_image) +
                      "; one vision tower has one value");
}

void add_video_rules(Rules& rules, const JsonObject& video) {
  const int patch_size = rules.processor == Processor::qwen3_vl ? 16 : 14;
  const std::int64_t area = square(2 * std::int64_t{patch_size});
  const PixelRange pixels = rules.processor == Processor::glm4v ? PixelRange{.min = 16 * area, .max = 60'000 * area}
                                                                : PixelRange{.min = 128 * area, .max = 768 * area};
  const ProcessorFile file =
      parse_processor(video, {.patch_size = patch_size, .temporal_patch_size = 2, .merge_size = 2, .pixels = pixels});
  expect_same(video, "patch_size", file.patch_size, rules.patch_size);
  expect_same(video, "temporal_patch_size", file.temporal_patch_size, rules.temporal_patch_size);
  expect_same(video, "merge_size", file.merge_size, rules.merge_size);
  rules.video_min_pixels = file.pixels.min;
  rules.video_max_pixels = file.pixels.max;
  if (video.has_value("fps")) rules.fps = video.positive("fps");
  rules.min_frames = video.integer_or("min_frames", rules.min_frames, 1, kMaxFrames);
  rules.max_frames = video.integer_or("max_frames", rules.max_frames, 1, kMaxFrames);
  rules.max_duration_s = video.integer_or("max_duration", rules.max_duration_s, 1, kMaxFrames);
  if (video.has_value("cap_pixels_per_frame") && video.boolean_or("cap_pixels_per_frame", false)) {
    video.fail("cap_pixels_per_frame",
               "found true, which is not supported; set it to false and give max_pixels a clip");
  }
}

Processor checkpoint_processor(Processor processor) {
  if (processor == Processor::qwen_vl_utils) {
    throw std::invalid_argument("qwen-vl-utils reads no checkpoint: take default_rules");
  }
  return processor;
}

}  // namespace

Rules default_rules(Processor processor, int patch_size) {
  Rules rules;
  rules.processor = processor;
  rules.patch_size = patch_size;
  const std::int64_t area = square(rules.token_side());
  rules.image_min_pixels = (processor == Processor::qwen3_vl ? 64 : 4) * area;
  rules.image_max_pixels = 16'384 * area;
  rules.video_min_pixels = rules.image_min_pixels;
  rules.video_max_pixels = rules.image_max_pixels;
  if (processor == Processor::qwen3_vl) {
    rules.video_min_pixels = 4 * area;
    rules.video_max_pixels = 24'576 * area;
  } else if (processor == Processor::qwen_vl_utils) {
    rules.video_min_pixels = 128 * area;
    rules.video_max_pixels = 768 * area;
    rules.video_total_pixels = 115'200 * area;  // 0.9 x 128,000 tokens
  }
  return rules;
}

Rules parse_rules(std::string_view image_json, const std::string& image_source,
                  std::optional<std::string_view> video_json, const std::string& video_source, Processor processor) {
  const JsonDocument image(image_json, image_source);
  Rules rules = image_rules(image.root(), checkpoint_processor(processor));
  if (video_json) {
    const JsonDocument video(*video_json, video_source);
    add_video_rules(rules, video.root());
  }
  return rules;
}

Rules read_rules(const std::string& checkpoint_folder, Processor processor) {
  const std::filesystem::path folder = checkpoint_folder;
  if (!std::filesystem::is_directory(folder)) {
    throw InputError(checkpoint_folder, "", "is not a folder, expected a Hugging Face checkpoint folder");
  }
  const ProcessorSettings image(folder, "image_processor", "preprocessor_config.json");
  if (!image.get()) {
    throw InputError((folder / "preprocessor_config.json").string(), "",
                     "is missing, and there is no processor_config.json with image_processor either; expected the "
                     "processor files of a Qwen-VL checkpoint");
  }
  Rules rules = image_rules(*image.get(), checkpoint_processor(processor));
  const ProcessorSettings video(folder, "video_processor", "video_preprocessor_config.json");
  if (video.get()) add_video_rules(rules, *video.get());
  return rules;
}

}  // namespace dhp::qwen_vl
