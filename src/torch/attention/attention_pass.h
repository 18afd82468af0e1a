#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "exchange/exchange_schedule.h"
#include "torch/attention/ring_attention.h"
#include "torch/attention/shard_layout.h"
#include "torch/transport/group_call.h"

namespace dhp::rt {

/// One pass, forward or backward, as one member sees it.
struct AttentionPass {
  const Members& members;
  std::string doing;     // "ring_attention forward"
  std::string exchange;  // "direct"
  ShardLayout layout;
  bool moves_gradients;
  std::shared_ptr<const ExchangeSchedule> schedule;
  int ticks;

  /// The owner of the shard to compute with, or kNoBlock.
  int owner_at(int tick) const { return schedule->block[static_cast<std::size_t>(tick)]; }
  bool is_half(int owner) const { return schedule->half[static_cast<std::size_t>(owner)]; }
};

enum class Pass { kForward, kBackward };

/// The call is a checked one. Makes sure that whoever sends to this rank makes the same call: throws c10::DistError if
/// not. `q` and `k` are this rank's.
AttentionPass begin_pass(Pass pass, const Members& members, const RingAttentionCall& call, const at::Tensor& q,
                         const at::Tensor& k);

}  // namespace dhp::rt
