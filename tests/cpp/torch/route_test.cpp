// The simulator's senders are those of the messages that the run-time posts.

#include "sim/route.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "torch/exchange_schedule.h"

namespace dhp {
namespace {

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

TEST(Route, IsThatOfTheMessages) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  Cluster cluster;
  cluster.nodes = 5;
  cluster.ranks_per_node = 6;
  for (int trial = 0; trial < 200; ++trial) {
    Task task;
    for (Rank rank = 0; rank < cluster.ranks(); ++rank) task.ranks.push_back(rank);
    std::shuffle(task.ranks.begin(), task.ranks.end(), random);
    task.ranks.resize(1 + random() % 15);
    std::vector<std::int64_t> nodes;
    for (const Rank rank : task.ranks) nodes.push_back(cluster.node_of(rank));
    for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
      SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::string(to_string(exchange)) + ", nodes " +
                   testing::PrintToString(nodes));
      task.exchange = exchange;
      for (int position = 0; position < task.degree(); ++position) {
        std::vector<int> simulated;
        for (int step = 1; step < task.degree(); ++step) {
          simulated.push_back(senders(task, cluster, step)[static_cast<std::size_t>(position)]);
        }
        EXPECT_EQ(simulated, senders_of(make_exchange_schedule(exchange, position, nodes, true), position));
      }
      if (HasFailure()) return;
    }
  }
}

}  // namespace
}  // namespace dhp
