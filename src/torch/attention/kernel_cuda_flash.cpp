#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>

#include "torch/attention/kernel.h"

namespace dhp::rt {
namespace {

constexpr std::int64_t kSizeMultiple = 8;  // head sizes, for loads of 16 bytes
constexpr std::int64_t kMostSize = 256;

/// Rows of [T, H, D] as the kernel wants them, [1, rows, H, D]: a view.
at::Tensor as_batch(const at::Tensor& rows, std::int64_t begin, std::int64_t count) {
  return rows.narrow(0, begin, count).unsqueeze(0);
}

/// The kernel's log-sum-exp is [1, H, rows], and its backward pass takes that layout for granted without looking at
/// strides.
at::Tensor lse_heads_first(const at::Tensor& lse, std::int64_t begin, std::int64_t count) {
  return lse.narrow(0, begin, count).transpose(0, 1).unsqueeze(0).contiguous();
}

/// Dense calls, one a segment: the keys of a block are often halves of sequences with gaps between, which the calls for
/// packed sequences (cumulative lengths) have no way to say for queries. Arguments after `scale` differ between
/// releases of torch and are left out.
class CudaFlashKernel final : public AttentionKernel {
 public:
  const char* name() const override { return "cuda_flash"; }

  std::vector<BlockOutput> forward(const BlockInputs& block) const override {
    std::vector<BlockOutput> results;
    results.reserve(block.segments.size());
    for (const Segment& segment : block.segments) {
      const auto [out, lse, rng_state, unused, debug_mask] = at::_flash_attention_forward(
          as_batch(block.q, segment.q_begin, segment.q_rows), as_batch(block.k, segment.kv_begin, segment.kv_rows),
          as_batch(block.v, segment.kv_begin, segment.kv_rows), {}, {}, segment.q_rows, segment.kv_rows, 0.0,
          block.causal, false, block.scale);
      results.push_back({out.squeeze(0), lse.squeeze(0).transpose(0, 1)});
    }
    return results;
  }

  std::vector<BlockGradient> backward(const BlockInputs& block, const at::Tensor& dout, const at::Tensor& out,
                                      const at::Tensor& lse) const override {
    const at::Tensor none;  // no cumulative lengths: dense; no state of random numbers: no dropout
    std::vector<BlockGradient> results;
    results.reserve(block.segments.size());
    for (const Segment& segment : block.segments) {
      const auto [dq, dk, dv] = at::_flash_attention_backward(
          as_batch(dout, segment.q_begin, segment.q_rows), as_batch(block.q, segment.q_begin, segment.q_rows),
          as_batch(block.k, segment.kv_begin, segment.kv_rows), as_batch(block.v, segment.kv_begin, segment.kv_rows),
          as_batch(out, segment.q_begin, segment.q_rows), lse_heads_first(lse, segment.q_begin, segment.q_rows), none,
          none, segment.q_rows, segment.kv_rows, 0.0, block.causal, none, none, block.scale);
      results.push_back({dq.squeeze(0), dk.squeeze(0), dv.squeeze(0)});
    }
    return results;
  }
};

}  // namespace

const AttentionKernel& cuda_flash_kernel() {
  static const CudaFlashKernel kernel;
  return kernel;
}

bool cuda_flash_applies(const at::Tensor& q) {
  const auto type = q.scalar_type();
  const auto size = q.size(-1);
  return q.is_cuda() && (type == at::kHalf || type == at::kBFloat16) && size % kSizeMultiple == 0 && size <= kMostSize;
}

}  // namespace dhp::rt
