#include "cost/count/modules.h"

#include <algorithm>

namespace dhp {
namespace {

double real(std::int64_t number) { return static_cast<double>(number); }

/// Weights of matrix products, which FLOP are counted from.
std::int64_t attention_matrices(const LanguageShape& shape) {
  return 2 * shape.hidden * shape.query_width() + 2 * shape.hidden * shape.kv_width();
}

std::int64_t dense_layers(const LanguageShape& shape) { return shape.layers - shape.sparse_layers; }

/// Of all layers: those that exist, and those that one token meets.
std::int64_t layer_matrices(const LanguageShape& shape, std::int64_t experts) {
  return shape.layers * attention_matrices(shape) + dense_layers(shape) * 3 * shape.hidden * shape.intermediate +
         shape.sparse_layers * (shape.experts * shape.hidden + experts * 3 * shape.hidden * shape.expert_intermediate);
}

std::int64_t block_matrices(const VisionShape& vision) {
  return 4 * vision.hidden * vision.hidden + (vision.gated ? 3 : 2) * vision.hidden * vision.intermediate;
}

std::int64_t vision_parameters(const VisionShape& vision) {
  const std::int64_t norm = (vision.rms_norm ? 1 : 2) * vision.hidden;
  std::int64_t block = block_matrices(vision) + vision.hidden + 2 * norm;  // bias of the projection, two norms
  if (vision.qkv_bias) block += 3 * vision.hidden;
  if (vision.qk_norm) block += 2 * vision.hidden;
  if (vision.mlp_bias) block += (vision.gated ? 2 : 1) * vision.intermediate + vision.hidden;
  if (vision.layer_scale) block += 2 * vision.hidden;
  return vision.patch_values * vision.hidden + (vision.patch_bias ? vision.hidden : 0) +
         vision.positions * vision.hidden + vision.depth * block + (vision.last_norm ? 2 * vision.hidden : 0);
}

std::int64_t projector_parameters(const ProjectorShape& projector) {
  const std::int64_t matrices = (projector.input + 1) * projector.inner + (projector.inner + 1) * projector.output;
  return projector.copies * matrices + projector.norm_parameters +
         (projector.copies - 1) * projector.copy_norm_parameters;
}

std::int64_t layer_parameters(const LanguageShape& shape) {
  std::int64_t small = 2 * shape.hidden;  // norms
  if (shape.qk_norm) small += 2 * shape.head_dim;
  if (shape.qkv_bias) small += shape.query_width() + 2 * shape.kv_width();
  if (shape.output_bias) small += shape.hidden;
  return layer_matrices(shape, shape.experts) + shape.layers * small + shape.hidden;
}

// Values that operations read and write. Each operation reads its inputs and writes its output once; attention reads
// queries, keys and values and writes its output, whatever the length.

double layer_traffic(const LanguageShape& shape) {
  const double h = real(shape.hidden);
  const double q = real(shape.query_width());
  const double k = real(shape.kv_width());
  // Norm, three matrices, (norm of heads,) rotation, attention, output matrix, residual; second norm and residual.
  double values = 2 * h + (3 * h + q + 2 * k) + 2 * (q + k) + (2 * q + 2 * k) + (q + h) + 3 * h + 2 * h + 3 * h;
  if (shape.qk_norm) values += 2 * (q + k);
  const auto gated = [&](double width) { return (2 * h + 2 * width) + 3 * width + (width + h); };
  double experts = 0.0;
  if (shape.sparse_layers > 0) {
    // Router, rows gathered, experts, rows weighted and summed.
    experts = h + real(shape.experts) +
              real(shape.experts_per_token) * (2 * h + gated(real(shape.expert_intermediate)) + 2 * h);
  }
  return real(shape.layers) * values + real(dense_layers(shape)) * gated(real(shape.intermediate)) +
         real(shape.sparse_layers) * experts;
}

double block_traffic(const VisionShape& vision) {
  const double h = real(vision.hidden);
  const double f = real(vision.intermediate);
  // Norm, one matrix for queries, keys and values, rotation, attention, output matrix, residual; norm and residual.
  double values = 2 * h + 4 * h + 4 * h + 4 * h + 2 * h + 3 * h + 2 * h + 3 * h;
  if (vision.layer_scale) values += 4 * h;
  if (vision.qk_norm) values += 4 * h;
  return values + (vision.gated ? (2 * h + 2 * f) + 3 * f + (f + h) : (h + f) + 2 * f + (f + h));
}

}  // namespace

double tokens_per_patch(const VisionShape& vision) {
  return vision.tile_patches > 0 ? real(vision.tile_patches + vision.tile_extra) / real(vision.tile_patches) : 1.0;
}

namespace {

/// Patches of a frame over which is spread what attention costs a frame, whatever its size. Assumption.
constexpr double kCallPatches = 1024.0;

/// Attention of the tower. A tile is a window: all blocks are windowed then.
void count_vision_attention(const VisionShape& vision, ForwardWork& work) {
  const bool tiled = vision.tile_patches > 0;
  const double window = real(tiled ? vision.tile_patches + vision.tile_extra : vision.window_patches);
  const double windowed = real(tiled ? vision.depth : window > 0.0 ? vision.windowed_blocks : 0);
  const double whole = real(vision.depth) - windowed;
  const double key_flop = 4.0 * tokens_per_patch(vision) * real(vision.hidden);  // of one block
  work.vision_blocks.attention = key_flop * windowed * window;
  work.vision_pair_flop = key_flop * whole;
  work.vision_key_flop = key_flop * real(vision.depth);
  work.vision_calls = whole / kCallPatches;
  if (windowed > 0.0) work.vision_calls += tokens_per_patch(vision) * windowed / window;
}

}  // namespace

ModuleParameters count_modules(const ModelShape& shape) {
  const std::int64_t embedding = shape.language.vocabulary * shape.language.hidden;
  return {.vision = vision_parameters(shape.vision),
          .projector = projector_parameters(shape.projector),
          .embedding = embedding,
          .layers = layer_parameters(shape.language),
          .head = shape.language.tied ? 0 : embedding};
}

std::int64_t adapter_parameters(const LanguageShape& shape, int rank) {
  // Of a matrix from `in` to `out`: rank x in and out x rank. Queries, keys, values, output; gate, up and down.
  const std::int64_t attention = 2 * (shape.hidden + shape.query_width()) + 2 * (shape.hidden + shape.kv_width());
  const std::int64_t dense = shape.layers - shape.sparse_layers;
  return rank * (shape.layers * attention + dense * 3 * (shape.hidden + shape.intermediate));
}

double pair_flop(const LanguageShape& shape) {
  // Two matrix products of 2 * head_dim FLOP per pair and head.
  return 4.0 * real(shape.layers) * real(shape.query_width());
}

ForwardWork count_forward(const ModelShape& shape) {
  const VisionShape& vision = shape.vision;
  const ProjectorShape& projector = shape.projector;
  const LanguageShape& language = shape.language;
  const double tokens = tokens_per_patch(vision);
  const double depth = real(vision.depth);
  const double copies = real(projector.copies) / real(vision.merge);  // a patch's share of a row
  const double input = real(projector.input);
  const double inner = real(projector.inner);
  const double output = real(projector.output);
  const double hidden = real(language.hidden);
  const double vocabulary = real(language.vocabulary);
  ForwardWork work;
  work.patch_embedding = {.linear = 2.0 * real(vision.patch_values * vision.hidden),
                          .values = real(vision.patch_values) + 4 * real(vision.hidden)};  // and positions added
  work.vision_blocks = {.linear = 2.0 * tokens * depth * real(block_matrices(vision)),
                        .values = tokens * depth * block_traffic(vision)};
  count_vision_attention(vision, work);
  // Norm, matrix, GELU, matrix.
  work.projector = {.linear = 2.0 * copies * (input * inner + inner * output),
                    .values = copies * (2 * input + (input + inner) + 2 * inner + (inner + output))};
  work.embedding = {.values = 2.0 * hidden};
  // The last norm; then the head.
  work.layers = {.linear = 2.0 * real(layer_matrices(language, language.experts_per_token)),
                 .values = layer_traffic(language) + 2 * hidden};
  work.head = {.linear = 2.0 * vocabulary * hidden, .values = hidden + 3 * vocabulary};  // logits, then the loss
  return work;
}

double layer_values(const LanguageShape& shape) {
  const double h = real(shape.hidden);
  const double q = real(shape.query_width());
  const double k = real(shape.kv_width());
  // Inputs and outputs of two norms; queries, keys, values and output of attention; gate, up and their product.
  double values = 4 * h + 2 * q + 2 * k;
  if (shape.qk_norm) values += q + k;
  const double sparse =
      real(shape.experts) + real(shape.experts_per_token) * (2 * h + 3 * real(shape.expert_intermediate));
  const double share = real(shape.sparse_layers) / real(shape.layers);
  return values + (1.0 - share) * 3 * real(shape.intermediate) + share * sparse;
}

double block_values(const VisionShape& vision) {
  return 8 * real(vision.hidden) + (vision.qk_norm ? 2 : 0) * real(vision.hidden) +
         (vision.gated ? 3 : 2) * real(vision.intermediate);
}

double projector_values(const ModelShape& shape) {
  const ProjectorShape& projector = shape.projector;
  // Input and output of the norm, input and output of GELU.
  return real(projector.copies) * (2 * real(projector.input) + 2 * real(projector.inner)) / real(shape.vision.merge);
}

}  // namespace dhp
