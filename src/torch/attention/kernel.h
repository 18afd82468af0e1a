#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <string>
#include <vector>

#include "torch/attention/segments.h"

namespace dhp::rt {

/// One block of attention: all q rows of each segment against all of its kv rows, or, if causal, the square lower
/// triangle (then q_rows == kv_rows). Nothing in between, so that conventions for ragged causal masks never matter.
struct BlockInputs {
  at::Tensor q;  // [T, Hq, D], last stride 1
  at::Tensor k;  // [S, Hkv, D], last stride 1; Hq is a multiple of Hkv
  at::Tensor v;  // [S, Hkv, D], last stride 1
  std::span<const Segment> segments;
  bool causal = false;
  double scale = 1;
};

/// Of some consecutive segments of a block, their rows one after the other.
struct BlockOutput {
  std::span<const Segment> segments;
  at::Tensor out;  // [q rows, Hq, D], dtype of q
  at::Tensor lse;  // [q rows, Hq], natural logarithm of the sum of exponentials; fp32, or fp64 for fp64
};

/// Of the same. The sum over all blocks gives the gradient, because `out` and `lse` are those of the whole rows.
struct BlockGradient {
  std::span<const Segment> segments;
  at::Tensor dq;  // [q rows, Hq, D], dtype of q
  at::Tensor dk;  // [kv rows, Hkv, D]
  at::Tensor dv;  // [kv rows, Hkv, D]
};

class AttentionKernel {
 public:
  AttentionKernel() = default;
  AttentionKernel(const AttentionKernel&) = delete;
  AttentionKernel& operator=(const AttentionKernel&) = delete;
  virtual ~AttentionKernel() = default;

  virtual const char* name() const = 0;  // as use_kernel takes it

  /// Results for all segments, in their order; each is of as many as a kernel takes in one call.
  virtual std::vector<BlockOutput> forward(const BlockInputs& block) const = 0;

  /// dout, out [T, Hq, D], contiguous; lse [T, Hq], contiguous: results over all blocks of each row.
  virtual std::vector<BlockGradient> backward(const BlockInputs& block, const at::Tensor& dout, const at::Tensor& out,
                                              const at::Tensor& lse) const = 0;
};

const AttentionKernel& reference_kernel();  // plain tensor algebra, any device, keeps whole score matrices
const AttentionKernel& cpu_flash_kernel();  // torch's flash attention for CPUs

/// FlashAttention on CUDA, for GPUs of compute capability 8.0 and later. Compiled and held against its contract, but
/// not yet run on a GPU.
const AttentionKernel& cuda_flash_kernel();
bool cuda_flash_applies(const at::Tensor& q);  // 16 bits, and a head size that it has

/// Ascend's npu_fusion_attention, called by its name: nothing of torch_npu is needed to build. Held against its
/// documented contract, but not yet run on an NPU.
const AttentionKernel& npu_fusion_kernel();
bool npu_fusion_applies(const at::Tensor& q);  // 16 or 32 bits, a head size that it has, and the operator is there

/// The kernel for queries like `q`: the fused one of their device where there is one, else the reference. `use_kernel`
/// ("auto", or the name of a kernel) overrides the choice in the whole process; tests do that.
const AttentionKernel& select_kernel(const at::Tensor& q);
void use_kernel(const std::string& name);

}  // namespace dhp::rt
