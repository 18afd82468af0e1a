#include "torch/attention/ring_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "torch/attention/accumulate.h"
#include "torch/attention/kernel.h"
#include "torch/attention/ring_attention_check.h"
#include "torch/attention/shard_traffic.h"
#include "torch/transport/group_call.h"

namespace dhp::rt {
namespace {

/// The first block, which has all rows: taken over as it is where it came in one, without a copy.
Accumulator first_results(const std::vector<BlockOutput>& results, const at::Tensor& q, at::ScalarType type) {
  if (results.size() == 1) return {results[0].out.to(type).contiguous(), results[0].lse.contiguous()};
  Accumulator all{at::empty(q.sizes(), q.options().dtype(type)),
                  at::empty({q.size(0), q.size(1)}, q.options().dtype(accumulate_type(q.scalar_type())))};
  for (const BlockOutput& result : results) place_block(all, result);
  return all;
}

Accumulator forward_over_group(const AttentionPass& pass, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               double scale) {
  const AttentionKernel& kernel = select_kernel(q);
  const auto type = pass.members.degree() > 1 ? accumulate_type(q.scalar_type()) : q.scalar_type();
  TravellingKeys keys(pass, k, v);
  Accumulator all;
  for (int tick = 0; tick < pass.ticks; ++tick) {
    keys.begin_tick(tick);
    const int owner = pass.owner_at(tick);
    if (owner == ExchangeSchedule::kNoBlock) continue;
    const auto segments = pass.layout.block(owner, pass.is_half(owner));
    const auto results = kernel.forward({q, keys.k(), keys.v(), segments, pass.layout.is_causal(owner), scale});
    if (owner == pass.members.position) {
      all = first_results(results, q, type);
      continue;
    }
    for (const BlockOutput& result : results) merge_block(all, result);
  }
  return all;
}

/// Gradients of one rank's rows, summed in fp32 (fp64 for fp64).
struct GradientSums {
  at::Tensor dq, dk, dv;
};

GradientSums first_gradients(const std::vector<BlockGradient>& results, const at::Tensor& q, const at::Tensor& k,
                             at::ScalarType type) {
  if (results.size() == 1) return {results[0].dq.to(type), results[0].dk.to(type), results[0].dv.to(type)};
  GradientSums sums{at::empty(q.sizes(), q.options().dtype(type)), at::empty(k.sizes(), k.options().dtype(type)),
                    at::empty(k.sizes(), k.options().dtype(type))};
  for (const BlockGradient& result : results) {
    const auto of_kv = kv_runs(result.segments);
    copy_rows(sums.dq, result.dq, q_runs(result.segments));
    copy_rows(sums.dk, result.dk, of_kv);
    copy_rows(sums.dv, result.dv, of_kv);
  }
  return sums;
}

GradientSums backward_over_group(const AttentionPass& pass, const at::Tensor& dout, const RingAttentionForward& saved,
                                 double scale) {
  const AttentionKernel& kernel = select_kernel(saved.q);
  const auto type = pass.members.degree() > 1 ? accumulate_type(saved.q.scalar_type()) : saved.q.scalar_type();
  TravellingKeys keys(pass, saved.k, saved.v);
  TravellingGradients gradients(pass, saved.k);
  GradientSums sums;
  for (int tick = 0; tick < pass.ticks; ++tick) {
    keys.begin_tick(tick);
    const int owner = pass.owner_at(tick);
    std::vector<Segment> segments;
    std::vector<BlockGradient> results;
    if (owner != ExchangeSchedule::kNoBlock) {
      segments = pass.layout.block(owner, pass.is_half(owner));
      results = kernel.backward({saved.q, keys.k(), keys.v(), segments, pass.layout.is_causal(owner), scale}, dout,
                                saved.out, saved.lse);
    }
    if (owner == pass.members.position) sums = first_gradients(results, saved.q, saved.k, type);
    gradients.take_in(tick, sums.dk, sums.dv);
    if (owner != ExchangeSchedule::kNoBlock && owner != pass.members.position) {
      for (const BlockGradient& result : results) add_rows(sums.dq, result.dq, q_runs(result.segments));
      gradients.add(owner, results);
    }
    gradients.send_on(tick);
  }
  return sums;
}

}  // namespace

at::Tensor with_unit_last_stride(const at::Tensor& tensor) {
  return tensor.dim() == 0 || tensor.stride(-1) == 1 ? tensor : tensor.contiguous();
}

RingAttentionForward ring_attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const RingAttentionCall& call) {
  RingAttentionForward result;
  run_in_group("ring_attention", call.group, call.ranks, [&](const Members& members) {
    check_ring_attention(q, k, v, call, members);
    result = {with_unit_last_stride(q), with_unit_last_stride(k), with_unit_last_stride(v), {}, {}};
    const auto pass = begin_pass(Pass::kForward, members, call, q, k);
    if (q.size(0) == 0) {
      result.out = at::empty_like(q);
      result.lse = at::empty({0, q.size(1)}, q.options().dtype(accumulate_type(q.scalar_type())));
      return;
    }
    auto all = forward_over_group(pass, result.q, result.k, result.v, call.scale);
    result.out = all.out.to(q.scalar_type());
    result.lse = all.lse;
  });
  return result;
}

RingAttentionGradient ring_attention_backward(const at::Tensor& dout, const RingAttentionForward& saved,
                                              const RingAttentionCall& call) {
  RingAttentionGradient result;
  run_in_group("ring_attention", call.group, call.ranks, [&](const Members& members) {
    const auto pass = begin_pass(Pass::kBackward, members, call, saved.q, saved.k);
    if (saved.q.size(0) == 0) {
      result = {at::empty_like(saved.q), at::empty_like(saved.k), at::empty_like(saved.v)};
      return;
    }
    const auto type = saved.q.scalar_type();
    const auto sums = backward_over_group(pass, dout.to(type).contiguous(), saved, call.scale);
    result = {sums.dq.to(type), sums.dk.to(type), sums.dv.to(type)};
  });
  return result;
}

}  // namespace dhp::rt
