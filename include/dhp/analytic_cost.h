#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dhp/cost_model.h"
#include "dhp/device.h"

namespace dhp {

/// Parts of a model that do not train. The aligner is every matrix between vision tower and language model.
struct Freeze {
  bool vit = false;
  bool aligner = false;
  bool llm = false;

  bool operator==(const Freeze&) const = default;
};
/// Parses "vit,aligner", in any order; an empty string means nothing. Throws InputError naming `source`.
Freeze parse_freeze(std::string_view names, const std::string& source);

/// Which part of the forward pass is computed again in the backward pass instead of being kept. `full`: language layers
/// and vision blocks, whose inputs are kept (as in Hugging Face's gradient checkpointing). `none`: nothing.
enum class Recompute { full, none, keep_attention };
std::string_view to_string(Recompute recompute);
/// Throws InputError naming `source` for another name.
Recompute parse_recompute(std::string_view name, const std::string& source);

/// Bytes that training holds for each parameter, beside activations.
struct StateBytes {
  double parameter = 0.0;  ///< of every one
  double gradient = 0.0;   ///< of one that trains
  double sharded = 0.0;    ///< of one that trains, shared by the ranks: sums of gradients, moments, copies of weights

  bool operator==(const StateBytes&) const = default;
};

struct CostOptions {
  std::string device = "local-cpu";  ///< a preset or a `dhp.device/1` file
  int ranks = 1;                     ///< ranks that share what `zero` shards
  Recompute recompute = Recompute::full;
  Freeze freeze = {};
  int zero = 1;  ///< 0: nothing is sharded, 1: the optimizer's state, 2: also gradients, 3: also parameters
  /// LoRA: adapters of this rank on all linear layers of the language model's blocks, which alone train; 0: none.
  int lora_rank = 0;
  std::optional<StateBytes> state = {};  ///< instead of what mixed precision with `zero` holds
};

/// Parameters of a model by part.
struct ParameterCounts {
  std::int64_t language_body = 0;  ///< layers and last norm
  std::int64_t embeddings = 0;     ///< input embedding, and the output head if the two are not tied
  std::int64_t vision = 0;         ///< tower and all mergers

  std::int64_t total() const { return language_body + embeddings + vision; }
};
/// Counts the parameters of a Hugging Face `config.json`; `source` names it in errors. Throws InputError as
/// analytic_report() does.
ParameterCounts count_parameters(std::string_view config_json, const std::string& source);

/// Work of one pass over one unit. `bytes` are activations that kernels read and write, with each operation counted
/// separately; weights are left out, since all tokens of a task share them.
struct PassWork {
  double flop = 0.0;
  double bytes = 0.0;
  double seconds = 0.0;
};

/// One row of the module table: all layers together. The unit is a patch, a token or a pair of query and key.
struct ModuleCost {
  std::string name = {};  ///< vision, projector, embedding, layers, attention, head
  std::string unit = {};  ///< "patch", "patch pair", "token", "pair", "sequence" or "step"
  std::int64_t parameters = 0;
  PassWork forward = {};
  PassWork backward = {};
  PassWork recompute = {};
};

/// Bytes per rank.
struct MemoryCost {
  double parameters = 0.0;
  double gradients = 0.0;
  double optimizer = 0.0;
  double loss = 0.0;              ///< logits of one chunk, and what its backward pass holds of the head
  double reserve = 0.0;           ///< for everything not counted: padding, exchange buffers, the allocator
  double token_kept = 0.0;        ///< per token: inputs of layers, or everything that backward reads
  double token_live_layer = 0.0;  ///< per token: one layer while it is computed again
  double patch_kept = 0.0;        ///< per patch: pixels, what backward of tower and projector reads, rows for the LLM
};

/// What `dhp cost` prints.
struct CostReport {
  std::string family = {};
  ParameterCounts parameters = {};
  std::vector<ModuleCost> modules = {};
  AttentionRate attention = {};  ///< of the language model; see device.h
  MemoryCost memory = {};
  CostModel cost = {};
  double device_memory_bytes = 0.0;  ///< of one rank, for state and activations
};

/// Counts the FLOP and bytes of a model from its Hugging Face `config.json`, and the time that they take on a device.
/// docs/costs.md has conventions, assumptions and sources. In short:
///
/// - Matrix products: 2 FLOP per weight and unit forward, 2 backward for the gradient of the input, 2 for that of the
///   weight. Frozen weights have no gradient, and a frozen part before everything that trains has no backward pass.
/// - Attention: 4 * heads * head_dim * layers FLOP per pair, 2.5 times that backward; the device's table gives the rate
///   by length. A token's fixed part is in `token_s`, a sequence's in `sequence_step_s`.
/// - Attention of the tower: `patch_pair_s` where it sees whole pictures and frames; windows and tiles are in
/// `patch_s`.
/// - Time: FLOP over the sustained rate, or bytes over bandwidth if that is longer.
/// - `full` recomputation adds a forward pass of layers, attention and vision blocks to the backward pass.
///
/// Throws InputError for an unknown model family or device, a config that lacks a field, or if nothing trains. The cost
/// model's name starts with `label`, or with the family if `label` is empty.
CostReport analytic_report(std::string_view config_json, const std::string& source, const CostOptions& options,
                           const std::string& label = "");

/// The cost model of the report. Throws as analytic_report() does.
CostModel analytic_cost(std::string_view config_json, const std::string& source, const CostOptions& options);

/// Reads a `dhp.cost/1` file, or "MODEL@DEVICE" if no file has that name ("qwen3-vl-8b@h100"): a model of
/// read_model_config() counted on a device of read_device(), with its optimizer's state sharded over the ranks in
/// service. Throws InputError, which lists the known models or devices if a name is unknown, and
/// refuses a cluster that validate() refuses.
CostModel read_cost_model(const std::string& name, const Cluster& cluster);

}  // namespace dhp
