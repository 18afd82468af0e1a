#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace dhp::rt {

/// Attention over sequences that a group of ranks holds in zigzag shards (include/dhp/shard.h). Each rank has the
/// queries, keys and values of its own rows; every shard of keys and values comes by every rank once, in the way that
/// `exchange` names (exchange_schedule.h), which changes the result by rounding only.
///
/// With d ranks, position r has chunks r and 2d-1-r of every sequence. Of keys from an earlier position all of its
/// queries see exactly the first half, of keys from a later one its second half of queries sees all: every block is
/// full, or (its own) square causal, and all positions have the same work.
struct RingAttentionCall {
  std::vector<std::int64_t> seq_tokens;  // padded global lengths, in the order in which shards are packed
  std::vector<std::int64_t> ranks;       // world ranks in ring order
  std::string group;                     // process group that carries the traffic; may be empty for one rank
  double scale = 1;
  bool causal = true;
  std::string exchange = "ring";    // or "direct" or "hierarchical"
  std::vector<std::int64_t> nodes;  // the node of each of `ranks`, any numbers; empty: all on one. For hierarchical
  bool needs_gradient = false;      // the same on all members, since the backward pass communicates too
};

struct RingAttentionForward {
  at::Tensor q, k, v;  // the inputs as the kernels read them
  at::Tensor out;      // [T_local, Hq, D]
  at::Tensor lse;      // [T_local, Hq], fp32, or fp64 for fp64
};

/// As the kernels, which read all strides but the last, take it.
at::Tensor with_unit_last_stride(const at::Tensor& tensor);

/// q [T_local, Hq, D]; k, v [T_local, Hkv, D]. Throws c10::ValueError for a wrong call, before anything is sent, and
/// c10::DistError when the group has failed.
RingAttentionForward ring_attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const RingAttentionCall& call);

struct RingAttentionGradient {
  at::Tensor dq, dk, dv;  // shapes and dtype of q, k, v
};

/// Communicates like the forward pass: every member calls it, in the same order as the other operations of the group.
RingAttentionGradient ring_attention_backward(const at::Tensor& dout, const RingAttentionForward& saved,
                                              const RingAttentionCall& call);

}  // namespace dhp::rt
