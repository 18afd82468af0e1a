#include "torch/ring_attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <array>
#include <optional>

#include "dhp/shard.h"
#include "torch/accumulate.h"
#include "torch/agreement.h"
#include "torch/group_call.h"
#include "torch/kernel.h"
#include "torch/ring_attention_check.h"

namespace dhp {
namespace {

/// The kernels read all strides but the last.
at::Tensor with_unit_last_stride(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 ? tensor : tensor.contiguous();
}

/// Keys and values in one message: [2, T, Hkv, D].
at::Tensor pack(const at::Tensor& k, const at::Tensor& v) {
  auto packed = at::empty({2, k.size(0), k.size(1), k.size(2)}, k.options());
  packed[0].copy_(k);
  packed[1].copy_(v);
  return packed;
}

/// One pass, forward or backward, around the ring.
class RingPass {
 public:
  RingPass(const Members& members, const RingAttentionCall& call, const char* direction)
      : members_(members), causal_(call.causal), doing_(std::string("ring_attention ") + direction) {
    for (const std::int64_t tokens : call.seq_tokens) shard_tokens_.push_back(shard_tokens(tokens, degree()));
  }

  int degree() const { return members_.degree(); }

  /// Steps are counted from 0, which is this rank's own block; at step j it holds the keys of j positions before it.
  bool is_causal(int step) const { return causal_ && step == 0; }

  std::vector<Segment> segments(int step) const {
    const int source = (members_.position - step + degree()) % degree();
    std::vector<Segment> segments;
    segments.reserve(shard_tokens_.size());
    std::int64_t begin = 0;
    for (const std::int64_t rows : shard_tokens_) {
      const std::int64_t half = rows / 2;
      if (step == 0 || !causal_) {
        segments.push_back({begin, rows, begin, rows});
      } else if (source < members_.position) {
        segments.push_back({begin, rows, begin, half});
      } else {
        segments.push_back({begin + half, rows - half, begin, rows});
      }
      begin += rows;
    }
    return segments;
  }

  /// Makes sure that both neighbours make the same call.
  void agree_with_neighbours(const RingAttentionCall& call, const at::Tensor& q, const at::Tensor& k) const {
    Signature signature(doing_);
    signature.add("ranks", call.ranks);
    signature.add("seq_tokens", call.seq_tokens);
    signature.add("dtype", static_cast<std::int64_t>(q.scalar_type()));
    signature.add("q heads", q.size(1));
    signature.add("kv heads", k.size(1));
    signature.add("head size", q.size(2));
    signature.add("causal", std::int64_t{call.causal});
    signature.add("scale", call.scale);
    signature.add("needs gradient", std::int64_t{call.needs_gradient});
    const Greeting greetings[] = {{members_.previous(), Direction::kReceive, &signature},
                                  {members_.next(), Direction::kSend, &signature}};
    agree(*members_.transport, greetings, doing_);
  }

  std::unique_ptr<Ticket> hand_on(Role role, const at::Tensor& outgoing, const at::Tensor& incoming, int step) const {
    const Transfer transfers[] = {{Direction::kReceive, members_.previous(), role, incoming},
                                  {Direction::kSend, members_.next(), role, outgoing}};
    return members_.transport->post(transfers, doing_ + (role == Role::kGradient ? ", key and value gradients" : "") +
                                                   ", ring step " + std::to_string(step) + " of " +
                                                   std::to_string(degree()));
  }

 private:
  const Members& members_;
  const bool causal_;
  const std::string doing_;
  std::vector<std::int64_t> shard_tokens_;
};

/// Keys and values as they come by: at each step the current ones are handed on while they are computed with.
class TravellingKeys {
 public:
  TravellingKeys(const RingPass& pass, const at::Tensor& k, const at::Tensor& v)
      : pass_(pass), k_(k), v_(v), current_(pass.degree() > 1 ? pack(k, v) : at::Tensor()) {}

  /// Starts the transfer that brings the keys of `step + 1`.
  void prefetch(int step) {
    if (step + 1 >= pass_.degree()) return;
    auto& buffer = buffers_[static_cast<std::size_t>(step % 2)];
    if (!buffer.defined()) buffer = at::empty_like(current_);
    arriving_ = buffer;
    ticket_ = pass_.hand_on(Role::kKeyValue, current_, arriving_, step + 1);
  }

  void advance() {
    ticket_->wait();
    current_ = arriving_;
    k_ = current_[0];
    v_ = current_[1];
  }

  const at::Tensor& k() const { return k_; }
  const at::Tensor& v() const { return v_; }

 private:
  const RingPass& pass_;
  at::Tensor k_, v_;
  at::Tensor current_, arriving_;
  std::array<at::Tensor, 2> buffers_;
  std::unique_ptr<Ticket> ticket_;  // after the buffers: ends before they do
};

bool covers_all_rows(const std::vector<Segment>& segments, const at::Tensor& q) {
  return segments.size() == 1 && segments[0].q_rows == q.size(0);
}

/// The first block: taken over as it is where possible, without a copy.
Accumulator first_results(std::vector<BlockOutput>&& results, const std::vector<Segment>& segments, const at::Tensor& q,
                          at::ScalarType type) {
  if (covers_all_rows(segments, q)) return {results[0].out.to(type).contiguous(), results[0].lse.contiguous()};
  Accumulator all{at::empty(q.sizes(), q.options().dtype(type)),
                  at::empty({q.size(0), q.size(1)}, q.options().dtype(accumulate_type(q.scalar_type())))};
  for (std::size_t i = 0; i < segments.size(); ++i) place_block(all, results[i], segments[i].q_begin);
  return all;
}

Accumulator forward_over_ring(const RingPass& pass, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              double scale) {
  const AttentionKernel& kernel = select_kernel(q.device());
  const auto type = pass.degree() > 1 ? accumulate_type(q.scalar_type()) : q.scalar_type();
  TravellingKeys keys(pass, k, v);
  Accumulator all;
  for (int step = 0; step < pass.degree(); ++step) {
    if (step > 0) keys.advance();
    keys.prefetch(step);
    const auto segments = pass.segments(step);
    auto results = kernel.forward({q, keys.k(), keys.v(), segments, pass.is_causal(step), scale});
    if (step == 0) {
      all = first_results(std::move(results), segments, q, type);
      continue;
    }
    for (std::size_t i = 0; i < segments.size(); ++i) merge_block(all, results[i], segments[i].q_begin);
  }
  return all;
}

void add_rows(at::Tensor& sum, const at::Tensor& rows, std::int64_t begin) {
  sum.narrow(0, begin, rows.size(0)).add_(rows);
}

/// Gradients of one rank's rows, summed in fp32 (fp64 for fp64).
struct GradientSums {
  at::Tensor dq, dk, dv;
};

GradientSums first_gradients(std::vector<BlockGradient>&& results, const std::vector<Segment>& segments,
                             const at::Tensor& q, const at::Tensor& k, at::ScalarType type) {
  if (covers_all_rows(segments, q)) return {results[0].dq.to(type), results[0].dk.to(type), results[0].dv.to(type)};
  GradientSums sums{at::empty(q.sizes(), q.options().dtype(type)), at::empty(k.sizes(), k.options().dtype(type)),
                    at::empty(k.sizes(), k.options().dtype(type))};
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    sums.dq.narrow(0, segment.q_begin, segment.q_rows).copy_(results[i].dq);
    sums.dk.narrow(0, segment.kv_begin, segment.kv_rows).copy_(results[i].dk);
    sums.dv.narrow(0, segment.kv_begin, segment.kv_rows).copy_(results[i].dv);
  }
  return sums;
}

/// The gradients of keys and values travel with them, one step behind: what a rank adds at step j to the sums of a
/// shard goes to the next rank, which adds its part at its step j + 1; after the last step they go home. The owner's
/// own part never travels.
class TravellingGradients {
 public:
  explicit TravellingGradients(const RingPass& pass) : pass_(pass) {}

  void add(int step, const std::vector<Segment>& segments, const std::vector<BlockGradient>& results,
           const at::Tensor& k) {
    at::Tensor& sum = buffer(step, k);
    if (step == 1) {
      sum.zero_();
    } else {
      ticket_->wait();
    }
    for (std::size_t i = 0; i < segments.size(); ++i) {
      sum.select(0, 0).narrow(0, segments[i].kv_begin, segments[i].kv_rows).add_(results[i].dk);
      sum.select(0, 1).narrow(0, segments[i].kv_begin, segments[i].kv_rows).add_(results[i].dv);
    }
    ticket_ = pass_.hand_on(Role::kGradient, sum, buffer(step + 1, k), step);
  }

  /// This rank's own keys: [2, T, Hkv, D].
  at::Tensor come_home() {
    ticket_->wait();
    return buffers_[static_cast<std::size_t>(pass_.degree() % 2)];
  }

 private:
  at::Tensor& buffer(int step, const at::Tensor& k) {
    auto& buffer = buffers_[static_cast<std::size_t>(step % 2)];
    if (!buffer.defined()) {
      buffer = at::empty({2, k.size(0), k.size(1), k.size(2)}, k.options().dtype(accumulate_type(k.scalar_type())));
    }
    return buffer;
  }

  const RingPass& pass_;
  std::array<at::Tensor, 2> buffers_;
  std::unique_ptr<Ticket> ticket_;  // after the buffers: ends before they do
};

GradientSums backward_over_ring(const RingPass& pass, const at::Tensor& dout, const RingAttentionForward& saved,
                                double scale) {
  const AttentionKernel& kernel = select_kernel(saved.q.device());
  const auto type = pass.degree() > 1 ? accumulate_type(saved.q.scalar_type()) : saved.q.scalar_type();
  TravellingKeys keys(pass, saved.k, saved.v);
  TravellingGradients gradients(pass);
  GradientSums sums;
  for (int step = 0; step < pass.degree(); ++step) {
    if (step > 0) keys.advance();
    keys.prefetch(step);
    const auto segments = pass.segments(step);
    auto results = kernel.backward({saved.q, keys.k(), keys.v(), segments, pass.is_causal(step), scale}, dout,
                                   saved.out, saved.lse);
    if (step == 0) {
      sums = first_gradients(std::move(results), segments, saved.q, saved.k, type);
      continue;
    }
    for (std::size_t i = 0; i < segments.size(); ++i) add_rows(sums.dq, results[i].dq, segments[i].q_begin);
    gradients.add(step, segments, results, saved.k);
  }
  if (pass.degree() > 1) {
    const auto home = gradients.come_home();
    sums.dk.add_(home[0]);
    sums.dv.add_(home[1]);
  }
  return sums;
}

}  // namespace

RingAttentionForward ring_attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                            const RingAttentionCall& call) {
  RingAttentionForward result;
  run_in_group("ring_attention", call.group, call.ranks, [&](const Members& members) {
    check_ring_attention(q, k, v, call, members);
    result = {with_unit_last_stride(q), with_unit_last_stride(k), with_unit_last_stride(v), {}, {}};
    const RingPass pass(members, call, "forward");
    if (members.transport) pass.agree_with_neighbours(call, q, k);
    if (q.size(0) == 0) {
      result.out = at::empty_like(q);
      result.lse = at::empty({0, q.size(1)}, q.options().dtype(accumulate_type(q.scalar_type())));
      return;
    }
    auto all = forward_over_ring(pass, result.q, result.k, result.v, call.scale);
    result.out = all.out.to(q.scalar_type());
    result.lse = all.lse;
  });
  return result;
}

RingAttentionGradient ring_attention_backward(const at::Tensor& dout, const RingAttentionForward& saved,
                                              const RingAttentionCall& call) {
  RingAttentionGradient result;
  run_in_group("ring_attention", call.group, call.ranks, [&](const Members& members) {
    const RingPass pass(members, call, "backward");
    if (members.transport) pass.agree_with_neighbours(call, saved.q, saved.k);
    if (saved.q.size(0) == 0) {
      result = {at::empty_like(saved.q), at::empty_like(saved.k), at::empty_like(saved.v)};
      return;
    }
    const auto type = saved.q.scalar_type();
    const auto sums = backward_over_ring(pass, dout.to(type).contiguous(), saved, call.scale);
    result = {sums.dq.to(type), sums.dk.to(type), sums.dv.to(type)};
  });
  return result;
}

}  // namespace dhp
