#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "torch/attention/kernel.h"

namespace dhp::rt {

/// How the sequences of a task lie in a shard (zigzag, include/dhp/shard.h), which part of whose shard a rank's queries
/// see, and how shards of keys and values travel: [2, rows, Hkv, D], keys first, all sequences one after the other. A
/// half shard has the first half of each sequence's rows.
class ShardLayout {
 public:
  /// `seq_tokens` are padded lengths; `position` is this rank's in a group of `degree`.
  ShardLayout(const std::vector<std::int64_t>& seq_tokens, int degree, int position, bool causal);

  std::int64_t rows(bool half) const { return half ? rows_ / 2 : rows_; }

  /// Only a rank's own block is; all others are full.
  bool is_causal(int owner) const { return causal_ && owner == position_; }

  /// This rank's queries against the shard of `owner`, held as a half shard or not.
  std::vector<Segment> block(int owner, bool half) const;

  at::Tensor pack(const at::Tensor& k, const at::Tensor& v, bool half) const;

  /// Adds travelled gradients of this rank's own shard to dk and dv.
  void unpack_add(const at::Tensor& packed, bool half, at::Tensor& dk, at::Tensor& dv) const;

 private:
  const bool causal_;
  const int position_;
  std::vector<std::int64_t> shard_tokens_;  // by sequence
  std::int64_t rows_ = 0;
};

/// Adds the gradients of a block to travelling ones, or, if `fresh`, takes them for the first. Keys and values of other
/// segments count as zero.
void add_gradients(at::Tensor& packed, const std::vector<BlockGradient>& results, bool fresh);

}  // namespace dhp::rt
