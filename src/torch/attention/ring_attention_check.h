#pragma once

#include "torch/attention/ring_attention.h"
#include "torch/transport/group_call.h"

namespace dhp::rt {

/// Throws c10::ValueError unless the call makes sense for a member of this group.
void check_ring_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const RingAttentionCall& call,
                          const Members& members);

}  // namespace dhp::rt
