#include <algorithm>
#include <cmath>

#include "core/json_reader.h"
#include "dhp/analytic_cost.h"
#include "dhp/error.h"

namespace dhp {
namespace {

constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0;

/// Share of a rank's memory kept for what the count below leaves out: padding, exchange buffers, one live layer of the
/// vision tower, the allocator. Assumption.
constexpr double kReserveShare = 1.0 / 16.0;

/// Passes of linear work that the backward pass does with full recomputation: forward again, then gradients of inputs
/// and weights.
constexpr double kBackwardLinear = 3.0;
/// Attention: forward again, then five matrix products where forward has two.
constexpr double kBackwardAttention = 3.5;
/// Attention steps have about twice the kernel calls in the backward pass.
constexpr double kBackwardSteps = 2.0;
/// Ulysses: the exchanges of forward again, then gradients both ways.
constexpr double kBackwardAllToAll = 3.0;

/// The dimensions of a Qwen3-VL config, under the names that the config uses.
struct Shape {
  std::int64_t hidden = 0;
  std::int64_t intermediate = 0;
  std::int64_t layers = 0;
  std::int64_t query_heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t vocabulary = 0;
  bool attention_bias = false;
  bool tied = false;

  struct Vision {
    std::int64_t depth = 0;
    std::int64_t hidden = 0;
    std::int64_t intermediate = 0;
    std::int64_t out_hidden = 0;
    std::int64_t patch_values = 0;  ///< channels x temporal patch x patch x patch
    std::int64_t merge = 0;         ///< patches merged into one row
    std::int64_t positions = 0;
    std::int64_t deepstack = 0;  ///< additional mergers
  } vision;

  std::int64_t query_width() const { return query_heads * head_dim; }
  std::int64_t kv_width() const { return kv_heads * head_dim; }
};

// Far beyond any model; every count of weights then stays inside 64 bits.
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxVisionWidth = 1 << 16;
constexpr int kMaxVocabulary = 1 << 24;
constexpr int kMaxLayers = 1 << 12;
constexpr int kMaxHeads = 1 << 12;
constexpr int kMaxPatch = 1 << 10;
constexpr int kMaxMerge = 1 << 4;
constexpr int kMaxPositions = 1 << 24;

Shape::Vision parse_vision(const JsonObject& entry) {
  Shape::Vision vision;
  vision.depth = entry.integer("depth", 1, kMaxLayers);
  vision.hidden = entry.integer("hidden_size", 1, kMaxVisionWidth);
  vision.intermediate = entry.integer("intermediate_size", 1, kMaxWidth);
  vision.out_hidden = entry.integer("out_hidden_size", 1, kMaxWidth);
  const std::int64_t patch = entry.integer("patch_size", 1, kMaxPatch);
  const std::int64_t frames = entry.integer("temporal_patch_size", 1, kMaxPatch);
  const std::int64_t channels = entry.integer_or("in_channels", 3, 1, kMaxPatch);
  vision.patch_values = channels * frames * patch * patch;
  const std::int64_t merge = entry.integer("spatial_merge_size", 1, kMaxMerge);
  vision.merge = merge * merge;
  vision.positions = entry.integer("num_position_embeddings", 0, kMaxPositions);
  const std::vector<int> deepstack = entry.integers("deepstack_visual_indexes", 0, kMaxLayers);
  if (std::ssize(deepstack) > vision.depth) {
    entry.fail("deepstack_visual_indexes", "found " + std::to_string(deepstack.size()) +
                                               " of them, expected at most the " + std::to_string(vision.depth) +
                                               " blocks of the tower");
  }
  vision.deepstack = std::ssize(deepstack);
  return vision;
}

Shape parse_shape(const JsonObject& root) {
  const std::string family = root.text("model_type");
  if (family != "qwen3_vl") root.fail("model_type", "found \"" + family + "\", expected \"qwen3_vl\"");
  const JsonObject text = root.object("text_config");
  Shape shape;
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
  constexpr int kDefaultHeadDim = 128;  // of Qwen3VLTextConfig, whatever the hidden size
  shape.head_dim = text.integer_or("head_dim", kDefaultHeadDim, 1, kMaxHeads);
  shape.vocabulary = text.integer("vocab_size", 1, kMaxVocabulary);
  shape.attention_bias = text.boolean_or("attention_bias", false);
  shape.tied = root.boolean_or("tie_word_embeddings", false);
  shape.vision = parse_vision(root.object("vision_config"));
  return shape;
}

/// Weights of matrix products: what linear FLOP are counted from.
std::int64_t layer_matrices(const Shape& shape) {
  return 2 * shape.hidden * shape.query_width() + 2 * shape.hidden * shape.kv_width() +
         3 * shape.hidden * shape.intermediate;
}

std::int64_t vision_block_matrices(const Shape::Vision& vision) {
  return 4 * vision.hidden * vision.hidden + 2 * vision.hidden * vision.intermediate;
}

std::int64_t merger_matrices(const Shape::Vision& vision) {
  const std::int64_t width = vision.hidden * vision.merge;
  return width * width + width * vision.out_hidden;
}

std::int64_t vision_parameters(const Shape::Vision& vision) {
  const std::int64_t width = vision.hidden * vision.merge;
  const std::int64_t embedding = vision.patch_values * vision.hidden + vision.hidden + vision.positions * vision.hidden;
  // Biases of qkv, projection and both MLP layers; two LayerNorms.
  const std::int64_t block =
      vision_block_matrices(vision) + 4 * vision.hidden + vision.intermediate + vision.hidden + 4 * vision.hidden;
  // Mergers have a LayerNorm (over one patch in the main one, over the merged row in deepstack) and two biases.
  const std::int64_t merger = merger_matrices(vision) + width + vision.out_hidden;
  return embedding + vision.depth * block + merger + 2 * vision.hidden + vision.deepstack * (merger + 2 * width);
}

ParameterCounts count(const Shape& shape) {
  // Two RMSNorms over the hidden size, one over the head size for queries and one for keys.
  std::int64_t layer = layer_matrices(shape) + 2 * shape.hidden + 2 * shape.head_dim;
  if (shape.attention_bias) layer += shape.query_width() + 2 * shape.kv_width() + shape.hidden;
  const std::int64_t embedding = shape.vocabulary * shape.hidden;
  return {.language_body = shape.layers * layer + shape.hidden,
          .embeddings = shape.tied ? embedding : 2 * embedding,
          .vision = vision_parameters(shape.vision)};
}

/// FLOP of the vision tower per patch, one pass. Attention stays inside a frame pair or picture and is left out: 15 %
/// at 1,024 patches a frame in the largest tower.
double patch_flop(const Shape::Vision& vision) {
  const auto merged = static_cast<double>((1 + vision.deepstack) * merger_matrices(vision));
  return 2.0 *
         (static_cast<double>(vision.patch_values * vision.hidden + vision.depth * vision_block_matrices(vision)) +
          merged / static_cast<double>(vision.merge));
}

/// Bytes per token with full recomputation: the input of every layer is kept; on top comes the larger of the logits
/// (training precision and fp32) and one live layer, which never exist at the same time.
double token_bytes(const Shape& shape, double value_bytes) {
  const auto hidden = static_cast<double>(shape.hidden);
  const auto widths = static_cast<double>(shape.query_width() + shape.kv_width());
  const double checkpoints = static_cast<double>(shape.layers) * hidden * value_bytes;
  const double logits = static_cast<double>(shape.vocabulary) * (value_bytes + 4.0);
  // Norm inputs and outputs, queries, keys, values and output with the norms of queries and keys, the three MLP rows;
  // the log-sum-exp in fp32.
  const double layer = (4.0 * hidden + 3.0 * widths + 3.0 * static_cast<double>(shape.intermediate)) * value_bytes +
                       4.0 * static_cast<double>(shape.query_heads);
  return checkpoints + std::max(logits, layer);
}

/// Pixels, the input of every block where gradients need it, and the rows that mergers hand to the language model.
double patch_bytes(const Shape::Vision& vision, double value_bytes, bool frozen) {
  const auto rows = static_cast<double>((1 + vision.deepstack) * vision.out_hidden) / static_cast<double>(vision.merge);
  const auto blocks = frozen ? 0.0 : static_cast<double>(vision.depth * vision.hidden);
  return (static_cast<double>(vision.patch_values) + blocks + rows) * value_bytes;
}

/// Parameters, gradients, and this rank's part of the optimizer: two fp32 moments, and fp32 weights where training is
/// not in fp32 already. Frozen weights have neither gradients nor moments.
double parameter_bytes(const ParameterCounts& counts, double value_bytes, const CostOptions& options) {
  const auto all = static_cast<double>(counts.total());
  const auto trained = all - (options.freeze_vit ? static_cast<double>(counts.vision) : 0.0);
  const double optimizer = value_bytes < 4.0 ? 12.0 : 8.0;
  return all * value_bytes + trained * (value_bytes + optimizer / options.ranks);
}

const Device& find_device(const std::string& name) {
  std::string names;
  for (const Device& device : devices()) {
    if (device.name == name) return device;
    names += (names.empty() ? "" : ", ") + device.name;
  }
  throw InputError("--device", "", "found \"" + name + "\", expected one of " + names);
}

std::string model_name(const std::string& device, const ParameterCounts& counts) {
  const auto millions = static_cast<std::int64_t>(std::llround(static_cast<double>(counts.total()) / 1e6));
  return "qwen3_vl, " + std::to_string(millions) + " M parameters, " + device;
}

void fill_passes(CostModel& cost, const Shape& shape, const Device& device) {
  const auto layers = static_cast<double>(shape.layers);
  const double body = 2.0 * layers * static_cast<double>(layer_matrices(shape)) / device.linear_flop_per_s;
  const double head = 2.0 * static_cast<double>(shape.vocabulary * shape.hidden) / device.linear_flop_per_s;
  const double value_bytes = device.bytes_per_value;
  const auto kv_values = 2.0 * layers * static_cast<double>(shape.kv_width());
  PassCost& forward = cost.forward;
  forward.token_s = body + head;
  // Two matrix products of 2 * head_dim FLOP per pair and head.
  forward.pair_s = 4.0 * layers * static_cast<double>(shape.query_width()) / device.attention_flop_per_s;
  forward.step_s = layers * device.launch_s;
  forward.sequence_step_s = layers * device.sequence_launch_s;
  forward.ring_bytes_per_token = kv_values * value_bytes;
  forward.all_to_all_bytes_per_token = 2.0 * layers * static_cast<double>(shape.query_width()) * value_bytes +
                                       kv_values * value_bytes;  // queries and output, keys and values
  PassCost& backward = cost.backward;
  backward.token_s = kBackwardLinear * body + (kBackwardLinear - 1.0) * head;  // the head is not run again
  backward.pair_s = kBackwardAttention * forward.pair_s;
  backward.step_s = kBackwardSteps * forward.step_s;
  backward.sequence_step_s = kBackwardSteps * forward.sequence_step_s;
  // Keys and values when forward runs again, keys and values for the gradients, and these gradients in fp32.
  backward.ring_bytes_per_token = 2.0 * forward.ring_bytes_per_token + kv_values * 4.0;
  backward.all_to_all_bytes_per_token = kBackwardAllToAll * forward.all_to_all_bytes_per_token;
}

}  // namespace

const std::vector<Device>& devices() {
  static const std::vector<Device> table = {
      // Assumptions for one process of a few cores: sustained fp32 matrix products, attention at half of that, a
      // message and a kernel call over local sockets, four GiB a rank.
      {.name = "local-cpu",
       .linear_flop_per_s = 5e10,
       .attention_flop_per_s = 2.5e10,
       .launch_s = 2e-4,
       .sequence_launch_s = 2e-5,
       .task_s = 5e-3,
       .memory_bytes = 4 * kGibibyte,
       .bytes_per_value = 4},
      // 910B (Atlas 800T A2), 64 GB. Linear: half of the 328 TFLOP/s measured on large bf16 products
      // (gameofdimension/limulidae). Attention: fused kernels reach 136 to 170 forward at 2K to 4K (PTO-ISA tables),
      // less for head gradients. Launch: their floor is 70 us with about 60 us per fused call assumed here; per
      // sequence and task: assumptions.
      {.name = "ascend-910b",
       .linear_flop_per_s = 160e12,
       .attention_flop_per_s = 120e12,
       .launch_s = 60e-6,
       .sequence_launch_s = 1e-6,
       .task_s = 20e-3,
       .memory_bytes = 64 * kGibibyte,
       .bytes_per_value = 2},
      // H100 SXM, 80 GB. Linear: 45 % of 989 TFLOP/s, inside the 41 to 48 % that Megatron-LM reports for training.
      // Attention: FlashAttention-2, causal, head size 128, forward and backward: 294 to 328 at 4K to 16K. Launch:
      // three or four kernels of 4 to 6 us; per sequence and task: assumptions.
      {.name = "h100",
       .linear_flop_per_s = 445e12,
       .attention_flop_per_s = 300e12,
       .launch_s = 20e-6,
       .sequence_launch_s = 1e-6,
       .task_s = 20e-3,
       .memory_bytes = 80e9,
       .bytes_per_value = 2},
  };
  return table;
}

ParameterCounts count_parameters(std::string_view config_json, const std::string& source) {
  const JsonDocument document(config_json, source);
  return count(parse_shape(document.root()));
}

CostModel analytic_cost(std::string_view config_json, const std::string& source, const CostOptions& options) {
  const Device& device = find_device(options.device);
  if (options.ranks < 1) {
    throw InputError("--ranks", "", "found " + std::to_string(options.ranks) + ", expected at least 1");
  }
  const JsonDocument document(config_json, source);
  const Shape shape = parse_shape(document.root());
  const ParameterCounts counts = count(shape);
  const double value_bytes = device.bytes_per_value;
  CostModel cost;
  cost.name = model_name(device.name, counts);
  cost.layers = static_cast<int>(shape.layers);
  cost.task_s = device.task_s;
  cost.patch_s =
      (options.freeze_vit ? 1.0 : 1.0 + kBackwardLinear) * patch_flop(shape.vision) / device.linear_flop_per_s;
  fill_passes(cost, shape, device);
  cost.query_heads = static_cast<int>(shape.query_heads);
  cost.kv_heads = static_cast<int>(shape.kv_heads);
  cost.token_bytes = token_bytes(shape, value_bytes);
  cost.patch_bytes = patch_bytes(shape.vision, value_bytes, options.freeze_vit);
  cost.state_bytes = parameter_bytes(counts, value_bytes, options) + kReserveShare * device.memory_bytes;
  return cost;
}

}  // namespace dhp
