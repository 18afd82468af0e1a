#include "dhp/tokens.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <utility>

#include "base/json_reader.h"
#include "base/listing.h"
#include "dhp/error.h"
#include "dhp/presets.h"
#include "tokens/processor_settings.h"
#include "tokens/vision_config.h"

namespace dhp {
namespace {

constexpr int kMarkers = 2;  // <|vision_start|> and <|vision_end|>; <img> and </img>

constexpr std::array<std::pair<Family, std::string_view>, 4> kFamilies = {{{Family::qwen2_vl, "qwen2-vl"},
                                                                           {Family::qwen2_5_vl, "qwen2.5-vl"},
                                                                           {Family::qwen3_vl, "qwen3-vl"},
                                                                           {Family::internvl, "internvl"}}};
constexpr std::array<std::string_view, 2> kInternVlVersions = {"internvl2.5", "internvl3"};
constexpr std::array<std::pair<MediaSampling, std::string_view>, 3> kSamplings = {
    {{MediaSampling::hugging_face, "hf"},
     {MediaSampling::qwen_vl_utils, "qwen-vl-utils"},
     {MediaSampling::internvl_chat, "internvl-chat"}}};

template <typename Pairs>
std::string names_of(const Pairs& pairs) {
  return listed(pairs, [](const auto& pair) { return pair.second; });
}

bool is_named(std::string_view name, std::string_view family) {
  return name.starts_with(family) && (name.size() == family.size() || name[family.size()] == '-');
}

void check_sampling_of(Family family, MediaSampling sampling) {
  if (sampling == MediaSampling::hugging_face || sampling == own_sampling(family)) return;
  throw InputError("--sampling", "",
                   "found " + std::string(to_string(sampling)) + ", which knows no " + std::string(to_string(family)) +
                       "; expected hf or " + std::string(to_string(own_sampling(family))));
}

qwen_vl::Processor qwen_processor(Family family, MediaSampling sampling) {
  if (sampling == MediaSampling::qwen_vl_utils) return qwen_vl::Processor::qwen_vl_utils;
  return family == Family::qwen3_vl ? qwen_vl::Processor::qwen3_vl : qwen_vl::Processor::qwen2_vl;
}

int qwen_patch_size(Family family) { return family == Family::qwen3_vl ? 16 : 14; }

internvl::Processor internvl_processor(MediaSampling sampling) {
  return sampling == MediaSampling::hugging_face ? internvl::Processor::internvl : internvl::Processor::internvl_chat;
}

Family family_of(const JsonObject& config) {
  const std::string type = config.text("model_type");
  if (type == "qwen2_vl") return Family::qwen2_vl;
  if (type == "qwen2_5_vl") return Family::qwen2_5_vl;
  if (type == "qwen3_vl" || type == "qwen3_vl_moe") return Family::qwen3_vl;
  if (type == "internvl" || type == "internvl_chat") return Family::internvl;
  config.fail("model_type", "found \"" + type +
                                "\", expected one of qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_vl_moe, internvl, "
                                "internvl_chat");
}

/// A tile that is cut evenly into patches and tokens; anything else would be counted wrong.
void check_tile(const JsonObject& settings, const internvl::Rules& rules) {
  if (rules.tile_size % (rules.patch_size * rules.merge_size) == 0) return;
  settings.fail("", "found tiles of " + std::to_string(rules.tile_size) + " pixels, expected a multiple of " +
                        std::to_string(rules.patch_size * rules.merge_size));
}

constexpr int kMaxTileSize = 1 << 14;
constexpr int kMaxTiles = 1 << 12;

/// Patches of the vision tower, and of a token, by config.json: of both forms, internvl_chat's and transformers'.
void read_tower(const JsonObject& config, internvl::Rules& rules) {
  if (config.has_value("vision_config")) {
    const JsonObject vision = config.object("vision_config");
    if (vision.has("patch_size")) {
      const Sides patch = sides(vision, "patch_size", kMaxTileSize);
      if (patch.height != patch.width) vision.fail("patch_size", "expected two equal sides, or one number");
      rules.patch_size = static_cast<int>(patch.height);
    }
  }
  rules.merge_size = merge_side(config);
}

internvl::Rules image_settings(const JsonObject& image, internvl::Rules rules) {
  if (image.has_value("size")) {
    const JsonObject size = image.object("size");
    rules.tile_size = size.integer("height", 1, kMaxTileSize);
    if (const int width = size.integer("width", 1, kMaxTileSize); width != rules.tile_size) {
      size.fail("width", "found " + std::to_string(width) + ", expected the height, " +
                             std::to_string(rules.tile_size) + ": tiles are square");
    }
  }
  rules.min_tiles = image.integer_or("min_patches", rules.min_tiles, 1, kMaxTiles);
  rules.max_tiles = image.integer_or("max_patches", rules.max_tiles, rules.min_tiles, kMaxTiles);
  check_tile(image, rules);
  return rules;
}

internvl::Rules read_internvl_rules(const std::filesystem::path& folder, const std::string& config_text,
                                    const std::string& config_file, const std::string& type) {
  if (type == "internvl_chat") return parse_internvl_chat_config(config_text, config_file);
  internvl::Rules rules;
  const JsonDocument config(config_text, config_file);
  read_tower(config.root(), rules);
  const ProcessorSettings image(folder, "image_processor", "preprocessor_config.json");
  if (image.get()) return image_settings(*image.get(), rules);
  check_tile(config.root(), rules);
  return rules;
}

void refuse_option(bool given, const char* source, const char* option, const char* family) {
  if (given) throw InputError(source, option, std::string("is not for ") + family + "; leave it out");
}

MediumTokens qwen_tokens(const qwen_vl::Rules& rules, const qwen_vl::Grid& grid) {
  MediumTokens result;
  result.grid = grid;
  result.patches = grid.patches();
  result.tokens = qwen_vl::visual_tokens(rules, grid);
  result.marker_tokens = kMarkers;
  return result;
}

MediumTokens tile_tokens(const internvl::Rules& rules, std::int64_t tiles) {
  MediumTokens result;
  const std::int64_t side = rules.tile_size / rules.patch_size;
  result.grid = {.frames = tiles, .height = side, .width = side};
  result.patches = tiles * internvl::patches_per_tile(rules);
  result.tokens = tiles * internvl::tokens_per_tile(rules);
  result.marker_tokens = kMarkers;
  return result;
}

MediumTokens qwen_video(Family family, const qwen_vl::Rules& rules, const Video& video, const MediumOptions& options) {
  refuse_option(options.max_tiles.has_value(), "video", "max_tiles", "Qwen-VL");
  const qwen_vl::Clip clip = qwen_vl::sample_clip(rules, video.height, video.width, video.total_frames, video.fps,
                                                  {options.fps, options.frames, options.max_pixels});
  MediumTokens result = qwen_tokens(rules, clip.grid);
  result.frames = std::ssize(clip.frame_indices);
  if (family == Family::qwen3_vl) {  // each temporal patch stands alone, after its time
    result.marker_tokens = kMarkers * clip.grid.frames;
    for (const double time_s : clip.timestamps_s) result.timestamp_tokens += qwen_vl::timestamp_tokens(time_s);
  }
  return result;
}

MediumTokens internvl_video(const internvl::Rules& rules, const Video& video, const MediumOptions& options) {
  refuse_option(options.max_pixels.has_value(), "video", "max_pixels", "InternVL");
  const std::int64_t frames =
      internvl::clip_frames(rules, video.total_frames, video.fps, {options.fps, options.frames});
  MediumTokens result = tile_tokens(rules, frames);
  result.frames = frames;
  result.marker_tokens = kMarkers * frames;
  for (std::int64_t i = 1; i <= frames; ++i) result.timestamp_tokens += internvl::frame_label_tokens(rules, i);
  return result;
}

}  // namespace

std::string_view to_string(Family family) { return kFamilies.at(static_cast<std::size_t>(family)).second; }

std::string_view to_string(MediaSampling sampling) { return kSamplings.at(static_cast<std::size_t>(sampling)).second; }

Family parse_family(std::string_view name, const std::string& source) {
  const std::string model = model_name(std::string(name));
  for (const auto& [family, known] : kFamilies) {
    if (is_named(model, known)) return family;
  }
  for (const std::string_view version : kInternVlVersions) {
    if (is_named(model, version)) return Family::internvl;
  }
  throw InputError(source, "",
                   "found \"" + std::string(name) + "\", expected " + names_of(kFamilies) +
                       ", the name of a model of them (qwen3-vl-8b, or as on the hub), or a checkpoint folder");
}

MediaSampling parse_media_sampling(std::string_view name, const std::string& source) {
  for (const auto& [sampling, known] : kSamplings) {
    if (name == known) return sampling;
  }
  throw InputError(source, "", "found \"" + std::string(name) + "\", expected one of " + names_of(kSamplings));
}

MediaSampling own_sampling(Family family) {
  return family == Family::internvl ? MediaSampling::internvl_chat : MediaSampling::qwen_vl_utils;
}

MediaSampling TokenRules::sampling() const {
  if (const auto* tiles = std::get_if<internvl::Rules>(&rules)) {
    return tiles->processor == internvl::Processor::internvl ? MediaSampling::hugging_face
                                                             : MediaSampling::internvl_chat;
  }
  return std::get<qwen_vl::Rules>(rules).processor == qwen_vl::Processor::qwen_vl_utils ? MediaSampling::qwen_vl_utils
                                                                                        : MediaSampling::hugging_face;
}

TokenRules token_rules(Family family, MediaSampling sampling) {
  check_sampling_of(family, sampling);
  if (family == Family::internvl) {
    internvl::Rules rules;
    rules.processor = internvl_processor(sampling);
    return {family, rules};
  }
  return {family, qwen_vl::default_rules(qwen_processor(family, sampling), qwen_patch_size(family))};
}

TokenRules read_token_rules(const std::string& checkpoint_folder, MediaSampling sampling) {
  const std::filesystem::path folder = checkpoint_folder;
  const std::string config_file = (folder / "config.json").string();
  const std::string text = read_text_file(config_file);
  const JsonDocument config(text, config_file);
  const Family family = family_of(config.root());
  check_sampling_of(family, sampling);
  if (family == Family::internvl) {
    internvl::Rules rules = read_internvl_rules(folder, text, config_file, config.root().text("model_type"));
    rules.processor = internvl_processor(sampling);
    return {family, rules};
  }
  if (sampling == MediaSampling::qwen_vl_utils) return token_rules(family, sampling);
  return {family, qwen_vl::read_rules(checkpoint_folder, qwen_processor(family, sampling))};
}

internvl::Rules parse_internvl_rules(std::string_view image_json, const std::string& source) {
  const JsonDocument document(image_json, source);
  return image_settings(document.root(), {});
}

internvl::Rules parse_internvl_chat_config(std::string_view json, const std::string& source) {
  const JsonDocument document(json, source);
  const JsonObject root = document.root();
  internvl::Rules rules;
  rules.tile_size = root.integer_or("force_image_size", rules.tile_size, 1, kMaxTileSize);
  read_tower(root, rules);
  rules.min_tiles = root.integer_or("min_dynamic_patch", rules.min_tiles, 1, kMaxTiles);
  rules.max_tiles = root.integer_or("max_dynamic_patch", rules.max_tiles, rules.min_tiles, kMaxTiles);
  rules.thumbnail = root.boolean_or("use_thumbnail", rules.thumbnail);
  check_tile(root, rules);
  return rules;
}

MediumTokens image_tokens(const TokenRules& rules, std::int64_t height, std::int64_t width,
                          const MediumOptions& options) {
  if (const auto* tile_rules = std::get_if<internvl::Rules>(&rules.rules)) {
    refuse_option(options.max_pixels.has_value(), "image", "max_pixels", "InternVL");
    const internvl::Tiles tiles = internvl::image_tiles(*tile_rules, height, width, options.max_tiles);
    MediumTokens result = tile_tokens(*tile_rules, tiles.count());
    result.tiles = tiles;
    return result;
  }
  refuse_option(options.max_tiles.has_value(), "image", "max_tiles", "Qwen-VL");
  const auto& qwen = std::get<qwen_vl::Rules>(rules.rules);
  return qwen_tokens(qwen, qwen_vl::image_grid(qwen, height, width, options.max_pixels));
}

MediumTokens video_tokens(const TokenRules& rules, const Video& video, const MediumOptions& options) {
  if (const auto* tile_rules = std::get_if<internvl::Rules>(&rules.rules)) {
    return internvl_video(*tile_rules, video, options);
  }
  return qwen_video(rules.family, std::get<qwen_vl::Rules>(rules.rules), video, options);
}

}  // namespace dhp
