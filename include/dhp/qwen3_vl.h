#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dhp::qwen3_vl {

/// The token and patch rule of Qwen3-VL. Source: Hugging Face transformers, `models/qwen2_vl/image_processing_qwen2_vl`
/// (images) and `models/qwen3_vl/video_processing_qwen3_vl` (videos), as configured by the checkpoint's
/// `preprocessor_config.json` and `video_preprocessor_config.json`. Numbers round half to even, as Python's do.
struct Rules {
  int patch_size = 16;
  int temporal_patch_size = 2;
  int merge_size = 2;
  std::int64_t image_min_pixels = 65'536;      ///< height x width
  std::int64_t image_max_pixels = 16'777'216;  ///< height x width
  std::int64_t video_min_pixels = 4'096;       ///< frames x height x width
  std::int64_t video_max_pixels = 25'165'824;  ///< frames x height x width
  double fps = 2.0;                            ///< sampled frames per second
  int min_frames = 4;
  int max_frames = 768;

  bool operator==(const Rules&) const = default;
};

/// Reads the processor settings of a checkpoint folder: `image_processor` and `video_processor` of
/// processor_config.json, else preprocessor_config.json and video_preprocessor_config.json
/// (`size.shortest_edge`/`longest_edge`, or min_pixels and max_pixels). Fields that a file lacks get the defaults of
/// the processor classes; without any video settings those of Rules stay. `cap_pixels_per_frame` must not be true.
/// Throws InputError.
Rules read_rules(const std::string& checkpoint_folder);
Rules parse_rules(std::string_view image_json, const std::string& image_source,
                  std::optional<std::string_view> video_json, const std::string& video_source);

/// Vision patches of one picture or clip.
struct Grid {
  std::int64_t frames = 1;  ///< temporal patches (frame pairs); 1 for a picture
  std::int64_t height = 0;  ///< in patches, a multiple of merge_size
  std::int64_t width = 0;

  std::int64_t patches() const { return frames * height * width; }
  bool operator==(const Grid&) const = default;
};

/// Language-model tokens of a grid, markers and timestamps apart.
std::int64_t visual_tokens(const Rules& rules, const Grid& grid);

/// Throws InputError (source "image") for an aspect ratio beyond 200 or a size below 1.
/// `max_pixels`, where given, replaces the rule's limit for this picture.
Grid image_grid(const Rules& rules, std::int64_t height, std::int64_t width,
                std::optional<std::int64_t> max_pixels = {});

/// How a clip is sampled.
struct Sampling {
  std::optional<double> fps = {};               ///< replaces Rules::fps
  std::optional<int> frames = {};               ///< exact number of frames; excludes fps
  std::optional<std::int64_t> max_pixels = {};  ///< of one frame, as in qwen-vl-utils; lowers Rules::video_max_pixels
};

struct Clip {
  Grid grid = {};
  std::vector<std::int64_t> frame_indices = {};  ///< frames to decode, counted from the clip's first; may repeat
  std::vector<double> timestamps_s = {};  ///< one per temporal patch: mean time of its frames, from the clip's start
};

/// `total_frames` and `source_fps` describe the clip (after cutting start and end). Throws InputError for fewer frames
/// than temporal_patch_size, or values that are not positive.
Clip sample_clip(const Rules& rules, std::int64_t height, std::int64_t width, std::int64_t total_frames,
                 double source_fps, const Sampling& sampling = {});

}  // namespace dhp::qwen3_vl
