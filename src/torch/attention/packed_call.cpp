#include "torch/attention/packed_call.h"

#include <ATen/EmptyTensor.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace dhp::rt {
namespace {

constexpr std::int64_t kCounts = 4;

}  // namespace

at::Tensor pack_call(const RingAttentionCall& call) {
  std::vector<std::int64_t> numbers{
      static_cast<std::int64_t>(call.seq_tokens.size()), static_cast<std::int64_t>(call.ranks.size()),
      static_cast<std::int64_t>(call.nodes.size()), static_cast<std::int64_t>(call.exchange.size())};
  numbers.insert(numbers.end(), call.seq_tokens.begin(), call.seq_tokens.end());
  numbers.insert(numbers.end(), call.ranks.begin(), call.ranks.end());
  numbers.insert(numbers.end(), call.nodes.begin(), call.nodes.end());
  numbers.insert(numbers.end(), call.exchange.begin(), call.exchange.end());
  // Not through the dispatcher: no mode that watches operators needs to see it.
  auto packed = at::Tensor(at::detail::empty_cpu({static_cast<std::int64_t>(numbers.size())}, at::kLong));
  std::copy(numbers.begin(), numbers.end(), packed.mutable_data_ptr<std::int64_t>());
  return packed;
}

RingAttentionCall unpack_call(const at::Tensor& packed, std::string group, double scale, bool causal,
                              bool needs_gradient) {
  TORCH_CHECK_VALUE(packed.device().is_cpu() && packed.scalar_type() == at::kLong && packed.dim() == 1 &&
                        packed.is_contiguous() && packed.numel() >= kCounts,
                    "ring_attention: call: expected int64 [4 + n] on the CPU, as dhp.models.attention packs it");
  const auto* at = packed.const_data_ptr<std::int64_t>();
  const auto* numbers = at + kCounts;
  std::int64_t left = packed.numel() - kCounts;
  for (std::int64_t i = 0; i < kCounts; ++i) {
    TORCH_CHECK_VALUE(at[i] >= 0 && at[i] <= left, "ring_attention: call: found ", at[i], " of ", left, " numbers");
    left -= at[i];
  }
  TORCH_CHECK_VALUE(left == 0, "ring_attention: call: found ", left, " numbers more than it says");
  const auto take = [&](std::int64_t count) { return std::exchange(numbers, numbers + count); };
  RingAttentionCall call;
  const auto* seq_tokens = take(at[0]);
  const auto* ranks = take(at[1]);
  const auto* nodes = take(at[2]);
  const auto* name = take(at[3]);
  call.seq_tokens.assign(seq_tokens, ranks);
  call.ranks.assign(ranks, nodes);
  call.nodes.assign(nodes, name);
  call.exchange.clear();
  std::transform(name, numbers, std::back_inserter(call.exchange),
                 [](std::int64_t letter) { return static_cast<char>(letter); });
  call.group = std::move(group);
  call.scale = scale;
  call.causal = causal;
  call.needs_gradient = needs_gradient;
  return call;
}

}  // namespace dhp::rt
