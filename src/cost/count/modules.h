#pragma once

#include "cost/count/model_shape.h"
#include "dhp/analytic_cost.h"

namespace dhp {

/// Parameters of a model's parts.
struct ModuleParameters {
  std::int64_t vision = 0;
  std::int64_t projector = 0;
  std::int64_t embedding = 0;
  std::int64_t layers = 0;  ///< and the last norm
  std::int64_t head = 0;    ///< 0 where it is the embedding
};
ModuleParameters count_modules(const ModelShape& shape);

/// What a unit of a module takes: FLOP of matrix products, FLOP of attention, values read and written by all its
/// operations.
struct UnitWork {
  double linear = 0.0;
  double attention = 0.0;
  double values = 0.0;
};

/// Forward work by part, of a patch or token.
struct ForwardWork {
  UnitWork patch_embedding;       ///< first matrix of the tower: nothing before it, and not computed again
  UnitWork vision_blocks;         ///< `attention`: of windows and tiles, whose patches are as many whatever the picture
  double vision_pair_flop = 0.0;  ///< attention that sees a whole frame, a pair of its patches
  double vision_key_flop = 0.0;   ///< attention of a patch to one key more in every block
  double vision_calls = 0.0;      ///< windows, tiles and frames that attention of all blocks meets, a patch
  UnitWork projector;
  UnitWork embedding;
  UnitWork layers;  ///< attention apart
  UnitWork head;
};
ForwardWork count_forward(const ModelShape& shape);

/// Parameters of LoRA's adapters of `rank` on the linear layers of the language model's blocks. Experts, which are one
/// tensor a layer, have none.
std::int64_t adapter_parameters(const LanguageShape& shape, int rank);

/// FLOP of attention of all language layers a pair, forward.
double pair_flop(const LanguageShape& shape);

/// Values kept for the backward pass.
double layer_values(const LanguageShape& shape);   ///< a token and layer; fp32 log-sum-exp apart
double block_values(const VisionShape& vision);    ///< a token of the tower and block; log-sum-exp apart
double projector_values(const ModelShape& shape);  ///< a patch
/// Tokens of the tower a patch: more than 1 where tiles have a class token.
double tokens_per_patch(const VisionShape& vision);

}  // namespace dhp
