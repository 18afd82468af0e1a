#include "torch/attention/ring_attention_check.h"

#include <cmath>

#include "dhp/shard.h"

namespace dhp::rt {
namespace {

void check_tensor(const char* name, const at::Tensor& tensor, c10::Device device) {
  TORCH_CHECK_VALUE(tensor.dim() == 3, name, ": found shape ", tensor.sizes(),
                    ", expected [T_local, heads, head size]");
  const auto type = tensor.scalar_type();
  TORCH_CHECK_VALUE(type == at::kDouble || type == at::kFloat || type == at::kBFloat16 || type == at::kHalf, name,
                    ": found dtype ", type, ", expected float64, float32, bfloat16 or float16");
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, name, ": expected a dense tensor");
  TORCH_CHECK_VALUE(tensor.device() == device, name, ": found on ", tensor.device(), ", expected on ", device,
                    ", where the group's transport works");
  TORCH_CHECK_VALUE(tensor.size(1) > 0 && tensor.size(2) > 0, name, ": found shape ", tensor.sizes(),
                    ", expected at least one head and a head size of at least 1");
}

void check_same(const char* name, const char* what, bool same, const at::Tensor& tensor, const at::Tensor& q) {
  TORCH_CHECK_VALUE(same, name, ": its ", what, " differs from that of q: ", tensor.sizes(), " ", tensor.scalar_type(),
                    " and ", q.sizes(), " ", q.scalar_type());
}

std::int64_t check_lengths(const RingAttentionCall& call, int degree) {
  const std::int64_t multiple = degree > 1 ? 2 * std::int64_t{degree} : 1;
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < call.seq_tokens.size(); ++i) {
    const std::int64_t tokens = call.seq_tokens[i];
    TORCH_CHECK_VALUE(tokens > 0 && tokens % multiple == 0, "seq_tokens[", i, "]: found ", tokens,
                      ", expected a positive multiple of ", multiple, " for a group of ", degree,
                      " (pad sequences at their end)");
    rows += shard_tokens(tokens, degree);
  }
  return rows;
}

}  // namespace

void check_ring_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const RingAttentionCall& call,
                          const Members& members) {
  TORCH_CHECK_VALUE(call.exchange == "ring" || call.exchange == "direct" || call.exchange == "hierarchical",
                    "exchange: found \"", call.exchange, "\", expected ring, direct or hierarchical");
  TORCH_CHECK_VALUE(call.nodes.empty() || call.nodes.size() == call.ranks.size(), "nodes: found ", call.nodes.size(),
                    " entries, expected the node of each of the ", call.ranks.size(), " ranks, or none");
  TORCH_CHECK_VALUE(std::isfinite(call.scale), "scale: found ", call.scale, ", expected a finite number");
  const auto device = members.transport ? members.transport->device() : q.device();
  check_tensor("q", q, device);
  check_tensor("k", k, device);
  check_tensor("v", v, device);
  check_same("k", "dtype", k.scalar_type() == q.scalar_type(), k, q);
  check_same("v", "dtype", v.scalar_type() == q.scalar_type(), v, q);
  check_same("k", "head size", k.size(2) == q.size(2), k, q);
  TORCH_CHECK_VALUE(k.sizes() == v.sizes(), "v: found shape ", v.sizes(), ", expected that of k, ", k.sizes());
  TORCH_CHECK_VALUE(q.size(1) % k.size(1) == 0, "q: found ", q.size(1), " heads, expected a multiple of the ",
                    k.size(1), " heads of k and v");
  const std::int64_t rows = check_lengths(call, members.degree());
  TORCH_CHECK_VALUE(q.size(0) == rows, "q: found ", q.size(0), " rows, expected ", rows,
                    ": this rank's shards of seq_tokens ", c10::IntArrayRef(call.seq_tokens), " on ", members.degree(),
                    " ranks");
  check_same("k", "number of rows", k.size(0) == rows, k, q);
}

}  // namespace dhp::rt
