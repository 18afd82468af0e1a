#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dhp {

/// Speed of attention with heads of one size, at any length. A sequence of s tokens takes as long as `pairs +
/// token_pairs * s` pairs of query and key at the full rate, plus `sequence_s`; a causal sequence has s*s/2 pairs. A
/// token's cost apart from its pairs is the masked part of blocks on the diagonal and the kernel's work per row of
/// queries. Fitted to measured lengths by `fit_attention` of python/dhp/cost/fit.py.
struct AttentionRate {
  int head_dim = 0;
  double flop_per_s = 0.0;     ///< for very long sequences; 4 * head_dim FLOP per pair and head
  double token_pairs = 0.0;    ///< pairs that take as long as the fixed work of one query token
  double sequence_s = 0.0;     ///< fixed time per sequence and layer, all heads
  double backward_rate = 1.0;  ///< ratio of backward to forward rate
  bool operator==(const AttentionRate&) const = default;
};

/// The performance of a device. `dhp.device/1` JSON:
///
///     {"format": "dhp.device/1", "name": "h100", "memory_bytes": 8e10, "memory_bytes_per_s": 3.35e12,
///      "bytes_per_value": 2, "linear_flop_per_s": 4.45e14, "launch_s": 2e-5, "sequence_launch_s": 0, "task_s": 0.02,
///      "attention": [{"head_dim": 128, "flop_per_s": 3.3e14, "token_pairs": 260, "sequence_s": 7e-8,
///                     "backward_rate": 1}]}
///
/// `backward_rate` defaults to 1; `token_pairs`, `sequence_s` and `sequence_launch_s` default to 0; everything else is
/// required. Other fields are ignored: presets hold the lengths that their rates were fitted to as `measured`.
struct Device {
  std::string name = {};
  double memory_bytes = 0.0;                  ///< of one rank
  double memory_bytes_per_s = 0.0;            ///< to and from that memory
  int bytes_per_value = 2;                    ///< of activations in training (bf16 2, fp32 4)
  double linear_flop_per_s = 0.0;             ///< dense layers in training, including their element-wise kernels
  double launch_s = 0.0;                      ///< fixed cost of one attention step of one layer: kernel calls, messages
  double sequence_launch_s = 0.0;             ///< the same per packed sequence, in addition to sequence_s
  double task_s = 0.0;                        ///< fixed cost of a task (host work)
  std::vector<AttentionRate> attention = {};  ///< at least one, each for one head size

  /// The rate of the nearest head size, by ratio. There must be at least one rate, as parse_device() ensures.
  AttentionRate attention_of(int head_dim) const;
  bool operator==(const Device&) const = default;
};

/// The presets, parsed; data/devices holds them and their sources.
const std::vector<Device>& devices();

/// Reads a file, or a preset by its name in any case. Throws InputError, which lists the presets if `name` is neither.
Device read_device(const std::string& name);
/// Parses `dhp.device/1` JSON; `source` names it in errors. Throws InputError for fields missing or out of range.
Device parse_device(std::string_view text, const std::string& source);

}  // namespace dhp
