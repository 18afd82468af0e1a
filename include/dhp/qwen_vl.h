#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Token and patch rules of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, and of GLM-4V, which are like them:
///
///     qwen_vl::Rules rules = qwen_vl::default_rules(qwen_vl::Processor::qwen_vl_utils, 16);
///     qwen_vl::Clip clip = qwen_vl::sample_clip(rules, 720, 1280, 900, 30.0);
///     qwen_vl::visual_tokens(rules, clip.grid);  // 21600
namespace dhp::qwen_vl {

/// Whose code resizes pictures and samples clips. All of them round half to even, as Python does.
enum class Processor {
  qwen2_vl,       ///< Hugging Face transformers, models/qwen2_vl (also Qwen2.5-VL's): limits on each frame
  qwen3_vl,       ///< Hugging Face transformers, models/qwen3_vl: limits on frames x height x width of a clip
  qwen_vl_utils,  ///< the package qwen-vl-utils (QwenLM/Qwen3-VL: qwen-vl-utils), for all three families: limits on
                  ///< each frame, which shrink where a clip has many
  glm4v,          ///< Hugging Face transformers, models/glm4v: limits on frames x height x width, also of a picture,
                  ///< which counts as one temporal patch
};

/// The rule of a checkpoint. Sources: transformers, `models/qwen2_vl/image_processing_qwen2_vl` (pictures of all three
/// families), `models/{qwen2_vl,qwen3_vl}/video_processing_*` (clips); qwen-vl-utils, `vision_process.py`;
/// transformers, `models/glm4v/{image,video}_processing_*`.
/// The defaults are those of the Qwen3-VL checkpoints.
struct Rules {
  int patch_size = 16;
  int temporal_patch_size = 2;
  int merge_size = 2;
  std::int64_t image_min_pixels = 65'536;      ///< height x width; glm4v: times temporal_patch_size
  std::int64_t image_max_pixels = 16'777'216;  ///< likewise
  std::int64_t video_min_pixels = 4'096;  ///< qwen3_vl, glm4v: frames x height x width; else height x width of a frame
  std::int64_t video_max_pixels = 25'165'824;  ///< likewise
  double fps = 2.0;                            ///< sampled frames per second
  int min_frames = 4;
  int max_frames = 768;
  Processor processor = Processor::qwen3_vl;
  std::int64_t video_total_pixels = 0;  ///< qwen_vl_utils: frame pairs x height x width of a clip
  int max_duration_s = 300;             ///< glm4v: longer clips are sampled at a lower rate

  /// Pixels along each side of one token.
  std::int64_t token_side() const { return std::int64_t{patch_size} * merge_size; }

  bool operator==(const Rules&) const = default;
};

/// The settings that checkpoints ship (Hugging Face) or that are the package's defaults. `patch_size` is 14 for
/// Qwen2-VL and Qwen2.5-VL, 16 for Qwen3-VL; Hugging Face's processors have their own.
Rules default_rules(Processor processor, int patch_size);

/// Reads the processor settings of a checkpoint folder: `image_processor` and `video_processor` of
/// processor_config.json, else preprocessor_config.json and video_preprocessor_config.json
/// (`size.shortest_edge`/`longest_edge`, or min_pixels and max_pixels). Fields that a file lacks get the defaults of
/// the processor classes. Without any video settings qwen3_vl keeps those of Rules, and qwen2_vl takes the picture's
/// limits for each frame, as transformers does. `cap_pixels_per_frame` must not be true. `processor` is one of
/// Hugging Face's: qwen-vl-utils reads no checkpoint. Throws InputError.
Rules read_rules(const std::string& checkpoint_folder, Processor processor = Processor::qwen3_vl);
Rules parse_rules(std::string_view image_json, const std::string& image_source,
                  std::optional<std::string_view> video_json, const std::string& video_source,
                  Processor processor = Processor::qwen3_vl);

/// Vision patches of one picture or clip.
struct Grid {
  std::int64_t frames = 1;  ///< temporal patches (frame pairs); 1 for a picture
  std::int64_t height = 0;  ///< in patches, a multiple of merge_size
  std::int64_t width = 0;

  std::int64_t patches() const { return frames * height * width; }
  bool operator==(const Grid&) const = default;
};

/// Language-model tokens of a grid, markers and timestamps apart: patches / merge_size^2.
std::int64_t visual_tokens(const Rules& rules, const Grid& grid);

/// Throws InputError (source "image") for an aspect ratio beyond 200, a size below 1, or limits that leave no valid
/// size. `max_pixels`, if given, replaces the rule's limit for this picture.
Grid image_grid(const Rules& rules, std::int64_t height, std::int64_t width,
                std::optional<std::int64_t> max_pixels = {});

/// How a clip is sampled.
struct Sampling {
  std::optional<double> fps = {};               ///< replaces Rules::fps
  std::optional<int> frames = {};               ///< number of frames; excludes fps. glm4v: all of them, or none given
  std::optional<std::int64_t> max_pixels = {};  ///< of one frame, as in qwen-vl-utils; only lowers the rule's limit
  bool operator==(const Sampling&) const = default;
};

struct Clip {
  Grid grid = {};
  std::vector<std::int64_t> frame_indices = {};  ///< frames to decode, counted from the clip's first; may repeat
  std::vector<double> timestamps_s = {};  ///< one per temporal patch: mean time of its frames (glm4v: time of its
                                          ///< first frame), from the clip's start
  bool operator==(const Clip&) const = default;
};

/// `total_frames` and `source_fps` describe the clip (after cutting start and end). Throws InputError for fewer frames
/// than temporal_patch_size, values that are not positive, and what the processor itself refuses.
Clip sample_clip(const Rules& rules, std::int64_t height, std::int64_t width, std::int64_t total_frames,
                 double source_fps, const Sampling& sampling = {});

/// Tokens of the text "<1.5 seconds>" that Qwen3-VL puts before each temporal patch, the time printed to one decimal.
/// Qwen's tokenizer splits digits and knows " seconds": `<`, each digit, `.`, the decimal, ` seconds`, `>`.
int timestamp_tokens(double time_s);

}  // namespace dhp::qwen_vl
