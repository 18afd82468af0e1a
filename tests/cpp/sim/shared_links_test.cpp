// Streams on shared links: fair by definition, not by algorithm.

#include "sim/shared_links.h"

#include <algorithm>
#include <limits>
#include <map>

#include "support.h"

namespace dhp::sim::shared_links_test {
namespace {

struct Running {
  NodeStream stream;
  int owner = 0;
  double left_bytes = 0.0;
  double pace = 0.0;
};

/// Paces are fair if no link is overfull and every stream either has what it wants or crosses a full link on which no
/// other stream has more a rank.
void expect_fair(const Cluster& cluster, const std::map<int, Running>& running) {
  const auto links_of = [&](const NodeStream& stream) {
    std::vector<std::pair<int, double>> links;
    if (cluster.node_bandwidth_bytes_per_s > 0.0) {
      links.emplace_back(stream.from, cluster.node_bandwidth_bytes_per_s);
      links.emplace_back(cluster.nodes + stream.to, cluster.node_bandwidth_bytes_per_s);
    }
    if (cluster.switch_bandwidth_bytes_per_s > 0.0) links.emplace_back(-1, cluster.switch_bandwidth_bytes_per_s);
    return links;
  };
  std::map<int, double> used;
  std::map<int, double> most_a_rank;
  for (const auto& [number, one] : running) {
    for (const auto& [link, limit] : links_of(one.stream)) {
      used[link] += one.pace;
      most_a_rank[link] = std::max(most_a_rank[link], one.pace / one.stream.ranks);
    }
  }
  constexpr double kRounding = 1e-9;
  for (const auto& [number, one] : running) {
    EXPECT_GT(one.pace, 0.0);
    EXPECT_LE(one.pace, one.stream.pace_bytes_per_s);
    bool has_reason = one.pace == one.stream.pace_bytes_per_s;
    for (const auto& [link, limit] : links_of(one.stream)) {
      EXPECT_LE(used[link], limit * (1 + kRounding));
      has_reason = has_reason || (used[link] >= limit * (1 - kRounding) &&
                                  one.pace / one.stream.ranks >= most_a_rank[link] * (1 - kRounding));
    }
    EXPECT_TRUE(has_reason) << "stream " << number << " could be quicker";
  }
}

TEST(SharedLinks, SharesAreFairWhateverStartsAndEnds) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    Cluster cluster;
    cluster.nodes = static_cast<int>(random.whole(2, 9));
    if (seed % 3 != 0) cluster.node_bandwidth_bytes_per_s = static_cast<double>(random.whole(1, 100));
    if (seed % 3 != 1) cluster.switch_bandwidth_bytes_per_s = static_cast<double>(random.whole(1, 300));
    SharedLinks links(cluster);
    std::map<int, Running> running;
    double now_s = 0.0;
    double arrival_s = std::numeric_limits<double>::infinity();
    for (int event = 0; event < 200; ++event) {
      const bool starts = running.empty() || random.whole(0, 99) < 55;
      const double next_s = starts ? std::min(arrival_s, now_s + random.unit()) : arrival_s;
      for (auto& [number, one] : running) one.left_bytes -= one.pace * (next_s - now_s);
      now_s = next_s;
      if (arrival_s == now_s) {
        std::vector<int> arrived = links.arrive(now_s);
        EXPECT_FALSE(arrived.empty());
        std::erase_if(running, [&](const auto& entry) {
          const auto found = std::find(arrived.begin(), arrived.end(), entry.second.owner);
          if (found == arrived.end()) return false;
          EXPECT_NEAR(entry.second.left_bytes, 0.0, 1e-6);
          arrived.erase(found);
          return true;
        });
        EXPECT_TRUE(arrived.empty());
      }
      for (const auto& [number, one] : running) EXPECT_GT(one.left_bytes, 0.0);
      if (starts) {
        NodeStream stream;
        stream.from = static_cast<int>(random.whole(0, cluster.nodes - 1));
        stream.to = static_cast<int>((stream.from + random.whole(1, cluster.nodes - 1)) % cluster.nodes);
        stream.bytes = static_cast<double>(random.whole(1, 500));
        stream.pace_bytes_per_s = static_cast<double>(random.whole(1, 80));
        stream.ranks = static_cast<double>(random.whole(1, 4));
        running[links.start(stream, event, now_s)] = {stream, event, stream.bytes, 0.0};
      }
      arrival_s = links.settle(now_s);
      for (auto& [number, one] : running) one.pace = links.bytes_per_s(number);
      expect_fair(cluster, running);
      if (testing::Test::HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace dhp::sim::shared_links_test
