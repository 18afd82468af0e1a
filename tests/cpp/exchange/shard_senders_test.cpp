// Who sends in which transfer: tables worked out by hand from the rules of docs/design.md, "Run-time".

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "dhp/cluster.h"
#include "exchange/exchange_schedule.h"

namespace dhp::shard_senders_test {
namespace {

using Table = std::vector<std::vector<int>>;  // by transfer, then by position: the position that sends

Table table_of(Exchange exchange, int ranks_per_node, const std::vector<Rank>& ranks) {
  Cluster cluster;
  cluster.nodes = 4;
  cluster.ranks_per_node = ranks_per_node;
  std::vector<std::int64_t> nodes;
  for (const Rank rank : ranks) nodes.push_back(cluster.node_of(rank));
  return shard_senders(exchange, nodes);
}

TEST(ShardSenders, ARingHandsOnWhateverTheNodes) {
  const Table from_the_one_before = {{3, 0, 1, 2}, {3, 0, 1, 2}, {3, 0, 1, 2}};
  EXPECT_EQ(table_of(Exchange::ring, 4, {0, 1, 2, 3}), from_the_one_before);
  EXPECT_EQ(table_of(Exchange::ring, 2, {0, 1, 2, 3}), from_the_one_before);
  EXPECT_EQ(table_of(Exchange::ring, 1, {3, 0, 2, 1}), from_the_one_before);
}

TEST(ShardSenders, DirectAsksOneFartherEveryTimeWhateverTheNodes) {
  const Table farther = {{3, 0, 1, 2}, {2, 3, 0, 1}, {1, 2, 3, 0}};
  EXPECT_EQ(table_of(Exchange::direct, 4, {0, 1, 2, 3}), farther);
  EXPECT_EQ(table_of(Exchange::direct, 2, {0, 2, 1, 3}), farther);
}

TEST(ShardSenders, HierarchicalIsDirectOnOneNodeAndOnNodesOfOneMember) {
  const Table farther = {{3, 0, 1, 2}, {2, 3, 0, 1}, {1, 2, 3, 0}};
  EXPECT_EQ(table_of(Exchange::hierarchical, 4, {0, 1, 2, 3}), farther);
  // Every shard crosses by itself: the next node's first, as nobody of the own node has any.
  const Table from_the_next = {{1, 2, 3, 0}, {2, 3, 0, 1}, {3, 0, 1, 2}};
  EXPECT_EQ(table_of(Exchange::hierarchical, 1, {0, 1, 2, 3}), from_the_next);
}

// Positions 0, 1 | 2, 3. Inside first; then each member gets one shard of the other node and passes it on.
TEST(ShardSenders, HierarchicalCrossesBetweenEvenNodes) {
  EXPECT_EQ(table_of(Exchange::hierarchical, 2, {0, 1, 2, 3}), (Table{{1, 0, 3, 2}, {2, 3, 0, 1}, {1, 0, 3, 2}}));
}

// Positions 0, 1 | 2, 3, 4. Shards 2, 3, 4 are dealt to 0, 1, 0, and those of the small node to 2 and 3.
TEST(ShardSenders, HierarchicalCrossesBetweenUnevenNodes) {
  EXPECT_EQ(table_of(Exchange::hierarchical, 3, {0, 1, 3, 4, 5}), (Table{
                                                                      {1, 0, 4, 2, 3},  // inside
                                                                      {2, 3, 3, 4, 2},  // 2, 3 come over; inside
                                                                      {1, 0, 0, 1, 3},  // passed on; 0, 1 come over
                                                                      {4, 0, 3, 2, 2},  // 4 comes over; passed on
                                                                  }));
}

// Nodes of positions: 2, 0, 1, 2, 0; they count as touched: 2, 0, 1. Node 2 (0, 3) is dealt shards 1, 4, 2; node 0
// (1, 4) shards 2, 0, 3; node 1 (2) gets 0, 3, 1, 4 all by itself.
TEST(ShardSenders, HierarchicalGoesRoundThreeNodesInAnyOrder) {
  EXPECT_EQ(table_of(Exchange::hierarchical, 2, {5, 0, 2, 4, 1}), (Table{
                                                                      {3, 4, 0, 0, 1},
                                                                      {1, 2, 3, 4, 0},
                                                                      {3, 4, 1, 0, 1},
                                                                      {2, 3, 4, 0, 1},
                                                                  }));
}

TEST(ShardSenders, AllToAllHandsOnNoShards) { EXPECT_EQ(table_of(Exchange::all_to_all, 2, {0, 1, 2}), Table{}); }

/// Who sends the shard of each block after the first, in the order of blocks.
std::vector<int> senders_of(const ExchangeSchedule& schedule, int position) {
  std::vector<int> senders;
  for (const int shard : schedule.block) {
    if (shard == ExchangeSchedule::kNoBlock || shard == position) continue;
    const auto message = std::find_if(schedule.keys.begin(), schedule.keys.end(), [&](const Message& m) {
      return m.direction == Direction::kReceive && m.shard == shard;
    });
    senders.push_back(message == schedule.keys.end() ? -1 : message->peer);
  }
  return senders;
}

TEST(ShardSenders, AreThoseOfTheMessages) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<std::int64_t> nodes(1 + random() % 15);
    for (std::int64_t& node : nodes) node = static_cast<std::int64_t>(random() % 5);
    for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::string(to_string(exchange)) + ", nodes " +
                   testing::PrintToString(nodes));
      const Table table = shard_senders(exchange, nodes);
      for (std::size_t position = 0; position < nodes.size(); ++position) {
        std::vector<int> told;
        for (const auto& transfer : table) told.push_back(transfer[position]);
        const int at = static_cast<int>(position);
        EXPECT_EQ(told, senders_of(make_exchange_schedule(exchange, at, nodes, true), at));
      }
      if (HasFailure()) return;
    }
  }
}

TEST(ExchangeSchedule, IsMadeOnceForAllLayersOfATask) {
  const std::vector<std::int64_t> nodes{0, 0, 1, 1};
  const auto first = shared_exchange_schedule(Exchange::hierarchical, 2, nodes, true);
  EXPECT_EQ(first, shared_exchange_schedule(Exchange::hierarchical, 2, nodes, true));
  EXPECT_NE(first, shared_exchange_schedule(Exchange::hierarchical, 1, nodes, true));
  EXPECT_NE(first, shared_exchange_schedule(Exchange::hierarchical, 2, nodes, false));
}

}  // namespace
}  // namespace dhp::shard_senders_test
