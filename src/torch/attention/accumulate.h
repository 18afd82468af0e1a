#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "torch/attention/kernel.h"

namespace dhp::rt {

/// Softmax-weighted results of rows over all blocks seen so far.
struct Accumulator {
  at::Tensor out;  // [T, Hq, D], contiguous
  at::Tensor lse;  // [T, Hq], contiguous
};

/// fp32, or fp64 for fp64.
at::ScalarType accumulate_type(at::ScalarType type);

/// Puts the first block's results of rows first_row... into place.
void place_block(Accumulator& accumulator, const BlockOutput& block, std::int64_t first_row);

/// Merges a later block's results into rows first_row..., in place: in one pass on the CPU, by tensor algebra
/// elsewhere. A row that has seen nothing yet, or sees nothing in the block, has an lse of minus infinity.
void merge_block(Accumulator& accumulator, const BlockOutput& block, std::int64_t first_row);

/// The same on any device.
void merge_block_by_algebra(Accumulator& accumulator, const BlockOutput& block, std::int64_t first_row);

}  // namespace dhp::rt
