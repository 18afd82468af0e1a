#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "dhp/cost_model.h"

namespace dhp {

/// Who holds which shard of keys and values when, and where it goes from there.
///
/// All members of a group count the same ticks. In a tick a member computes at most one block, its queries with one
/// shard: its own at tick 0, every other one at some later tick. A message has two ticks: both of its ends start it at
/// `post`, and count on it from `due` on. Every end follows the same rules from the same call, so the ends agree
/// without asking; and since a wait at a tick is for what both ends started at an earlier one, waits cannot form a
/// cycle.
///
/// - ring: shards are handed on from neighbour to neighbour, and their gradients after them, one tick behind.
/// - direct: shard s goes straight to position s + j at tick j, and the gradient straight back.
/// - hierarchical: inside a node as direct. A shard of another node goes to one member of the node, its gateway; the
///   foreign shards of a node are dealt to its g members in turn, and every g ticks the members pass the ones that
///   they have got meanwhile on to each other, as direct. Gradients are summed by the gateway on their way back.
///   Members may stand in any order, and nodes may have different numbers of them.
///
/// Whose shard a member computes with, by tick; `*` has just come from the other node:
///
///     ring of 4           tick 0 1 2 3      hierarchical, nodes 0 1 | 2 3    tick 0 1 2  3
///                     member 0 0 3 2 1                                   member 0 0 1 2* 3
///                            1 1 0 3 2                                          1 1 0 3* 2
///                            2 2 1 0 3                                          2 2 3 0* 1
///                            3 3 2 1 0                                          3 3 2 1* 0
///
/// In the ring each shard moves on by one member a tick. In the other, members 0 and 1 get one shard of node 1 each at
/// tick 2 (posted at tick 0, while they compute) and pass it on to each other for tick 3: a shard crosses once a node.

enum class Direction { kSend, kReceive };

/// A shard, or its gradient, between this member and another.
struct Message {
  Direction direction;
  int peer;   // position in the group
  int shard;  // position of its owner
  int post;
  int due;
  bool half;  // the first half of each sequence alone: all that queries of later positions see
  bool far;   // crosses to another node, and has several ticks for that: nothing near may wait for it
};

struct ExchangeSchedule {
  static constexpr int kNoBlock = -1;

  int forward_ticks = 0;           // until every block is computed and every message of keys is done
  int ticks = 0;                   // the same with the gradients
  std::vector<int> block;          // per tick: the owner of the shard to compute with, or kNoBlock
  std::vector<bool> half;          // per owner: the shard is held here as its first halves alone
  std::vector<Message> keys;       // by post, far, due, owner; hence messages between two ranks meet in order
  std::vector<Message> gradients;  // the same
};

/// The part of the member at `position`. `nodes` has the node of every member; only hierarchical looks at it. Messages
/// of halves are for causal attention alone. Throws InputError for all_to_all, which moves heads and not shards.
ExchangeSchedule make_exchange_schedule(Exchange exchange, int position, const std::vector<std::int64_t>& nodes,
                                        bool causal);

/// The same, kept for the next call: a task asks for it in every layer and pass. Any thread may call it.
std::shared_ptr<const ExchangeSchedule> shared_exchange_schedule(Exchange exchange, int position,
                                                                 const std::vector<std::int64_t>& nodes, bool causal);

/// By transfer, 0 to degree - 2, and by position: from whom the member gets a shard. Of all_to_all nobody hands any on.
std::vector<std::vector<int>> shard_senders(Exchange exchange, const std::vector<std::int64_t>& nodes);

}  // namespace dhp
