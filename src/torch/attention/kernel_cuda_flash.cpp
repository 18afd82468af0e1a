#include <ATen/core/Tensor.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>

#include <optional>

#include "torch/attention/device_numbers.h"
#include "torch/attention/kernel.h"

namespace dhp::rt {
namespace {

constexpr std::int64_t kSizeMultiple = 8;  // head sizes, for loads of 16 bytes
constexpr std::int64_t kMostSize = 256;

/// Where each of these lengths begins, and the end of the last: int32, on the device.
at::Tensor cumulative(const std::vector<std::int64_t>& lengths, c10::Device device) {
  std::vector<std::int64_t> ends{0};
  for (const std::int64_t length : lengths) ends.push_back(ends.back() + length);
  return device_numbers(ends, at::kInt, device);
}

/// The rows of one call. Dense for one segment, [1, rows, H, D]; several are packed, [rows, H, D] with cumulative
/// lengths, gathered where gaps lie between them.
class CallRows {
 public:
  explicit CallRows(const BlockInputs& block)
      : q_runs_(q_runs(block.segments)), kv_runs_(kv_runs(block.segments)), is_dense_(block.segments.size() == 1) {
    std::vector<std::int64_t> q_rows;
    std::vector<std::int64_t> kv_rows;
    for (const Segment& segment : block.segments) {
      q_rows.push_back(segment.q_rows);
      kv_rows.push_back(segment.kv_rows);
      longest_q = std::max(longest_q, segment.q_rows);
      longest_kv = std::max(longest_kv, segment.kv_rows);
    }
    if (is_dense_) return;
    q_begins = cumulative(q_rows, block.q.device());
    kv_begins = cumulative(kv_rows, block.q.device());
  }

  at::Tensor q(const at::Tensor& tensor) const { return shaped(gather_rows(tensor, q_runs_)); }
  at::Tensor kv(const at::Tensor& tensor) const { return shaped(gather_rows(tensor, kv_runs_)); }
  /// The kernel's log-sum-exp has heads first, and its backward pass takes that layout for granted without looking at
  /// strides.
  at::Tensor lse(const at::Tensor& tensor) const {
    return shaped(gather_rows(tensor, q_runs_).transpose(0, 1).contiguous());
  }
  at::Tensor result(const at::Tensor& tensor) const { return is_dense_ ? tensor.squeeze(0) : tensor; }

  std::int64_t longest_q = 0;
  std::int64_t longest_kv = 0;
  at::Tensor q_begins;  // undefined where dense
  at::Tensor kv_begins;

 private:
  at::Tensor shaped(const at::Tensor& rows) const { return is_dense_ ? rows.unsqueeze(0) : rows; }

  std::vector<RowRun> q_runs_;
  std::vector<RowRun> kv_runs_;
  bool is_dense_;
};

std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

/// One call a block. Arguments after `scale` differ between releases of torch and are left out.
class CudaFlashKernel final : public AttentionKernel {
 public:
  const char* name() const override { return "cuda_flash"; }

  std::vector<BlockOutput> forward(const BlockInputs& block) const override {
    const CallRows rows(block);
    const auto [out, lse, rng_state, unused, debug_mask] = at::_flash_attention_forward(
        rows.q(block.q), rows.kv(block.k), rows.kv(block.v), if_defined(rows.q_begins), if_defined(rows.kv_begins),
        rows.longest_q, rows.longest_kv, 0.0, block.causal, false, block.scale);
    return {{block.segments, rows.result(out), rows.result(lse).transpose(0, 1)}};
  }

  std::vector<BlockGradient> backward(const BlockInputs& block, const at::Tensor& dout, const at::Tensor& out,
                                      const at::Tensor& lse) const override {
    const CallRows rows(block);
    const at::Tensor none;  // no state of random numbers: no dropout
    const auto [dq, dk, dv] = at::_flash_attention_backward(
        rows.q(dout), rows.q(block.q), rows.kv(block.k), rows.kv(block.v), rows.q(out), rows.lse(lse), rows.q_begins,
        rows.kv_begins, rows.longest_q, rows.longest_kv, 0.0, block.causal, none, none, block.scale);
    return {{block.segments, rows.result(dq), rows.result(dk), rows.result(dv)}};
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
  return (type == at::kHalf || type == at::kBFloat16) && size % kSizeMultiple == 0 && size <= kMostSize;
}

}  // namespace dhp::rt
