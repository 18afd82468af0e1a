#include "torch/attention/accumulate.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/sigmoid.h>

#include <cmath>
#include <limits>

namespace dhp::rt {
namespace {

constexpr std::int64_t kRowsPerThread = 64;

/// out = out + w (block - out), w = sigmoid(block_lse - lse): the weights of the two softmax sums. `rows` counts heads
/// times tokens; `size` is the head size.
template <typename Sum, typename Value>
void merge_rows(Sum* out, Sum* lse, const Value* block_out, const Sum* block_lse, std::int64_t rows,
                std::int64_t size) {
  at::parallel_for(0, rows, kRowsPerThread, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const Sum added = block_lse[row];
      const Sum known = lse[row];
      if (added == -std::numeric_limits<Sum>::infinity()) continue;
      const Sum weight = Sum(1) / (Sum(1) + std::exp(known - added));  // 1 where known is minus infinity
      lse[row] = std::max(known, added) + std::log1p(std::exp(-std::abs(known - added)));
      Sum* const target = out + row * size;
      const Value* const source = block_out + row * size;
      for (std::int64_t i = 0; i < size; ++i) target[i] += weight * (static_cast<Sum>(source[i]) - target[i]);
    }
  });
}

}  // namespace

at::ScalarType accumulate_type(at::ScalarType type) { return type == at::kDouble ? at::kDouble : at::kFloat; }

void place_block(Accumulator& accumulator, const BlockOutput& block) {
  const auto runs = q_runs(block.segments);
  copy_rows(accumulator.out, block.out, runs);
  copy_rows(accumulator.lse, block.lse, runs);
}

void merge_block_by_algebra(Accumulator& accumulator, const BlockOutput& block) {
  const auto runs = q_runs(block.segments);
  auto out = gather_rows(accumulator.out, runs);
  auto lse = gather_rows(accumulator.lse, runs);
  const auto weight = at::sigmoid(block.lse - lse);
  at::logaddexp_out(lse, lse, block.lse);
  out.lerp_(block.out.to(out.scalar_type()), weight.unsqueeze(-1).expand_as(out));
  if (runs.size() == 1) return;  // views
  copy_rows(accumulator.out, out, runs);
  copy_rows(accumulator.lse, lse, runs);
}

void merge_block(Accumulator& accumulator, const BlockOutput& block) {
  if (!accumulator.out.is_cpu()) return merge_block_by_algebra(accumulator, block);
  const auto heads = block.out.size(1);
  const auto size = block.out.size(2);
  const auto block_out = block.out.contiguous();
  const auto block_lse = block.lse.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, block_out.scalar_type(), "dhp_merge_block", [&] {
    using Sum = std::conditional_t<std::is_same_v<scalar_t, double>, double, float>;
    for (const RowRun& run : q_runs(block.segments)) {
      merge_rows<Sum, scalar_t>(accumulator.out.mutable_data_ptr<Sum>() + run.to * heads * size,
                                accumulator.lse.mutable_data_ptr<Sum>() + run.to * heads,
                                block_out.const_data_ptr<scalar_t>() + run.from * heads * size,
                                block_lse.const_data_ptr<Sum>() + run.from * heads, run.rows * heads, size);
    }
  });
}

}  // namespace dhp::rt
