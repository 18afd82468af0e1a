// place_consecutive(): groups in whole nodes wherever they can be.

#include "plan/peers/place.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "support.h"

namespace dhp::plan::plan_place_test {
namespace {

Cluster cluster_of(int nodes, int ranks_per_node) {
  Cluster cluster;
  cluster.nodes = nodes;
  cluster.ranks_per_node = ranks_per_node;
  return cluster;
}

double degree_as_cost(std::span<const int> degrees, int group) { return degrees[static_cast<std::size_t>(group)]; }

std::vector<Rank> place(const std::vector<int>& degrees, const Cluster& cluster) {
  return place_consecutive(degrees, cluster, [&](int group) { return degree_as_cost(degrees, group); });
}

bool straddles(Rank first, int degree, const Cluster& cluster) {
  return degree <= cluster.ranks_per_node && cluster.node_of(first) != cluster.node_of(first + degree - 1);
}

int straddling(const std::vector<int>& degrees, const std::vector<Rank>& first, const Cluster& cluster) {
  int count = 0;
  for (std::size_t i = 0; i < degrees.size(); ++i) count += straddles(first[i], degrees[i], cluster) ? 1 : 0;
  return count;
}

void expect_disjoint(const std::vector<int>& degrees, const std::vector<Rank>& first, const Cluster& cluster) {
  std::vector<int> users(static_cast<std::size_t>(cluster.ranks()), 0);
  for (std::size_t i = 0; i < degrees.size(); ++i) {
    ASSERT_GE(first[i], 0);
    ASSERT_LE(first[i] + degrees[i], cluster.ranks());
    for (Rank rank = first[i]; rank < first[i] + degrees[i]; ++rank) ++users[static_cast<std::size_t>(rank)];
  }
  EXPECT_LE(*std::max_element(users.begin(), users.end()), 1);
}

/// Whether the groups can be dealt to nodes without one straddling: exhaustive.
bool can_be_aligned(const std::vector<int>& degrees, std::size_t next, std::vector<int>& room) {
  if (next == degrees.size()) return true;
  for (std::size_t node = 0; node < room.size(); ++node) {
    if (room[node] < degrees[next]) continue;
    room[node] -= degrees[next];
    const bool fits = can_be_aligned(degrees, next + 1, room);
    room[node] += degrees[next];
    if (fits) return true;
  }
  return false;
}

TEST(PlanPlace, DisjointAndAsGoodAsExhaustiveSearch) {
  constexpr std::uint64_t kSeed = 7;
  test::Random random(kSeed);
  int alignable = 0;
  int missed = 0;
  for (int round = 0; round < 500; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const Cluster cluster = cluster_of(static_cast<int>(random.whole(1, 4)), static_cast<int>(random.whole(1, 8)));
    std::vector<int> degrees;
    for (int left = cluster.ranks(); left > 0;) {
      const int degree = static_cast<int>(random.whole(1, std::min(left, cluster.ranks_per_node)));
      left -= degree;
      if (random.whole(0, 9) > 0) degrees.push_back(degree);
    }
    const auto first = place(degrees, cluster);
    expect_disjoint(degrees, first, cluster);
    std::vector<int> room(static_cast<std::size_t>(cluster.nodes), cluster.ranks_per_node);
    if (!can_be_aligned(degrees, 0, room)) continue;
    ++alignable;
    missed += straddling(degrees, first, cluster) > 0 ? 1 : 0;
  }
  EXPECT_GT(alignable, 100);
  // Filling node after node is not a search: it may miss an alignment, but rarely.
  EXPECT_LE(missed * 20, alignable);
}

TEST(PlanPlace, WideGroupsFirstThenWholeNodes) {
  const Cluster cluster = cluster_of(3, 4);
  // 6 ranks from rank 0; the rest of node 1 takes the pair; node 2 takes 3 + 1.
  EXPECT_EQ(place({2, 6, 3, 1}, cluster), (std::vector<Rank>{6, 0, 8, 11}));
}

TEST(PlanPlace, FindsTheFillThatLargestFirstMisses) {
  // 4+3 would leave a hole of one in both nodes; 4+2+2 and 3+3+2 fill them.
  const std::vector<int> degrees = {4, 3, 3, 2, 2, 2};
  const Cluster cluster = cluster_of(2, 8);
  EXPECT_EQ(straddling(degrees, place(degrees, cluster), cluster), 0);
}

TEST(PlanPlace, SpendsIdleRanksOnHoles) {
  const std::vector<int> degrees = {3, 3};
  const Cluster cluster = cluster_of(2, 4);
  EXPECT_EQ(place(degrees, cluster), (std::vector<Rank>{0, 4}));
}

TEST(PlanPlace, SpendsTheLastIdleRanks) {
  // 4 ranks from rank 0 leave two in node 1, exactly as many as may stay idle; the group of three begins node 2.
  EXPECT_EQ(place({4, 3}, cluster_of(3, 3)), (std::vector<Rank>{0, 6}));
}

TEST(PlanPlace, CheapestGroupStraddles) {
  // Three groups of two on nodes of three: one must straddle.
  const std::vector<int> degrees = {2, 2, 2};
  const Cluster cluster = cluster_of(2, 3);
  const std::vector<double> cost = {3.0, 1.0, 2.0};
  const auto first =
      place_consecutive(degrees, cluster, [&](int group) { return cost[static_cast<std::size_t>(group)]; });
  EXPECT_EQ(first, (std::vector<Rank>{0, 2, 4}));
}

TEST(PlanPlace, TheCheapestStraddlesOverAndOver) {
  // As many groups of two on nodes of three, of random costs with ties, as fit without an idle rank: a pair a node,
  // then the cheapest of what waits, lower group first, where one rank is left.
  constexpr std::uint64_t kSeed = 5;
  test::Random random(kSeed);
  for (int round = 0; round < 50; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const int nodes = 2 * static_cast<int>(random.whole(1, 20));
    const std::vector<int> degrees(static_cast<std::size_t>(nodes) * 3 / 2, 2);
    std::vector<double> cost;
    for (std::size_t i = 0; i < degrees.size(); ++i) cost.push_back(static_cast<double>(random.whole(1, 5)));
    std::set<int> waiting;
    for (int group = 0; group < std::ssize(degrees); ++group) waiting.insert(group);
    std::vector<Rank> expected(degrees.size());
    for (Rank next = 0; !waiting.empty(); next += 2) {
      const auto costs_less = [&](int a, int b) {
        return cost[static_cast<std::size_t>(a)] < cost[static_cast<std::size_t>(b)];
      };
      const auto group = next % 3 == 2 ? std::min_element(waiting.begin(), waiting.end(), costs_less)  //
                                       : waiting.begin();
      expected[static_cast<std::size_t>(*group)] = next;
      waiting.erase(group);
    }
    EXPECT_EQ(place_consecutive(degrees, cluster_of(nodes, 3),
                                [&](int group) { return cost[static_cast<std::size_t>(group)]; }),
              expected);
  }
}

TEST(PlanPlace, NothingToPlace) { EXPECT_TRUE(place({}, cluster_of(2, 2)).empty()); }

}  // namespace
}  // namespace dhp::plan::plan_place_test
