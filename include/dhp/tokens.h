#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "dhp/internvl.h"
#include "dhp/qwen_vl.h"

namespace dhp {

/// The tokens of a picture or a clip in a sequence, for any family:
///
///     TokenRules rules = token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils);
///     MediumTokens clip = video_tokens(rules, {.height = 720, .width = 1280, .total_frames = 900, .fps = 30.0});
///     clip.tokens;  // 21600 visual tokens in 30 temporal patches
///     clip.all();   // 21860: with 60 markers and 200 tokens of timestamps
enum class Family { qwen2_vl, qwen2_5_vl, qwen3_vl, internvl };

/// Whose code resizes pictures and samples clips.
enum class MediaSampling {
  hugging_face,   ///< "hf": the processors of transformers, every family
  qwen_vl_utils,  ///< "qwen-vl-utils": the package of that name, Qwen families
  internvl_chat,  ///< "internvl-chat": the training code of OpenGVLab/InternVL
};

/// "qwen2-vl", "qwen2.5-vl", "qwen3-vl", "internvl".
std::string_view to_string(Family family);
/// "hf", "qwen-vl-utils", "internvl-chat".
std::string_view to_string(MediaSampling sampling);
/// Also accepts "internvl2.5" and "internvl3", and any model name that starts with a family's name followed by "-"
/// (qwen3-vl-8b, Qwen/Qwen3-VL-8B-Instruct); case does not matter. Throws InputError, with `source` as the option's
/// name.
Family parse_family(std::string_view name, const std::string& source);
/// One of to_string()'s names. Throws InputError likewise.
MediaSampling parse_media_sampling(std::string_view name, const std::string& source);
/// The authors' own: qwen_vl_utils or internvl_chat.
MediaSampling own_sampling(Family family);

struct TokenRules {
  Family family = Family::qwen3_vl;
  std::variant<qwen_vl::Rules, internvl::Rules> rules = qwen_vl::Rules{};

  MediaSampling sampling() const;
  bool operator==(const TokenRules&) const = default;
};

/// The rules of a family's released checkpoints. Throws InputError if the sampling belongs to another family.
TokenRules token_rules(Family family, MediaSampling sampling);
/// The rules of a checkpoint folder: the family of its config.json (`model_type` qwen2_vl, qwen2_5_vl, qwen3_vl,
/// qwen3_vl_moe, internvl, internvl_chat) and, with hugging_face, the settings of its processor files. Throws
/// InputError.
TokenRules read_token_rules(const std::string& checkpoint_folder, MediaSampling sampling = MediaSampling::hugging_face);
/// `crop_to_patches` apart, which InternVL's processor sets: preprocessor_config.json of a converted InternVL
/// (`size`, `min_patches`, `max_patches`).
internvl::Rules parse_internvl_rules(std::string_view image_json, const std::string& source);
/// config.json of an InternVL as OpenGVLab ships it (`force_image_size`, `vision_config.patch_size`,
/// `downsample_ratio`, `min_dynamic_patch`, `max_dynamic_patch`, `use_thumbnail`).
internvl::Rules parse_internvl_chat_config(std::string_view json, const std::string& source);

struct Video {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t total_frames = 0;  ///< of the file
  double fps = 0.0;               ///< of the file
  bool operator==(const Video&) const = default;
};

/// Values that replace a rule's own for one medium.
struct MediumOptions {
  std::optional<double> fps = {};               ///< sampled frames a second; excludes frames
  std::optional<int> frames = {};               ///< sampled frames
  std::optional<std::int64_t> max_pixels = {};  ///< of a picture or a frame; Qwen only
  std::optional<int> max_tiles = {};            ///< of a picture; InternVL only
  bool operator==(const MediumOptions&) const = default;
};

struct MediumTokens {
  std::int64_t tokens = 0;            ///< visual tokens: after merging
  std::int64_t patches = 0;           ///< of the vision tower: before merging
  std::int64_t marker_tokens = 0;     ///< around pictures, temporal patches (Qwen3-VL), frames (InternVL) or clips
  std::int64_t timestamp_tokens = 0;  ///< text that gives the time: "<1.5 seconds>" (Qwen3-VL), "Frame-2: " (InternVL)
  std::int64_t frames = 1;            ///< sampled frames; 1 for a picture
  qwen_vl::Grid grid = {};            ///< in patches; of InternVL, that of one tile or frame times their number
  internvl::Tiles tiles = {};         ///< InternVL's pictures

  /// All tokens that the medium adds to its sequence.
  std::int64_t all() const { return tokens + marker_tokens + timestamp_tokens; }
  bool operator==(const MediumTokens&) const = default;
};

/// Both throw InputError for sizes, counts and options that the rules refuse.
MediumTokens image_tokens(const TokenRules& rules, std::int64_t height, std::int64_t width,
                          const MediumOptions& options = {});
MediumTokens video_tokens(const TokenRules& rules, const Video& video, const MediumOptions& options = {});

}  // namespace dhp
