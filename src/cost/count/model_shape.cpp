#include "cost/count/model_shape.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/json_reader.h"
#include "base/number_limits.h"
#include "tokens/vision_config.h"

namespace dhp {
namespace {

// Far beyond any model; every count of weights then stays inside 64 bits.
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxVisionWidth = 1 << 16;
constexpr int kMaxVocabulary = 1 << 24;
constexpr int kMaxLayers = 1 << 12;
constexpr int kMaxPatch = 1 << 10;
constexpr int kMaxMerge = 1 << 4;
constexpr int kMaxPositions = 1 << 24;
constexpr int kMaxExperts = 1 << 10;
constexpr int kMaxImage = 1 << 14;
constexpr int kMaxWindow = 1 << 14;

/// What differs between the language models of the families.
enum class HeadDim { of_config_or_128, of_config_or_share, share };
enum class Biases { of_config, queries_keys_values };
struct LanguageRules {
  HeadDim head_dim = HeadDim::of_config_or_128;
  Biases biases = Biases::of_config;
  bool qk_norm = true;
};
constexpr LanguageRules kQwen3{};
constexpr LanguageRules kQwen3Moe{.head_dim = HeadDim::of_config_or_share};
constexpr LanguageRules kQwen2{
    .head_dim = HeadDim::of_config_or_share, .biases = Biases::queries_keys_values, .qk_norm = false};
constexpr LanguageRules kLlama{.head_dim = HeadDim::of_config_or_share, .qk_norm = false};
constexpr LanguageRules kQwen25Vl{.head_dim = HeadDim::share, .biases = Biases::queries_keys_values, .qk_norm = false};

const std::map<std::string, LanguageRules> kTextModels = {
    {"llama", kLlama}, {"qwen2", kQwen2}, {"qwen3", kQwen3}, {"qwen3_moe", kQwen3Moe}};

std::int64_t head_dim(const JsonObject& text, HeadDim rule, const LanguageShape& shape) {
  constexpr int kDefault = 128;  // of Qwen3's config classes, whatever the hidden size
  if (rule != HeadDim::share && text.has_value("head_dim")) return text.integer("head_dim", 1, kMaxHeads);
  if (rule == HeadDim::of_config_or_128) return kDefault;
  if (shape.hidden % shape.query_heads != 0) {
    text.fail("num_attention_heads", "found " + std::to_string(shape.query_heads) + ", expected a divisor of the " +
                                         std::to_string(shape.hidden) + " of hidden_size");
  }
  return shape.hidden / shape.query_heads;
}

LanguageShape parse_language(const JsonObject& text, const LanguageRules& rules) {
  LanguageShape shape;
  shape.hidden = text.integer("hidden_size", 1, kMaxWidth);
  shape.intermediate = text.integer("intermediate_size", 1, kMaxWidth);
  shape.layers = text.integer("num_hidden_layers", 1, kMaxLayers);
  shape.query_heads = text.integer("num_attention_heads", 1, kMaxHeads);
  // null stands for one key-value head a query head.
  shape.kv_heads = shape.query_heads;
  if (!text.has("num_key_value_heads") || text.has_value("num_key_value_heads")) {
    shape.kv_heads = text.integer("num_key_value_heads", 1, static_cast<int>(shape.query_heads));
  }
  if (shape.query_heads % shape.kv_heads != 0) {
    text.fail("num_key_value_heads", "found " + std::to_string(shape.kv_heads) + ", expected a divisor of the " +
                                         std::to_string(shape.query_heads) + " attention heads");
  }
  shape.head_dim = head_dim(text, rules.head_dim, shape);
  shape.vocabulary = text.integer("vocab_size", 1, kMaxVocabulary);
  shape.qk_norm = rules.qk_norm;
  shape.qkv_bias = rules.biases == Biases::queries_keys_values || text.boolean_or("attention_bias", false);
  shape.output_bias = rules.biases == Biases::of_config && shape.qkv_bias;
  if (text.has_value("use_sliding_window") && text.boolean_or("use_sliding_window", false)) {
    text.fail("use_sliding_window",
              "found true, expected false: attention of the language model is counted over whole "
              "sequences");
  }
  return shape;
}

/// Every `decoder_sparse_step`-th layer has experts, unless it is listed in `mlp_only_layers`.
void parse_experts(const JsonObject& text, LanguageShape& shape) {
  const char* experts = text.has("num_local_experts") ? "num_local_experts" : "num_experts";  // as saved; as released
  shape.experts = text.integer(experts, 1, kMaxExperts);
  shape.experts_per_token = text.integer("num_experts_per_tok", 1, static_cast<int>(shape.experts));
  shape.expert_intermediate = text.integer("moe_intermediate_size", 1, kMaxVisionWidth);
  const int step = text.integer_or("decoder_sparse_step", 1, 1, kMaxLayers);
  std::vector<int> dense;
  if (text.has_value("mlp_only_layers")) dense = text.integers("mlp_only_layers", 0, kMaxLayers);
  for (int layer = 0; layer < shape.layers; ++layer) {
    const bool listed = std::find(dense.begin(), dense.end(), layer) != dense.end();
    if ((layer + 1) % step == 0 && !listed) ++shape.sparse_layers;
  }
}

/// Fields that the towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share. Qwen2-VL's widths have names of their own: its
/// `hidden_size` is the language model's.
VisionShape parse_qwen_vision(const JsonObject& entry, bool qwen2 = false) {
  VisionShape vision;
  vision.depth = entry.integer("depth", 1, kMaxLayers);
  vision.hidden = entry.integer(qwen2 ? "embed_dim" : "hidden_size", 1, kMaxVisionWidth);
  vision.intermediate = qwen2 ? vision.hidden * entry.integer("mlp_ratio", 1, kMaxMerge)
                              : entry.integer("intermediate_size", 1, kMaxWidth);
  vision.heads = entry.integer_or("num_heads", 16, 1, kMaxHeads);
  const Sides patch = sides(entry, "patch_size", kMaxPatch);
  const std::int64_t frames = entry.integer("temporal_patch_size", 1, kMaxPatch);
  const char* channels = entry.has("in_channels") ? "in_channels" : "in_chans";  // the older name
  vision.patch_values = entry.integer_or(channels, 3, 1, kMaxPatch) * frames * patch.height * patch.width;
  const std::int64_t merge = entry.integer("spatial_merge_size", 1, kMaxMerge);
  vision.merge = merge * merge;
  vision.mlp_bias = true;
  vision.qkv_bias = true;
  return vision;
}

void parse_qwen3_vision(const JsonObject& entry, ModelShape& shape) {
  VisionShape& vision = shape.vision = parse_qwen_vision(entry);
  vision.patch_bias = true;
  vision.positions = entry.integer("num_position_embeddings", 0, kMaxPositions);
  const std::vector<int> deepstack = entry.integers("deepstack_visual_indexes", 0, kMaxLayers);
  if (std::ssize(deepstack) > vision.depth) {
    entry.fail("deepstack_visual_indexes", "found " + std::to_string(deepstack.size()) +
                                               " of them, expected at most the " + std::to_string(vision.depth) +
                                               " blocks of the tower");
  }
  const std::int64_t width = vision.merge * vision.hidden;
  // LayerNorm over one patch, in deepstack's mergers over the merged row.
  shape.projector = {.input = width,
                     .inner = width,
                     .output = entry.integer("out_hidden_size", 1, kMaxWidth),
                     .norm_parameters = 2 * vision.hidden,
                     .copies = 1 + std::ssize(deepstack),
                     .copy_norm_parameters = 2 * width};
}

void parse_qwen25_vision(const JsonObject& entry, ModelShape& shape) {
  VisionShape& vision = shape.vision = parse_qwen_vision(entry);
  vision.gated = true;
  vision.rms_norm = true;
  const std::vector<int> whole = entry.integers("fullatt_block_indexes", 0, kMaxLayers);
  vision.windowed_blocks = vision.depth;
  for (std::int64_t block = 0; block < vision.depth; ++block) {
    vision.windowed_blocks -= std::find(whole.begin(), whole.end(), block) != whole.end() ? 1 : 0;
  }
  const std::int64_t window = entry.integer("window_size", 1, kMaxWindow);
  const Sides patch = sides(entry, "patch_size", kMaxPatch);
  vision.window_patches =
      std::max<std::int64_t>(1, window / patch.height) * std::max<std::int64_t>(1, window / patch.width);
  const std::int64_t width = vision.merge * vision.hidden;
  shape.projector = {.input = width,
                     .inner = width,
                     .output = entry.integer("out_hidden_size", 1, kMaxWidth),
                     .norm_parameters = vision.hidden};  // RMSNorm over one patch
}

void parse_qwen2_vision(const JsonObject& entry, ModelShape& shape) {
  const VisionShape& vision = shape.vision = parse_qwen_vision(entry, true);
  const std::int64_t width = vision.merge * vision.hidden;
  shape.projector = {.input = width,
                     .inner = width,
                     .output = entry.integer("hidden_size", 1, kMaxWidth),
                     .norm_parameters = 2 * vision.hidden};  // LayerNorm over one patch
}

/// InternViT: `names` differ between transformers' config and the original one.
struct InternNames {
  const char* qkv_bias;
  const char* qk_norm;
  bool qk_norm_default;
  const char* norm_default;
};
constexpr InternNames kInternVl{"attention_bias", "use_qk_norm", false, "layer_norm"};
constexpr InternNames kInternVlChat{"qkv_bias", "qk_normalization", true, "rms_norm"};

void parse_intern_vision(const JsonObject& entry, const InternNames& names, ModelShape& shape) {
  VisionShape& vision = shape.vision;
  vision.depth = entry.integer("num_hidden_layers", 1, kMaxLayers);
  vision.hidden = entry.integer("hidden_size", 1, kMaxVisionWidth);
  vision.intermediate = entry.integer("intermediate_size", 1, kMaxWidth);
  vision.heads = entry.integer("num_attention_heads", 1, kMaxHeads);
  const Sides patch = sides(entry, "patch_size", kMaxPatch);
  const Sides tile = sides(entry, "image_size", kMaxImage);
  vision.patch_values = entry.integer_or("num_channels", 3, 1, kMaxPatch) * patch.height * patch.width;
  vision.tile_patches = (tile.height / patch.height) * (tile.width / patch.width);
  if (vision.tile_patches < 1) entry.fail("image_size", "found less than patch_size, expected at least one patch");
  vision.tile_extra = 1;
  if (entry.boolean_or("use_absolute_position_embeddings", true)) vision.positions = vision.tile_patches + 1;
  vision.positions += entry.boolean_or("use_mask_token", false) ? 2 : 1;  // the class vector, and one for masks
  vision.patch_bias = true;
  vision.mlp_bias = true;
  vision.qkv_bias = entry.boolean_or(names.qkv_bias, false);
  vision.qk_norm = entry.boolean_or(names.qk_norm, names.qk_norm_default);
  const std::string norm = entry.text_or("norm_type", names.norm_default);
  if (norm != "layer_norm" && norm != "rms_norm") {
    entry.fail("norm_type", "found \"" + norm + "\", expected \"layer_norm\" or \"rms_norm\"");
  }
  vision.rms_norm = norm == "rms_norm";
  vision.layer_scale = true;
  vision.last_norm = !entry.boolean_or("use_mean_pooling", true);
}

void parse_intern_projector(const JsonObject& root, ModelShape& shape) {
  const std::int64_t side = merge_side(root);
  shape.vision.merge = side * side;
  const std::int64_t width = shape.vision.merge * shape.vision.hidden;
  const std::int64_t hidden = shape.language.hidden;
  shape.projector = {.input = width, .inner = hidden, .output = hidden, .norm_parameters = 2 * width};
}

LanguageShape parse_intern_language(const JsonObject& text) {
  const std::string type = text.text("model_type");
  if (type == "qwen2") return parse_language(text, kQwen2);
  if (type == "qwen3") return parse_language(text, kQwen3);
  text.fail("model_type", "found \"" + type + "\", expected \"qwen2\" or \"qwen3\"");
}

}  // namespace

ModelShape parse_model_shape(std::string_view config_json, const std::string& source) {
  const JsonDocument document(config_json, source);
  const JsonObject root = document.root();
  ModelShape shape;
  shape.family = root.text("model_type");
  const auto tied_or = [&](bool fallback) { return root.boolean_or("tie_word_embeddings", fallback); };
  if (shape.family == "qwen3_vl" || shape.family == "qwen3_vl_moe") {
    const bool experts = shape.family == "qwen3_vl_moe";
    const JsonObject text = root.object("text_config");
    shape.language = parse_language(text, experts ? kQwen3Moe : kQwen3);
    if (experts) parse_experts(text, shape.language);
    shape.language.tied = tied_or(false);
    parse_qwen3_vision(root.object("vision_config"), shape);
  } else if (shape.family == "qwen2_vl" || shape.family == "qwen2_5_vl") {
    // Configs on the hub have the fields of the language model beside vision_config.
    shape.language = parse_language(root.has("text_config") ? root.object("text_config") : root, kQwen25Vl);
    shape.language.tied = tied_or(false);
    const JsonObject vision = root.object("vision_config");
    shape.family == "qwen2_vl" ? parse_qwen2_vision(vision, shape) : parse_qwen25_vision(vision, shape);
  } else if (shape.family == "internvl") {
    shape.language = parse_intern_language(root.object("text_config"));
    shape.language.tied = tied_or(true);
    parse_intern_vision(root.object("vision_config"), kInternVl, shape);
    parse_intern_projector(root, shape);
  } else if (shape.family == "internvl_chat") {
    const JsonObject text = root.object("llm_config");
    shape.language = parse_intern_language(text);
    shape.language.tied = text.boolean_or("tie_word_embeddings", false);
    parse_intern_vision(root.object("vision_config"), kInternVlChat, shape);
    parse_intern_projector(root, shape);
  } else if (const auto text = kTextModels.find(shape.family); text != kTextModels.end()) {
    shape.language = parse_language(root, text->second);
    if (shape.family == "qwen3_moe") parse_experts(root, shape.language);
    shape.language.tied = tied_or(false);
  } else {
    root.fail("model_type", "found \"" + shape.family +
                                "\", expected one of qwen3_vl, qwen3_vl_moe, qwen2_5_vl, qwen2_vl, internvl, "
                                "internvl_chat, qwen3, qwen3_moe, qwen2, llama");
  }
  return shape;
}

}  // namespace dhp
