#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dhp/cost_model.h"

namespace dhp {

/// What a device achieves on large work; see `devices()`.
struct Device {
  std::string name;
  double linear_flop_per_s = 0.0;     ///< dense layers
  double attention_flop_per_s = 0.0;  ///< attention kernel
  double launch_s = 0.0;              ///< fixed cost of one kernel call
  double task_s = 0.0;                ///< fixed cost of a task (host work)
  double memory_bytes = 0.0;
  int bytes_per_value = 2;  ///< of activations in training (bf16 2, fp32 4)
};

/// The presets: local-cpu, ascend-910b, h100. Sources beside each value in the table.
const std::vector<Device>& devices();

struct CostOptions {
  std::string device = "local-cpu";
  int ranks = 1;            ///< over which the optimizer state is sharded (ZeRO-1)
  bool freeze_vit = false;  ///< no backward through the vision tower
};

/// Counts FLOP and bytes of a Hugging Face `config.json` (Qwen3-VL family) into a cost model. Throws InputError for an
/// unknown model family or device, or a config that lacks a field.
CostModel analytic_cost(std::string_view config_json, const std::string& source, const CostOptions& options);

}  // namespace dhp
