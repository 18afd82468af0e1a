#include "torch/attention/attention_pass.h"

#include <algorithm>
#include <vector>

#include "torch/transport/agreement.h"

namespace dhp::rt {
namespace {

Signature sign(const AttentionPass& pass, const RingAttentionCall& call, const at::Tensor& q, const at::Tensor& k) {
  Signature signature(pass.doing);
  signature.add("ranks", call.ranks);
  signature.add("seq_tokens", call.seq_tokens);
  signature.add("exchange", call.exchange);
  signature.add("nodes", call.nodes);
  signature.add("dtype", static_cast<std::int64_t>(q.scalar_type()));
  signature.add("q heads", q.size(1));
  signature.add("kv heads", k.size(1));
  signature.add("head size", q.size(2));
  signature.add("causal", std::int64_t{call.causal});
  signature.add("scale", call.scale);
  signature.add("needs gradient", std::int64_t{call.needs_gradient});
  return signature;
}

/// Every pair that exchanges data compares its calls. The neighbours in the ring do so first, whatever the exchange:
/// they hear from each other also where ranks differ about who sends to whom, and where the calls of a group are not
/// all equal, those of some neighbours differ.
void agree_on_pass(const AttentionPass& pass, const Signature& signature) {
  const Members& members = pass.members;
  std::vector<Greeting> greetings{{members.previous(), Direction::kReceive, &signature},
                                  {members.next(), Direction::kSend, &signature}};
  const auto greet_all = [&](const std::vector<Message>& messages) {
    for (const Message& message : messages) {
      const int peer = members.rank_at(message.peer);
      const bool known = std::any_of(greetings.begin(), greetings.end(), [&](const Greeting& greeting) {
        return greeting.peer == peer && greeting.direction == message.direction;
      });
      if (!known) greetings.push_back({peer, message.direction, &signature});
    }
  };
  greet_all(pass.schedule->keys);
  if (pass.moves_gradients) greet_all(pass.schedule->gradients);
  agree(*members.transport, greetings, pass.doing);
}

/// Compares the call with those of the group's other members, unless it repeats the one that they compared last.
void agree_once(const AttentionPass& pass, Signature signature) {
  AgreedCalls& agreed = pass.members.transport->agreed_calls();
  const SignatureWords call = signature.words();
  if (agreed.repeats(call)) return;
  signature.add("calls since the last comparison", agreed.repeats_so_far(call));
  agree_on_pass(pass, signature);
  agreed.remember(call);
}

}  // namespace

AttentionPass begin_pass(Pass direction, const Members& members, const RingAttentionCall& call, const at::Tensor& q,
                         const at::Tensor& k) {
  const bool is_forward = direction == Pass::kForward;
  const auto nodes = call.nodes.empty() ? std::vector<std::int64_t>(call.ranks.size(), 0) : call.nodes;
  const auto exchange = parse_exchange(call.exchange, "ring_attention", "exchange");
  AttentionPass pass{members,
                     is_forward ? "ring_attention forward" : "ring_attention backward",
                     call.exchange,
                     ShardLayout(call.seq_tokens, members.degree(), members.position, call.causal),
                     !is_forward,
                     shared_exchange_schedule(exchange, members.position, nodes, call.causal),
                     0};
  pass.ticks = is_forward ? pass.schedule->forward_ticks : pass.schedule->ticks;
  if (members.transport) agree_once(pass, sign(pass, call, q, k));
  return pass;
}

}  // namespace dhp::rt
