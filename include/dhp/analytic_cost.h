#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dhp/cost_model.h"

namespace dhp {

/// What a device achieves on large work; see `devices()`.
struct Device {
  std::string name = {};
  double linear_flop_per_s = 0.0;     ///< dense layers
  double attention_flop_per_s = 0.0;  ///< attention kernel
  double launch_s = 0.0;              ///< fixed cost of one attention step of one layer: kernel calls and messages
  double sequence_launch_s = 0.0;     ///< the same per packed sequence
  double task_s = 0.0;                ///< fixed cost of a task (host work)
  double memory_bytes = 0.0;          ///< of one rank
  int bytes_per_value = 2;            ///< of activations in training (bf16 2, fp32 4)
};

/// The presets: local-cpu, ascend-910b, h100. Sources beside each value in the table.
const std::vector<Device>& devices();

struct CostOptions {
  std::string device = "local-cpu";
  int ranks = 1;            ///< over which the optimizer state is sharded (ZeRO-1)
  bool freeze_vit = false;  ///< no backward through the vision tower
};

/// Parameters of a model by part.
struct ParameterCounts {
  std::int64_t language_body = 0;  ///< layers and last norm
  std::int64_t embeddings = 0;     ///< input embedding, and output head where the two are not tied
  std::int64_t vision = 0;         ///< tower and all mergers

  std::int64_t total() const { return language_body + embeddings + vision; }
};
ParameterCounts count_parameters(std::string_view config_json, const std::string& source);

/// Counts FLOP and bytes of a Hugging Face `config.json` (Qwen3-VL family) into a cost model. Throws InputError for an
/// unknown model family or device, or a config that lacks a field.
///
/// Conventions: full recomputation of language layers and vision blocks. Forward linear work is 2 FLOP per weight of
/// matrix products (layers, output head, vision tower); backward runs layers three times that (again, and two
/// gradients), the head twice. Attention: 4 * heads * head_dim * layers FLOP per pair, backward 3.5 times. Vision
/// attention, confined to a frame, is left out; a frozen tower runs forward only. Ring traffic: keys and values;
/// backward: them again, once more, and their gradients in fp32 (four times forward in bf16). Memory: per token the
/// input of every layer plus the larger of logits and one live layer; per rank parameters, gradients, the optimizer's
/// share of it, and a reserve of 1/16 of the device.
CostModel analytic_cost(std::string_view config_json, const std::string& source, const CostOptions& options);

}  // namespace dhp
