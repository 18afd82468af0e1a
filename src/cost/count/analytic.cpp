#include <algorithm>
#include <cmath>
#include <filesystem>

#include "cost/count/modules.h"
#include "dhp/analytic_cost.h"
#include "dhp/error.h"
#include "dhp/presets.h"

namespace dhp {
namespace {

/// Share of a rank's memory kept for what the count below leaves out: padding, exchange buffers, one live block of the
/// vision tower, the allocator. Assumption.
constexpr double kReserveShare = 1.0 / 16.0;

/// Attention has five matrix products backward where forward has two.
constexpr double kBackwardAttention = 2.5;
/// Ulysses: gradients travel both ways.
constexpr double kBackwardAllToAll = 2.0;
/// Gradients of keys and values are summed and sent in fp32.
constexpr double kGradientBytes = 4.0;

/// The loss takes so many logits at a time (python/dhp/models/loss.py), and holds two fp32 values of each at most; also
/// where there are half as many, which are taken at once.
constexpr double kMostLogits = 1 << 25;
constexpr double kLogitBytes = 2 * 4.0;
/// Of a weight of the head while the loss runs backward: the sum of its gradient, in fp32, and a copy of 16 bits, of
/// the weight or of the gradient, where training is not in fp32.
constexpr double kHeadGradientBytes = 4.0;
constexpr double kHeadCopyBytes = 2.0;

/// How often a pass is run: once for gradients of inputs, once for those of weights.
struct Passes {
  double backward = 0.0;
  double recompute = 0.0;
};

/// Everything that the counts need.
struct Context {
  const ModelShape& shape;
  const Device& device;
  const CostOptions& options;

  /// Whether layers run again in the backward pass, and whether attention does with them.
  double again() const { return options.recompute == Recompute::none ? 0.0 : 1.0; }
  double attention_again() const { return options.recompute == Recompute::full ? 1.0 : 0.0; }
  double value_bytes() const { return device.bytes_per_value; }
  AttentionRate rate_of(std::int64_t head_dim) const {
    return device.attention_of(static_cast<int>(std::max<std::int64_t>(1, head_dim)));
  }
};

PassWork work_of(const Context& context, const UnitWork& unit, double passes) {
  const double flop = passes * unit.linear;
  const double bytes = passes * unit.values * context.value_bytes();
  return {.flop = flop,
          .bytes = bytes,
          .seconds = std::max(flop / context.device.linear_flop_per_s, bytes / context.device.memory_bytes_per_s)};
}

PassWork& operator+=(PassWork& sum, const PassWork& more) {
  sum.flop += more.flop;
  sum.bytes += more.bytes;
  sum.seconds += more.seconds;
  return sum;
}

void add_matrices(const Context& context, ModuleCost& module, const UnitWork& unit, const Passes& passes) {
  module.forward += work_of(context, unit, 1.0);
  module.backward += work_of(context, unit, passes.backward);
  module.recompute += work_of(context, unit, passes.recompute);
}

/// `seconds` of the forward pass; the bytes of attention are counted with the layers.
void add_attention(ModuleCost& module, double flop, double seconds, double backward_rate, const Passes& passes) {
  module.forward += {.flop = flop, .seconds = seconds};
  const double backward = kBackwardAttention * passes.backward;
  module.backward += {.flop = backward * flop, .seconds = backward * seconds / backward_rate};
  module.recompute += {.flop = passes.recompute * flop, .seconds = passes.recompute * seconds};
}

/// Of the tower's attention.
Passes attention_passes(const Context& context) {
  const bool trains = !context.options.freeze.vit;
  return {.backward = trains ? 1.0 : 0.0, .recompute = trains ? context.attention_again() : 0.0};
}

ModuleCost vision_cost(const Context& context, const ForwardWork& work, std::int64_t parameters) {
  const VisionShape& vision = context.shape.vision;
  const bool trains = !context.options.freeze.vit;
  ModuleCost module{.name = "vision", .unit = "patch", .parameters = parameters};
  if (vision.depth == 0) return module;  // a model of text alone
  // Pixels need no gradient.
  add_matrices(context, module, work.patch_embedding, {.backward = trains ? 1.0 : 0.0});
  add_matrices(context, module, work.vision_blocks,
               {.backward = trains ? 2.0 : 0.0, .recompute = trains ? context.again() : 0.0});
  const AttentionRate rate = context.rate_of(vision.hidden / vision.heads);
  const double flop = work.vision_blocks.attention;
  const double seconds =
      (flop + work.vision_key_flop * rate.token_pairs) / rate.flop_per_s + work.vision_calls * rate.sequence_s;
  add_attention(module, flop, seconds, rate.backward_rate, attention_passes(context));
  return module;
}

/// Attention of the tower that sees whole pictures and frames.
ModuleCost frame_cost(const Context& context, const ForwardWork& work) {
  const VisionShape& vision = context.shape.vision;
  ModuleCost module{.name = "vision", .unit = "patch pair"};
  if (vision.depth == 0) return module;
  const AttentionRate rate = context.rate_of(vision.hidden / vision.heads);
  add_attention(module, work.vision_pair_flop, work.vision_pair_flop / rate.flop_per_s, rate.backward_rate,
                attention_passes(context));
  return module;
}

ModuleCost projector_cost(const Context& context, const ForwardWork& work, std::int64_t parameters) {
  const Freeze& freeze = context.options.freeze;
  ModuleCost module{.name = "projector", .unit = "patch", .parameters = parameters};
  // Gradients of inputs are needed for the tower, or for the norm before the first matrix.
  const double inputs = freeze.vit && freeze.aligner ? 0.0 : 1.0;
  const Passes passes{.backward = inputs + (freeze.aligner ? 0.0 : 1.0)};
  add_matrices(context, module, work.projector, passes);
  return module;
}

ModuleCost embedding_cost(const Context& context, const ForwardWork& work, std::int64_t parameters) {
  ModuleCost module{.name = "embedding", .unit = "token", .parameters = parameters};
  // The gradient's row is read, the row of the matrix' gradient read and written: 3 where forward has 2.
  add_matrices(context, module, work.embedding, {.backward = context.options.freeze.llm ? 0.0 : 1.5});
  return module;
}

/// Layers and head: gradients of inputs are always needed, by what trains below if not by the layers themselves.
ModuleCost language_cost(const Context& context, const char* name, const UnitWork& unit, std::int64_t parameters,
                         double recompute) {
  ModuleCost module{.name = name, .unit = "token", .parameters = parameters};
  add_matrices(context, module, unit, {.backward = context.options.freeze.llm ? 1.0 : 2.0, .recompute = recompute});
  return module;
}

/// The layers, and LoRA's adapters on them.
ModuleCost layers_cost(const Context& context, const UnitWork& unit, std::int64_t parameters) {
  ModuleCost module = language_cost(context, "layers", unit, parameters, context.again());
  const auto adapters = static_cast<double>(adapter_parameters(context.shape.language, context.options.lora_rank));
  add_matrices(context, module, {.linear = 2.0 * adapters}, {.backward = 2.0, .recompute = context.again()});
  return module;
}

/// Attention of the language model by what it depends on: pairs, tokens, sequences, and steps as such.
std::vector<ModuleCost> attention_costs(const Context& context, const AttentionRate& rate) {
  const LanguageShape& language = context.shape.language;
  const Device& device = context.device;
  const Passes passes{.backward = 1.0, .recompute = context.attention_again()};
  const auto layers = static_cast<double>(language.layers);
  const double pair_s = pair_flop(language) / rate.flop_per_s;
  ModuleCost pair{.name = "attention", .unit = "pair"};
  add_attention(pair, pair_flop(language), pair_s, rate.backward_rate, passes);
  ModuleCost token{.name = "attention", .unit = "token"};
  add_attention(token, 0.0, pair_s * rate.token_pairs, rate.backward_rate, passes);
  ModuleCost sequence{.name = "attention", .unit = "sequence"};
  add_attention(sequence, 0.0, layers * rate.sequence_s, rate.backward_rate, passes);
  ModuleCost step{.name = "attention", .unit = "step"};
  // As many calls backward as forward.
  const auto add_launches = [&](ModuleCost& module, double launch_s) {
    module.forward.seconds += layers * launch_s;
    module.backward.seconds += layers * launch_s;
    module.recompute.seconds += passes.recompute * layers * launch_s;
  };
  add_launches(sequence, device.sequence_launch_s);
  add_launches(step, device.launch_s);
  return {pair, token, sequence, step};
}

std::vector<ModuleCost> module_costs(const Context& context, const AttentionRate& rate) {
  const ForwardWork work = count_forward(context.shape);
  const ModuleParameters parameters = count_modules(context.shape);
  std::vector<ModuleCost> modules = {vision_cost(context, work, parameters.vision)};
  if (work.vision_pair_flop > 0.0) modules.push_back(frame_cost(context, work));
  modules.push_back(projector_cost(context, work, parameters.projector));
  modules.push_back(embedding_cost(context, work, parameters.embedding));
  modules.push_back(layers_cost(context, work.layers, parameters.layers));
  for (ModuleCost& module : attention_costs(context, rate)) modules.push_back(std::move(module));
  modules.push_back(language_cost(context, "head", work.head, parameters.head, 0.0));
  return modules;
}

/// Sums of the rows of one unit.
struct UnitSeconds {
  double forward = 0.0;
  double backward = 0.0;  ///< and recomputation
};
UnitSeconds seconds_of(const std::vector<ModuleCost>& modules, std::string_view unit) {
  UnitSeconds sum;
  for (const ModuleCost& module : modules) {
    if (module.unit != unit) continue;
    sum.forward += module.forward.seconds;
    sum.backward += module.backward.seconds + module.recompute.seconds;
  }
  return sum;
}

/// Two fp32 moments, and fp32 weights where training is not in fp32 already.
double optimizer_bytes(double value_bytes) { return value_bytes < 4.0 ? 12.0 : 8.0; }

std::int64_t trained_parameters(const Context& context) {
  const ModuleParameters counts = count_modules(context.shape);
  const Freeze& freeze = context.options.freeze;
  return (freeze.vit ? 0 : counts.vision) + (freeze.aligner ? 0 : counts.projector) +
         (freeze.llm ? 0 : counts.embedding + counts.layers + counts.head) +
         adapter_parameters(context.shape.language, context.options.lora_rank);
}

/// Parameters, gradients and optimizer of one rank. Frozen weights have neither gradients nor moments.
void count_state(const Context& context, MemoryCost& memory) {
  const ModuleParameters counts = count_modules(context.shape);
  const std::int64_t language = counts.embedding + counts.layers + counts.head;
  const std::int64_t adapters = adapter_parameters(context.shape.language, context.options.lora_rank);
  const auto all = static_cast<double>(counts.vision + counts.projector + language + adapters);
  const auto trained = static_cast<double>(trained_parameters(context));
  const auto shards = [&](int stage) { return context.options.zero >= stage ? context.options.ranks : 1; };
  memory.parameters = all * context.value_bytes() / shards(3);
  memory.gradients = trained * context.value_bytes() / shards(2);
  memory.optimizer = trained * optimizer_bytes(context.value_bytes()) / shards(1);
  memory.reserve = kReserveShare * context.device.memory_bytes;
  if (const auto& held = context.options.state) {
    memory.parameters = all * held->parameter;
    memory.gradients = trained * held->gradient;
    memory.optimizer = trained * held->sharded / context.options.ranks;
  }
}

void count_activations(const Context& context, MemoryCost& memory) {
  constexpr double kLogSumExpBytes = 4.0;
  const auto& [family, language, vision, projector] = context.shape;
  const Freeze& freeze = context.options.freeze;
  const bool again = context.again() > 0.0;
  const bool kept = context.options.recompute == Recompute::keep_attention;
  const double bytes = context.value_bytes();
  const auto layers = static_cast<double>(language.layers);
  const double layer = layer_values(language) * bytes + kLogSumExpBytes * static_cast<double>(language.query_heads);
  // Output of attention and its logarithms beside the inputs of layers.
  const auto attention = [&](double width, double heads) {
    return kept ? width * bytes + heads * kLogSumExpBytes : 0.0;
  };
  const double input =
      static_cast<double>(language.hidden) * bytes +
      attention(static_cast<double>(language.query_width()), static_cast<double>(language.query_heads));
  memory.token_kept = layers * (again ? input : layer);
  memory.token_live_layer = again ? layer : 0.0;
  const auto head = static_cast<double>(language.vocabulary * language.hidden);
  memory.loss = kMostLogits * kLogitBytes +
                head * ((freeze.llm ? 0.0 : kHeadGradientBytes) + (bytes < 4.0 ? kHeadCopyBytes : 0.0));
  const double block = block_values(vision) * bytes + kLogSumExpBytes * static_cast<double>(vision.heads);
  const double blocks = tokens_per_patch(vision) * static_cast<double>(vision.depth) *
                        (again ? static_cast<double>(vision.hidden) * bytes +
                                     attention(static_cast<double>(vision.hidden), static_cast<double>(vision.heads))
                               : block);
  const double rows = static_cast<double>(projector.copies * projector.output) / static_cast<double>(vision.merge);
  memory.patch_kept = (static_cast<double>(vision.patch_values) + rows) * bytes;
  if (!freeze.vit) memory.patch_kept += blocks;
  if (!freeze.vit || !freeze.aligner) memory.patch_kept += projector_values(context.shape) * bytes;
}

void fill_exchange(const Context& context, CostModel& cost) {
  const LanguageShape& language = context.shape.language;
  const auto layers = static_cast<double>(language.layers);
  const double kv_values = 2.0 * layers * static_cast<double>(language.kv_width());
  const double query_values = 2.0 * layers * static_cast<double>(language.query_width());  // and output
  cost.forward.ring_bytes_per_token = kv_values * context.value_bytes();
  cost.forward.all_to_all_bytes_per_token = (query_values + kv_values) * context.value_bytes();
  // Keys and values where forward runs again, keys and values for the gradients, and these gradients.
  cost.backward.ring_bytes_per_token =
      (context.attention_again() + 1.0) * cost.forward.ring_bytes_per_token + kv_values * kGradientBytes;
  cost.backward.all_to_all_bytes_per_token =
      (context.attention_again() + kBackwardAllToAll) * cost.forward.all_to_all_bytes_per_token;
}

/// Gradients are summed in training precision. AdamW, bound by memory, reads gradients, moments and weights, and writes
/// moments and weights; in training precision again where its own are fp32 copies.
void fill_step_end(const Context& context, CostModel& cost) {
  constexpr double kFp32Bytes = 4.0;
  const double value_bytes = context.value_bytes();
  const auto trained = static_cast<double>(trained_parameters(context));
  cost.gradient_bytes = trained * value_bytes;
  double touched = value_bytes + 2.0 * (2.0 + 1.0) * kFp32Bytes;
  if (value_bytes < kFp32Bytes) touched += value_bytes;
  const double share = context.options.zero >= 1 ? 1.0 / context.options.ranks : 1.0;
  cost.optimizer_s = trained * share * touched / context.device.memory_bytes_per_s;
}

CostModel cost_of(const Context& context, const CostReport& report, const std::string& name) {
  const LanguageShape& language = context.shape.language;
  CostModel cost;
  cost.name = name;
  cost.layers = static_cast<int>(language.layers);
  cost.query_heads = static_cast<int>(language.query_heads);
  cost.kv_heads = static_cast<int>(language.kv_heads);
  cost.task_s = context.device.task_s;
  const UnitSeconds patch = seconds_of(report.modules, "patch");
  cost.patch_s = patch.forward + patch.backward;
  const UnitSeconds patch_pair = seconds_of(report.modules, "patch pair");
  cost.patch_pair_s = patch_pair.forward + patch_pair.backward;
  const auto fill = [&](double PassCost::*field, std::string_view unit) {
    const UnitSeconds seconds = seconds_of(report.modules, unit);
    cost.forward.*field = seconds.forward;
    cost.backward.*field = seconds.backward;
  };
  fill(&PassCost::token_s, "token");
  fill(&PassCost::pair_s, "pair");
  fill(&PassCost::step_s, "step");
  fill(&PassCost::sequence_step_s, "sequence");
  fill_exchange(context, cost);
  const MemoryCost& memory = report.memory;
  cost.token_bytes = memory.token_kept + memory.token_live_layer;
  cost.patch_bytes = memory.patch_kept;
  cost.state_bytes = memory.parameters + memory.gradients + memory.optimizer + memory.loss + memory.reserve;
  fill_step_end(context, cost);
  return cost;
}

void check(const CostOptions& options) {
  if (options.ranks < 1) {
    throw InputError("--ranks", "", "found " + std::to_string(options.ranks) + ", expected at least 1");
  }
  if (options.zero < 0 || options.zero > 3) {
    throw InputError("--zero", "", "found " + std::to_string(options.zero) + ", expected 0, 1, 2 or 3");
  }
  if (options.lora_rank < 0) {
    throw InputError("--lora-rank", "", "found " + std::to_string(options.lora_rank) + ", expected 0 or more");
  }
  if (options.freeze == Freeze{true, true, true} && options.lora_rank == 0) {
    throw InputError("--freeze", "", "vit, aligner and llm together leave nothing to train");
  }
}

std::string name_of(const std::string& label, const CostReport& report, const Device& device,
                    const CostOptions& options) {
  const auto millions = std::llround(static_cast<double>(report.parameters.total()) / 1e6);
  std::string name = label + ", " + std::to_string(millions) + " M parameters, " + device.name;
  if (options.recompute == Recompute::full) name += ", recomputed";
  if (options.recompute == Recompute::keep_attention) name += ", recomputed but attention";
  if (options.lora_rank > 0) return name + ", LoRA of rank " + std::to_string(options.lora_rank);
  std::string frozen;
  if (options.freeze.vit) frozen += " vit";
  if (options.freeze.aligner) frozen += " aligner";
  if (options.freeze.llm) frozen += " llm";
  return frozen.empty() ? name : name + ", frozen:" + frozen;
}

ParameterCounts parts_of(const ModuleParameters& modules) {
  return {.language_body = modules.layers,
          .embeddings = modules.embedding + modules.head,
          .vision = modules.vision + modules.projector};
}

}  // namespace

Freeze parse_freeze(std::string_view names, const std::string& source) {
  Freeze freeze;
  while (!names.empty()) {
    const std::size_t comma = std::min(names.find(','), names.size());
    const std::string_view name = names.substr(0, comma);
    names.remove_prefix(std::min(comma + 1, names.size()));
    if (name == "vit") {
      freeze.vit = true;
    } else if (name == "aligner") {
      freeze.aligner = true;
    } else if (name == "llm") {
      freeze.llm = true;
    } else {
      throw InputError(source, "",
                       "found \"" + std::string(name) + "\", expected vit, aligner and llm, apart by commas");
    }
  }
  return freeze;
}

std::string_view to_string(Recompute recompute) {
  if (recompute == Recompute::keep_attention) return "keep_attention";
  return recompute == Recompute::full ? "full" : "none";
}

Recompute parse_recompute(std::string_view name, const std::string& source) {
  if (name == "full") return Recompute::full;
  if (name == "none") return Recompute::none;
  if (name == "keep_attention") return Recompute::keep_attention;
  throw InputError(source, "", "found \"" + std::string(name) + "\", expected full, keep_attention or none");
}

ParameterCounts count_parameters(std::string_view config_json, const std::string& source) {
  return parts_of(count_modules(parse_model_shape(config_json, source)));
}

CostReport analytic_report(std::string_view config_json, const std::string& source, const CostOptions& given,
                           const std::string& label) {
  check(given);
  CostOptions options = given;
  if (options.lora_rank > 0) options.freeze = {.vit = true, .aligner = true, .llm = true};
  const Device device = read_device(options.device);
  const ModelShape shape = parse_model_shape(config_json, source);
  const Context context{shape, device, options};
  CostReport report;
  report.family = shape.family;
  report.device_memory_bytes = device.memory_bytes;
  report.parameters = parts_of(count_modules(shape));
  report.attention = context.rate_of(shape.language.head_dim);
  report.modules = module_costs(context, report.attention);
  count_state(context, report.memory);
  count_activations(context, report.memory);
  report.cost = cost_of(context, report, name_of(label.empty() ? shape.family : label, report, device, options));
  return report;
}

CostModel analytic_cost(std::string_view config_json, const std::string& source, const CostOptions& options) {
  return analytic_report(config_json, source, options).cost;
}

CostModel read_cost_model(const std::string& name, const Cluster& cluster) {
  std::error_code ignored;
  const std::size_t at = name.rfind('@');
  if (at == std::string::npos || std::filesystem::exists(name, ignored)) return read_cost_model(name);
  validate(cluster, "cluster");
  CostOptions options;
  options.device = name.substr(at + 1);
  options.ranks = std::max(1, static_cast<int>(cluster.live_ranks().size()));
  try {
    const NamedText config = read_model_config(name.substr(0, at));
    const bool is_file = config.source.ends_with(".json");
    return analytic_report(config.text, config.source, options, is_file ? "" : config.source).cost;
  } catch (const InputError& error) {
    throw InputError(name, "", std::string("is no file, and read as MODEL@DEVICE: ") + error.what());
  }
}

}  // namespace dhp
