#include "torch/transport/connect.h"

#include <set>

#include "exchange/exchange_schedule.h"
#include "torch/transport/device_carrier.h"
#include "torch/transport/group_call.h"

namespace dhp::rt {
namespace {

/// Positions of the other ends, and whether they are reached on the far lane.
std::set<std::pair<int, bool>> partners(const ConnectCall& call, const Members& members) {
  std::set<std::pair<int, bool>> found;
  const auto nodes = call.nodes.empty() ? std::vector<std::int64_t>(call.ranks.size(), 0) : call.nodes;
  const auto exchange = parse_exchange(call.exchange, "connect", "exchange");
  const auto schedule = shared_exchange_schedule(exchange, members.position, nodes, true);
  for (const auto* messages : {&schedule->keys, &schedule->gradients}) {
    for (const Message& message : *messages) found.emplace(message.peer, message.far);
  }
  for (int other = 0; call.rows && other < members.degree(); ++other) {
    if (other != members.position) found.emplace(other, false);
  }
  return found;
}

}  // namespace

int connect_members(const ConnectCall& call) {
  int fresh = 0;
  run_in_group("connect", call.group, call.ranks, [&](const Members& members) {
    TORCH_CHECK_VALUE(call.nodes.empty() || call.nodes.size() == call.ranks.size(), "nodes: found ", call.nodes.size(),
                      " entries, expected the node of each of the ", call.ranks.size(), " ranks, or none");
    if (members.degree() == 1) return;
    // In rounds, so that no group of transfers is too large. Both ends are in the same one: the sum is theirs.
    const auto round_of = [](int turn) { return static_cast<std::size_t>(turn * 2 / kMostCoalesced); };
    std::vector<std::vector<Contact>> contacts(round_of(members.degree()) + 1);
    for (const auto& [other, far] : partners(call, members)) {
      const int turn = (other + members.position) % members.degree();
      contacts[round_of(turn)].push_back({members.rank_at(other), far});
    }
    for (const auto& round : contacts) fresh += members.transport->connect(round, "connect");
  });
  return fresh;
}

}  // namespace dhp::rt
