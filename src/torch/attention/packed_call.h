#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "torch/attention/ring_attention.h"

namespace dhp::rt {

/// What of a call changes from task to task, as one tensor on the host: int64 [4 + n], the numbers of sequences, ranks,
/// nodes and characters of the exchange's name, then these. To a program that is traced it is data; lists would be part
/// of the program, which would then be another one for every task.
at::Tensor pack_call(const RingAttentionCall& call);

/// The call of such a tensor; what is not in it is the caller's. Throws c10::ValueError for another tensor.
RingAttentionCall unpack_call(const at::Tensor& packed, std::string group, double scale, bool causal,
                              bool needs_gradient);

}  // namespace dhp::rt
