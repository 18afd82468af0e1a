#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include "torch/attention/kernel.h"

namespace dhp::rt {
namespace {

/// Rows of [T, H, D] or [T, H] as the kernel wants them, [1, H, rows, D] or [1, H, rows]: a view. The kernel reads all
/// strides but the last, which it takes for 1 without looking; empty rows end the process by a division by zero. Both
/// are ruled out by the caller.
at::Tensor as_heads_first_batch(const at::Tensor& rows, std::int64_t begin, std::int64_t count) {
  return rows.narrow(0, begin, count).unsqueeze(0).transpose(1, 2);
}

/// The kernel allocates its results as [1, rows, H, D], so this is a view without a copy.
at::Tensor as_rows(const at::Tensor& batch) { return batch.transpose(1, 2).squeeze(0); }

class CpuFlashKernel final : public AttentionKernel {
 public:
  const char* name() const override { return "cpu_flash"; }

  std::vector<BlockOutput> forward(const BlockInputs& block) const override {
    std::vector<BlockOutput> results;
    results.reserve(block.segments.size());
    for (const Segment& segment : block.segments) {
      const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
          as_heads_first_batch(block.q, segment.q_begin, segment.q_rows),
          as_heads_first_batch(block.k, segment.kv_begin, segment.kv_rows),
          as_heads_first_batch(block.v, segment.kv_begin, segment.kv_rows), 0.0, block.causal, {}, block.scale);
      results.push_back({as_rows(out), as_rows(lse)});
    }
    return results;
  }

  std::vector<BlockGradient> backward(const BlockInputs& block, const at::Tensor& dout, const at::Tensor& out,
                                      const at::Tensor& lse) const override {
    std::vector<BlockGradient> results;
    results.reserve(block.segments.size());
    for (const Segment& segment : block.segments) {
      const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          as_heads_first_batch(dout, segment.q_begin, segment.q_rows),
          as_heads_first_batch(block.q, segment.q_begin, segment.q_rows),
          as_heads_first_batch(block.k, segment.kv_begin, segment.kv_rows),
          as_heads_first_batch(block.v, segment.kv_begin, segment.kv_rows),
          as_heads_first_batch(out, segment.q_begin, segment.q_rows),
          as_heads_first_batch(lse, segment.q_begin, segment.q_rows), 0.0, block.causal, {}, block.scale);
      results.push_back({as_rows(dq), as_rows(dk), as_rows(dv)});
    }
    return results;
  }
};

}  // namespace

const AttentionKernel& cpu_flash_kernel() {
  static const CpuFlashKernel kernel;
  return kernel;
}

}  // namespace dhp::rt
