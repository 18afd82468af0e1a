// Who sends in which transfer: tables worked out by hand from the rules of docs/design.md, "Run-time".

#include "sim/route.h"

#include <gtest/gtest.h>

namespace dhp {
namespace {

using Table = std::vector<std::vector<int>>;  // by transfer, then by position: the position that sends

Table table_of(Exchange exchange, int ranks_per_node, std::vector<Rank> ranks) {
  Cluster cluster;
  cluster.nodes = 4;
  cluster.ranks_per_node = ranks_per_node;
  Task task;
  task.ranks = std::move(ranks);
  task.exchange = exchange;
  Table table;
  for (int step = 1; step < task.degree(); ++step) table.push_back(senders(task, cluster, step));
  return table;
}

TEST(Route, ARingHandsOnWhateverTheNodes) {
  const Table from_the_one_before = {{3, 0, 1, 2}, {3, 0, 1, 2}, {3, 0, 1, 2}};
  EXPECT_EQ(table_of(Exchange::ring, 4, {0, 1, 2, 3}), from_the_one_before);
  EXPECT_EQ(table_of(Exchange::ring, 2, {0, 1, 2, 3}), from_the_one_before);
  EXPECT_EQ(table_of(Exchange::ring, 1, {3, 0, 2, 1}), from_the_one_before);
}

TEST(Route, DirectAsksOneFartherEveryTimeWhateverTheNodes) {
  const Table farther = {{3, 0, 1, 2}, {2, 3, 0, 1}, {1, 2, 3, 0}};
  EXPECT_EQ(table_of(Exchange::direct, 4, {0, 1, 2, 3}), farther);
  EXPECT_EQ(table_of(Exchange::direct, 2, {0, 2, 1, 3}), farther);
}

TEST(Route, HierarchicalIsDirectOnOneNodeAndOnNodesOfOneMember) {
  const Table farther = {{3, 0, 1, 2}, {2, 3, 0, 1}, {1, 2, 3, 0}};
  EXPECT_EQ(table_of(Exchange::hierarchical, 4, {0, 1, 2, 3}), farther);
  // Every shard crosses by itself: the next node's first, as nobody of the own node has any.
  const Table from_the_next = {{1, 2, 3, 0}, {2, 3, 0, 1}, {3, 0, 1, 2}};
  EXPECT_EQ(table_of(Exchange::hierarchical, 1, {0, 1, 2, 3}), from_the_next);
}

// Positions 0, 1 | 2, 3. Inside first; then each member gets one shard of the other node and passes it on.
TEST(Route, HierarchicalCrossesBetweenEvenNodes) {
  EXPECT_EQ(table_of(Exchange::hierarchical, 2, {0, 1, 2, 3}), (Table{{1, 0, 3, 2}, {2, 3, 0, 1}, {1, 0, 3, 2}}));
}

// Positions 0, 1 | 2, 3, 4. Shards 2, 3, 4 are dealt to 0, 1, 0, and those of the small node to 2 and 3.
TEST(Route, HierarchicalCrossesBetweenUnevenNodes) {
  EXPECT_EQ(table_of(Exchange::hierarchical, 3, {0, 1, 3, 4, 5}), (Table{
                                                                      {1, 0, 4, 2, 3},  // inside
                                                                      {2, 3, 3, 4, 2},  // 2, 3 come over; inside
                                                                      {1, 0, 0, 1, 3},  // passed on; 0, 1 come over
                                                                      {4, 0, 3, 2, 2},  // 4 comes over; passed on
                                                                  }));
}

// Nodes of positions: 2, 0, 1, 2, 0; they count as touched: 2, 0, 1. Node 2 (0, 3) is dealt shards 1, 4, 2; node 0
// (1, 4) shards 2, 0, 3; node 1 (2) gets 0, 3, 1, 4 all by itself.
TEST(Route, HierarchicalGoesRoundThreeNodesInAnyOrder) {
  EXPECT_EQ(table_of(Exchange::hierarchical, 2, {5, 0, 2, 4, 1}), (Table{
                                                                      {3, 4, 0, 0, 1},
                                                                      {1, 2, 3, 4, 0},
                                                                      {3, 4, 1, 0, 1},
                                                                      {2, 3, 4, 0, 1},
                                                                  }));
}

TEST(Route, AllToAllHandsOnNoShards) { EXPECT_EQ(table_of(Exchange::all_to_all, 2, {0, 1, 2}), (Table{{}, {}})); }

}  // namespace
}  // namespace dhp
