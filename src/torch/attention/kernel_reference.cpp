#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include <limits>

#include "torch/attention/kernel.h"

namespace dhp::rt {
namespace {

/// Intermediate results are fp32, or fp64 for fp64. Heads come first: [H, rows, D].
at::Tensor heads_first(const at::Tensor& rows, std::int64_t begin, std::int64_t count) {
  const auto type = rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return rows.narrow(0, begin, count).to(type).transpose(0, 1);
}

class ReferenceKernel final : public AttentionKernel {
 public:
  const char* name() const override { return "reference"; }

  std::vector<BlockOutput> forward(const BlockInputs& block) const override {
    std::vector<BlockOutput> results;
    for (std::size_t i = 0; i < block.segments.size(); ++i) {
      const Segment& segment = block.segments[i];
      const auto s = scores(block, segment);
      const auto lse = at::logsumexp(s, -1);  // [Hq, q_rows]
      const auto v = repeated(heads_first(block.v, segment.kv_begin, segment.kv_rows), block);
      const auto out = at::matmul(at::exp(s - lse.unsqueeze(-1)), v);
      results.push_back({block.segments.subspan(i, 1), out.transpose(0, 1).to(block.q.scalar_type()).contiguous(),
                         lse.transpose(0, 1).contiguous()});
    }
    return results;
  }

  std::vector<BlockGradient> backward(const BlockInputs& block, const at::Tensor& dout, const at::Tensor& out,
                                      const at::Tensor& lse) const override {
    std::vector<BlockGradient> results;
    const auto type = block.q.scalar_type();
    for (std::size_t i = 0; i < block.segments.size(); ++i) {
      const Segment& segment = block.segments[i];
      const auto q = heads_first(block.q, segment.q_begin, segment.q_rows);
      const auto k = repeated(heads_first(block.k, segment.kv_begin, segment.kv_rows), block);
      const auto v = repeated(heads_first(block.v, segment.kv_begin, segment.kv_rows), block);
      const auto d = heads_first(dout, segment.q_begin, segment.q_rows);
      const auto o = heads_first(out, segment.q_begin, segment.q_rows);
      const auto l = lse.narrow(0, segment.q_begin, segment.q_rows).transpose(0, 1).unsqueeze(-1);
      const auto p = at::exp(scores(block, segment) - l);
      const auto dp = at::matmul(d, v.transpose(1, 2));
      const auto ds = p * (dp - (d * o).sum(-1, true)) * block.scale;
      results.push_back({block.segments.subspan(i, 1), at::matmul(ds, k).transpose(0, 1).to(type).contiguous(),
                         summed(at::matmul(ds.transpose(1, 2), q), block).to(type),
                         summed(at::matmul(p.transpose(1, 2), d), block).to(type)});
    }
    return results;
  }

 private:
  static at::Tensor repeated(const at::Tensor& kv, const BlockInputs& block) {
    return kv.repeat_interleave(block.q.size(1) / block.k.size(1), 0);
  }

  /// [Hq, rows, D] to [rows, Hkv, D].
  static at::Tensor summed(const at::Tensor& gradient, const BlockInputs& block) {
    const auto kv_heads = block.k.size(1);
    return gradient.view({kv_heads, block.q.size(1) / kv_heads, gradient.size(1), gradient.size(2)})
        .sum(1)
        .transpose(0, 1)
        .contiguous();
  }

  static at::Tensor scores(const BlockInputs& block, const Segment& segment) {
    const auto q = heads_first(block.q, segment.q_begin, segment.q_rows);
    const auto k = repeated(heads_first(block.k, segment.kv_begin, segment.kv_rows), block);
    auto s = at::matmul(q, k.transpose(1, 2)) * block.scale;
    if (block.causal) {
      const auto later = at::ones({segment.q_rows, segment.kv_rows}, s.options().dtype(at::kBool)).triu(1);
      s = s.masked_fill(later, -std::numeric_limits<double>::infinity());
    }
    return s;
  }
};

}  // namespace

const AttentionKernel& reference_kernel() {
  static const ReferenceKernel kernel;
  return kernel;
}

}  // namespace dhp::rt
