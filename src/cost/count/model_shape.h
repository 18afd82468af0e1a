#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dhp {

/// The dimensions that a Hugging Face config gives, alike for all families. Numbers of values where nothing else is
/// said.
struct LanguageShape {
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;  ///< of dense layers
  std::int64_t layers = 0;
  std::int64_t query_heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocabulary = 0;
  bool qkv_bias = false;
  bool output_bias = false;
  bool qk_norm = false;  ///< RMSNorm over each head of queries and keys
  bool tied = false;     ///< the output head is the embedding

  /// Mixture of experts: layers whose MLP is a router and experts, `experts_per_token` of which see a token.
  std::int64_t sparse_layers = 0;
  std::int64_t experts = 0;
  std::int64_t experts_per_token = 0;
  std::int64_t expert_intermediate = 0;

  std::int64_t query_width() const { return query_heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }
};

struct VisionShape {
  std::int64_t depth = 0;
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
  std::int64_t heads = 0;
  std::int64_t patch_values = 0;  ///< channels x frames x height x width
  std::int64_t positions = 0;     ///< learned vectors: positions, class, mask
  bool patch_bias = false;
  bool gated = false;     ///< SwiGLU, three matrices; else two
  bool mlp_bias = false;  ///< in both (or all three) matrices
  bool rms_norm = false;  ///< norms without a bias
  bool qkv_bias = false;
  bool qk_norm = false;  ///< over the whole width
  bool layer_scale = false;
  bool last_norm = false;  ///< a LayerNorm, whatever the others are

  std::int64_t merge = 1;           ///< patches of one row for the language model
  std::int64_t tile_patches = 0;    ///< patches of every tile where pictures are cut into tiles; else 0
  std::int64_t tile_extra = 0;      ///< further tokens of a tile (class)
  std::int64_t window_patches = 0;  ///< reach of attention in the blocks that do not see the whole frame; 0: none
  std::int64_t windowed_blocks = 0;
};

/// From rows of the tower to rows of the language model: norm, matrix, GELU, matrix.
struct ProjectorShape {
  std::int64_t input = 0;  ///< width of `merge` patches
  std::int64_t inner = 0;
  std::int64_t output = 0;
  std::int64_t norm_parameters = 0;
  std::int64_t copies = 1;                ///< with those of deepstack
  std::int64_t copy_norm_parameters = 0;  ///< of each copy but the first
};

struct ModelShape {
  std::string family = {};  ///< model_type
  LanguageShape language = {};
  VisionShape vision = {};
  ProjectorShape projector = {};
};

/// Reads a `config.json`: qwen3_vl, qwen3_vl_moe, qwen2_5_vl and qwen2_vl (nested or flat), internvl, internvl_chat,
/// and of text alone qwen3, qwen3_moe, qwen2, llama. Throws InputError for another family, a field that is missing or
/// wrong, and what is not counted (sliding windows).
ModelShape parse_model_shape(std::string_view config_json, const std::string& source);

}  // namespace dhp
