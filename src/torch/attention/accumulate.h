#pragma once

#include <ATen/core/Tensor.h>

#include "torch/attention/kernel.h"

namespace dhp::rt {

/// Softmax-weighted results of rows over all blocks seen so far.
struct Accumulator {
  at::Tensor out;  // [T, Hq, D], contiguous
  at::Tensor lse;  // [T, Hq], contiguous
};

/// fp32, or fp64 for fp64.
at::ScalarType accumulate_type(at::ScalarType type);

/// Puts results of the first block into place.
void place_block(Accumulator& accumulator, const BlockOutput& block);

/// Merges results of a later block, in place: in one pass on the CPU, by tensor algebra elsewhere. On the CPU a
/// row that has seen nothing yet, or sees nothing in the block, has an lse of minus infinity.
void merge_block(Accumulator& accumulator, const BlockOutput& block);

/// The same on any device, for rows that see something: all do, since a block is full or a square triangle.
void merge_block_by_algebra(Accumulator& accumulator, const BlockOutput& block);

}  // namespace dhp::rt
