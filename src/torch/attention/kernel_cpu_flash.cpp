#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include "torch/attention/kernel.h"

namespace dhp::rt {
namespace {

/// Consecutive segments that one call takes as a batch: as many rows in each, at equal distances.
struct EqualSegments {
  std::span<const Segment> segments;
  std::int64_t q_step = 0;
  std::int64_t kv_step = 0;

  /// Takes those that `all` begins with. Never empty.
  explicit EqualSegments(std::span<const Segment> all) : segments(all.first(1)) {
    for (std::size_t i = 1; i < all.size(); ++i) {
      const bool as_many = all[i].q_rows == all[0].q_rows && all[i].kv_rows == all[0].kv_rows;
      const std::int64_t q_here = all[i].q_begin - all[i - 1].q_begin;
      const std::int64_t kv_here = all[i].kv_begin - all[i - 1].kv_begin;
      const bool is_next = i == 1 ? q_here >= 0 && kv_here >= 0 : q_here == q_step && kv_here == kv_step;
      if (!as_many || !is_next) return;
      q_step = q_here;
      kv_step = kv_here;
      segments = all.first(i + 1);
    }
  }

  at::Tensor q(const at::Tensor& rows) const { return as_batch(rows, segments[0].q_begin, segments[0].q_rows, q_step); }
  at::Tensor kv(const at::Tensor& rows) const {
    return as_batch(rows, segments[0].kv_begin, segments[0].kv_rows, kv_step);
  }

 private:
  /// Rows of [T, H, D] or [T, H] as the kernel wants them, [B, H, rows, D] or [B, H, rows]: a view. The kernel reads
  /// all strides but the last, which it takes for 1 without looking; empty rows end the process by a division by zero.
  /// Both are ruled out by the caller.
  at::Tensor as_batch(const at::Tensor& tensor, std::int64_t begin, std::int64_t rows, std::int64_t step) const {
    const auto from = tensor.narrow(0, begin, rows).unsqueeze(0);
    auto sizes = from.sizes().vec();
    auto strides = from.strides().vec();
    sizes[0] = static_cast<std::int64_t>(segments.size());
    strides[0] = step * tensor.stride(0);
    return from.as_strided(sizes, strides).transpose(1, 2);
  }
};

/// The kernel allocates its results as [B, rows, H, D], so this is a view without a copy.
at::Tensor as_rows(const at::Tensor& batch) { return batch.transpose(1, 2).flatten(0, 1); }

class CpuFlashKernel final : public AttentionKernel {
 public:
  const char* name() const override { return "cpu_flash"; }

  std::vector<BlockOutput> forward(const BlockInputs& block) const override {
    std::vector<BlockOutput> results;
    for (auto left = block.segments; !left.empty();) {
      const EqualSegments batch(left);
      const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
          batch.q(block.q), batch.kv(block.k), batch.kv(block.v), 0.0, block.causal, {}, block.scale);
      results.push_back({batch.segments, as_rows(out), as_rows(lse)});
      left = left.subspan(batch.segments.size());
    }
    return results;
  }

  std::vector<BlockGradient> backward(const BlockInputs& block, const at::Tensor& dout, const at::Tensor& out,
                                      const at::Tensor& lse) const override {
    std::vector<BlockGradient> results;
    for (auto left = block.segments; !left.empty();) {
      const EqualSegments batch(left);
      const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          batch.q(dout), batch.q(block.q), batch.kv(block.k), batch.kv(block.v), batch.q(out), batch.q(lse), 0.0,
          block.causal, {}, block.scale);
      results.push_back({batch.segments, as_rows(dq), as_rows(dk), as_rows(dv)});
      left = left.subspan(batch.segments.size());
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
