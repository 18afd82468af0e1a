#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dhp {

/// Measured speed of an attention kernel at several lengths: sequences of equal length, one call.
struct AttentionTable {
  int head_dim = 0;
  bool causal = true;                   ///< a causal sequence of s tokens has s*s/2 pairs of query and key, else s*s
  int heads = 1;                        ///< of the measurement
  double backward_rate = 1.0;           ///< rate of the backward pass over the one in the table
  std::vector<double> tokens = {};      ///< lengths, ascending
  std::vector<double> flop_per_s = {};  ///< at each length
};

/// Speed of attention at any length: `sequence of s tokens` takes as long as `pairs + token_pairs * s` pairs at the
/// full rate, and `sequence_s` on top. What a token costs apart from its pairs is the part of blocks on the diagonal
/// that is masked, and what a kernel does once a row of queries.
struct AttentionRate {
  double flop_per_s = 0.0;     ///< of very long sequences
  double token_pairs = 0.0;    ///< pairs that take as long as the fixed work of one query token
  double sequence_s = 0.0;     ///< fixed time of a sequence and layer, all heads
  double backward_rate = 1.0;  ///< backward over forward rate
};

/// Fits a table: the least squares of relative errors of time, no coefficient negative, none more than there are rows.
AttentionRate fit_attention(const AttentionTable& table);

/// FLOP/s that the fit gives at this length, for sequences as in the table.
double attention_flop_per_s(const AttentionRate& rate, const AttentionTable& table, double tokens);

/// What a device achieves. `dhp.device/1` JSON:
///
///     {"format": "dhp.device/1", "name": "h100", "memory_bytes": 8e10, "memory_bytes_per_s": 3.35e12,
///      "bytes_per_value": 2, "linear_flop_per_s": 4.45e14, "launch_s": 2e-5, "sequence_launch_s": 0, "task_s": 0.02,
///      "attention": [{"head_dim": 128, "causal": true, "heads": 16, "backward_rate": 1,
///                     "tokens": [512, 1024], "flop_per_s": [1.63e14, 2.21e14]}]}
///
/// `sequence_launch_s` defaults to 0, `heads` and `backward_rate` to 1; all else is required, other fields are ignored.
struct Device {
  std::string name = {};
  double memory_bytes = 0.0;        ///< of one rank
  double memory_bytes_per_s = 0.0;  ///< to and from that memory
  int bytes_per_value = 2;          ///< of activations in training (bf16 2, fp32 4)
  double linear_flop_per_s = 0.0;   ///< dense layers in training, their element-wise kernels included
  double launch_s = 0.0;            ///< fixed cost of one attention step of one layer: kernel calls, messages
  double sequence_launch_s = 0.0;   ///< the same per packed sequence, beyond what the table holds
  double task_s = 0.0;              ///< fixed cost of a task (host work)
  std::vector<AttentionTable> attention = {};  ///< at least one, a head size each

  /// The table of the nearest head size, by ratio.
  AttentionTable attention_of(int head_dim) const;
};

/// The presets, parsed: data/devices holds them and their sources.
const std::vector<Device>& devices();

/// A file, or the name of a preset. Throws InputError.
Device read_device(const std::string& name);
Device parse_device(std::string_view text, const std::string& source);

}  // namespace dhp
