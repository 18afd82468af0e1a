#pragma once

#include <cstdint>
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
/// "vit,aligner", in any order; empty for nothing. Throws InputError naming `source`.
Freeze parse_freeze(std::string_view names, const std::string& source);

/// What of the forward pass is computed again in the backward pass instead of kept: `full`: language layers and vision
/// blocks, whose inputs are kept (what Hugging Face's gradient checkpointing does); or nothing.
enum class Recompute { full, none };
std::string_view to_string(Recompute recompute);
/// Throws InputError naming `source` for another name.
Recompute parse_recompute(std::string_view name, const std::string& source);

struct CostOptions {
  std::string device = "local-cpu";  ///< a preset or a `dhp.device/1` file
  int ranks = 1;                     ///< that share what `zero` shards
  Recompute recompute = Recompute::full;
  Freeze freeze = {};
  int zero = 1;  ///< 0: nothing is sharded, 1: the optimizer's state, 2: gradients too, 3: parameters too
};

/// Parameters of a model by part.
struct ParameterCounts {
  std::int64_t language_body = 0;  ///< layers and last norm
  std::int64_t embeddings = 0;     ///< input embedding, and output head where the two are not tied
  std::int64_t vision = 0;         ///< tower and all mergers

  std::int64_t total() const { return language_body + embeddings + vision; }
};
/// Of a Hugging Face `config.json`; `source` names it in errors. Throws InputError as analytic_report() does of it.
ParameterCounts count_parameters(std::string_view config_json, const std::string& source);

/// Work of one pass over one unit. `bytes` are activations that kernels read and write, each operation by itself;
/// weights are left out, since all tokens of a task share them.
struct PassWork {
  double flop = 0.0;
  double bytes = 0.0;
  double seconds = 0.0;
};

/// One row of the module table: all layers together, a unit being a patch, a token or a pair of query and key.
struct ModuleCost {
  std::string name = {};  ///< vision, projector, embedding, layers, attention, head
  std::string unit = {};  ///< "patch", "patch pair", "token", "pair", "sequence" or "step"
  std::int64_t parameters = 0;
  PassWork forward = {};
  PassWork backward = {};
  PassWork recompute = {};
};

/// Bytes of a rank.
struct MemoryCost {
  double parameters = 0.0;
  double gradients = 0.0;
  double optimizer = 0.0;
  double reserve = 0.0;           ///< for what is not counted: padding, exchange buffers, the allocator
  double token_kept = 0.0;        ///< a token: inputs of layers, or all that backward reads
  double token_live_layer = 0.0;  ///< a token: one layer while it is computed again
  double token_logits = 0.0;      ///< a token: logits, in training precision and fp32
  double patch_kept = 0.0;        ///< a patch: pixels, what backward of tower and projector reads, rows for the LLM
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

/// Counts FLOP and bytes of a Hugging Face `config.json` and what they take on a device. docs/costs.md has conventions,
/// assumptions and sources. In short:
///
/// - Matrix products: 2 FLOP a weight and unit forward, as many backward for gradients of inputs and again for those of
///   weights; what is frozen has no gradients of weights, and what stands before everything that trains none at all.
/// - Attention: 4 * heads * head_dim * layers FLOP a pair, backward 2.5 times that; rate by length from the device's
///   table. A token's fixed part is in `token_s`, a sequence's in `sequence_step_s`.
/// - Attention of the tower: `patch_pair_s` where it sees whole pictures and frames; windows and tiles are in
/// `patch_s`.
/// - Time: FLOP over the sustained rate, or bytes over bandwidth where that is longer.
/// - `full` recomputation adds a forward pass of layers, attention and vision blocks to backward.
///
/// Throws InputError for an unknown model family or device, a config that lacks a field, or nothing to train. `label`
/// starts the cost model's name; empty: the family.
CostReport analytic_report(std::string_view config_json, const std::string& source, const CostOptions& options,
                           const std::string& label = "");

/// The cost model of the report. Throws as analytic_report() does.
CostModel analytic_cost(std::string_view config_json, const std::string& source, const CostOptions& options);

/// A `dhp.cost/1` file, or "MODEL@DEVICE" where there is no file of that name: a model of read_model_config() counted
/// on a device of read_device(), its optimizer's state sharded over the ranks in service ("qwen3-vl-8b@h100"). Throws
/// InputError, which lists the models or the devices there are where a name is not known.
CostModel read_cost_model(const std::string& name, const Cluster& cluster);

}  // namespace dhp
