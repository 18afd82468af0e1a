#include "torch/attention/shard_layout.h"

#include <ATen/ops/empty.h>

#include "dhp/shard.h"

namespace dhp::rt {

ShardLayout::ShardLayout(const std::vector<std::int64_t>& seq_tokens, int degree, int position, bool causal)
    : causal_(causal), position_(position) {
  for (const std::int64_t tokens : seq_tokens) {
    shard_tokens_.push_back(shard_tokens(tokens, degree));
    rows_ += shard_tokens_.back();
  }
}

std::vector<Segment> ShardLayout::block(int owner, bool half) const {
  std::vector<Segment> segments;
  segments.reserve(shard_tokens_.size());
  std::int64_t begin = 0;
  for (const std::int64_t rows : shard_tokens_) {
    const std::int64_t middle = rows / 2;
    if (owner == position_ || !causal_) {
      segments.push_back({begin, rows, begin, rows});
    } else if (owner < position_) {
      segments.push_back({begin, rows, half ? begin / 2 : begin, middle});
    } else {
      segments.push_back({begin + middle, rows - middle, begin, rows});
    }
    begin += rows;
  }
  return segments;
}

at::Tensor ShardLayout::pack(const at::Tensor& k, const at::Tensor& v, bool half) const {
  auto packed = at::empty({2, rows(half), k.size(1), k.size(2)}, k.options());
  auto keys = packed.select(0, 0);
  auto values = packed.select(0, 1);
  if (!half) {
    keys.copy_(k);
    values.copy_(v);
    return packed;
  }
  std::int64_t begin = 0;
  for (const std::int64_t rows : shard_tokens_) {
    keys.narrow(0, begin / 2, rows / 2).copy_(k.narrow(0, begin, rows / 2));
    values.narrow(0, begin / 2, rows / 2).copy_(v.narrow(0, begin, rows / 2));
    begin += rows;
  }
  return packed;
}

void ShardLayout::unpack_add(const at::Tensor& packed, bool half, at::Tensor& dk, at::Tensor& dv) const {
  const auto keys = packed.select(0, 0);
  const auto values = packed.select(0, 1);
  if (!half) {
    dk.add_(keys);
    dv.add_(values);
    return;
  }
  std::int64_t begin = 0;
  for (const std::int64_t rows : shard_tokens_) {
    dk.narrow(0, begin, rows / 2).add_(keys.narrow(0, begin / 2, rows / 2));
    dv.narrow(0, begin, rows / 2).add_(values.narrow(0, begin / 2, rows / 2));
    begin += rows;
  }
}

void add_gradients(at::Tensor& packed, const std::vector<BlockGradient>& results, bool fresh) {
  const auto keys = packed.select(0, 0);
  const auto values = packed.select(0, 1);
  std::int64_t rows = 0;
  for (const BlockGradient& result : results) rows += result.dk.size(0);
  if (fresh && rows < packed.size(1)) packed.zero_();
  for (const BlockGradient& result : results) {
    const auto runs = kv_runs(result.segments);
    const auto put = fresh ? copy_rows : add_rows;
    put(keys, result.dk, runs);
    put(values, result.dv, runs);
  }
}

}  // namespace dhp::rt
