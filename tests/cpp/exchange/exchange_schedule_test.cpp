#include "exchange/exchange_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <tuple>

namespace dhp::exchange_schedule_test {
namespace {

using Nodes = std::vector<std::int64_t>;

/// The schedules of all members of a group.
struct Group {
  Nodes nodes;
  bool causal;
  std::vector<ExchangeSchedule> schedules;

  Group(Exchange exchange, Nodes members, bool is_causal) : nodes(std::move(members)), causal(is_causal) {
    for (int i = 0; i < degree(); ++i) schedules.push_back(make_exchange_schedule(exchange, i, nodes, causal));
  }

  int degree() const { return static_cast<int>(nodes.size()); }
  const ExchangeSchedule& of(int position) const { return schedules[static_cast<std::size_t>(position)]; }
  std::int64_t node(int position) const { return nodes[static_cast<std::size_t>(position)]; }
  bool is_half(int position, int shard) const { return of(position).half[static_cast<std::size_t>(shard)]; }

  int tick_of(int position, int shard) const {
    const auto& block = of(position).block;
    return static_cast<int>(std::find(block.begin(), block.end(), shard) - block.begin());
  }
};

using Messages = std::vector<Message> ExchangeSchedule::*;

/// What one end sends the other expects, in the same order and at the same ticks; waits are later than starts.
void expect_ends_agree(const Group& group, Messages messages) {
  std::map<std::pair<int, int>, std::vector<std::tuple<int, int, int, bool, bool>>> sent;
  auto received = sent;
  for (int i = 0; i < group.degree(); ++i) {
    int last_post = 0;
    for (const Message& m : group.of(i).*messages) {
      EXPECT_NE(m.peer, i);
      EXPECT_GE(m.post, last_post);
      EXPECT_GT(m.due, m.post);
      EXPECT_LT(m.due, group.of(i).ticks);
      last_post = m.post;
      if (m.direction == Direction::kSend) {
        sent[{i, m.peer}].emplace_back(m.shard, m.post, m.due, m.half, m.far);
      } else {
        received[{m.peer, i}].emplace_back(m.shard, m.post, m.due, m.half, m.far);
      }
    }
  }
  EXPECT_EQ(sent, received);
}

/// Every member computes every block once, with a shard that has come before and holds all that it needs, and hands it
/// on only after it came.
void expect_keys_arrive(const Group& group) {
  for (int i = 0; i < group.degree(); ++i) {
    const auto& schedule = group.of(i);
    std::set<int> came{i};
    EXPECT_EQ(group.tick_of(i, i), 0);
    for (int shard = 0; shard < group.degree(); ++shard) {
      EXPECT_EQ(std::count(schedule.block.begin(), schedule.block.end(), shard), 1);
      EXPECT_LT(group.tick_of(i, shard), schedule.forward_ticks);
      if (group.is_half(i, shard)) {
        EXPECT_TRUE(group.causal && shard < i);
      }
    }
    std::map<int, int> due;
    for (const Message& m : schedule.keys) {
      EXPECT_LT(m.due, schedule.forward_ticks);
      if (m.direction == Direction::kSend) continue;
      EXPECT_TRUE(came.insert(m.shard).second) << "shard " << m.shard << " came twice";
      EXPECT_LE(m.due, group.tick_of(i, m.shard));
      EXPECT_EQ(m.half, group.is_half(i, m.shard));
      due[m.shard] = m.due;
    }
    EXPECT_EQ(came.size(), group.nodes.size());
    for (const Message& m : schedule.keys) {
      if (m.direction == Direction::kReceive || m.shard == i) continue;
      EXPECT_LE(due.at(m.shard), m.post);
      EXPECT_EQ(m.half, group.is_half(i, m.shard));
    }
  }
}

/// Replays the gradients: every member's part of every foreign shard reaches its owner exactly once.
void expect_gradients_come_home(const Group& group) {
  const int last = std::max_element(group.schedules.begin(), group.schedules.end(), [](const auto& a, const auto& b) {
                     return a.ticks < b.ticks;
                   })->ticks;
  std::map<std::pair<int, int>, std::multiset<int>> sums;             // (member, shard) -> members with a part in it
  std::map<std::tuple<int, int, int>, std::multiset<int>> under_way;  // (sender, receiver, shard) -> the same
  for (int tick = 0; tick < last; ++tick) {
    for (int i = 0; i < group.degree(); ++i) {
      if (tick >= group.of(i).ticks) continue;
      for (const Message& m : group.of(i).gradients) {
        if (m.direction == Direction::kReceive && m.due == tick) {
          EXPECT_EQ(m.half, m.shard == i ? group.is_half(m.peer, m.shard) : group.is_half(i, m.shard));
          sums[{i, m.shard}].merge(under_way[{m.peer, i, m.shard}]);
        }
      }
      const int shard = group.of(i).block[static_cast<std::size_t>(tick)];
      if (shard != ExchangeSchedule::kNoBlock && shard != i) sums[{i, shard}].insert(i);
    }
    for (int i = 0; i < group.degree(); ++i) {
      for (const Message& m : group.of(i).gradients) {
        if (m.direction != Direction::kSend || m.post != tick) continue;
        EXPECT_FALSE((sums[{i, m.shard}].empty())) << "nothing to send";
        under_way[{i, m.peer, m.shard}] = std::exchange(sums[{i, m.shard}], {});
      }
    }
  }
  for (int shard = 0; shard < group.degree(); ++shard) {
    std::multiset<int> others;
    for (int i = 0; i < group.degree(); ++i) {
      if (i != shard) others.insert(i);
    }
    EXPECT_EQ((sums[{shard, shard}]), others) << "shard " << shard;
  }
}

/// Every shard crosses to every other node once, and its gradient back once, summed.
void expect_each_crosses_once(const Group& group) {
  for (const Messages messages : {&ExchangeSchedule::keys, &ExchangeSchedule::gradients}) {
    std::map<std::pair<int, std::int64_t>, int> crossings;  // (shard, foreign node)
    for (int i = 0; i < group.degree(); ++i) {
      for (const Message& m : group.of(i).*messages) {
        if (m.direction != Direction::kSend || group.node(i) == group.node(m.peer)) continue;
        const bool is_keys = messages == &ExchangeSchedule::keys;
        EXPECT_EQ(m.shard, is_keys ? i : m.peer);
        ++crossings[{m.shard, group.node(is_keys ? m.peer : i)}];
      }
    }
    const std::set<std::int64_t> touched(group.nodes.begin(), group.nodes.end());
    EXPECT_EQ(crossings.size(), group.nodes.size() * (touched.size() - 1));
    for (const auto& [way, times] : crossings) EXPECT_EQ(times, 1) << "shard " << way.first << " to " << way.second;
  }
}

/// What a device works off as one: the messages of a member that are started and due together, on one lane.
struct Posted {
  bool far;
  std::vector<Message> messages;
};

/// All of a backward pass, in the order in which the host posts them.
std::vector<Posted> posted_by(const ExchangeSchedule& schedule) {
  std::vector<Posted> all;
  for (int tick = 0; tick < schedule.ticks; ++tick) {
    for (const auto* messages : {&schedule.keys, &schedule.gradients}) {
      const Message* last = nullptr;
      for (const Message& m : *messages) {
        if (m.post != tick) continue;
        if (last == nullptr || last->far != m.far || last->due != m.due) all.push_back({m.far, {}});
        all.back().messages.push_back(m);
        last = &m;
      }
    }
  }
  return all;
}

/// On a device that works off groups one after the other, those of a lane or (`serial`) all of them, every group gets
/// its turn: a message goes when both ends are at its group, and a group ends when all of its messages have gone.
void expect_groups_end(const Group& group, bool serial) {
  using Queue = std::vector<Posted>;
  std::vector<std::array<Queue, 2>> lanes(group.nodes.size());  // near and far, last first
  for (int i = 0; i < group.degree(); ++i) {
    auto all = posted_by(group.of(i));
    std::reverse(all.begin(), all.end());
    for (Posted& posted : all) lanes[static_cast<std::size_t>(i)][posted.far && !serial].push_back(std::move(posted));
  }
  const auto take = [&](int i, const Message& m) {  // the other end, if it is there
    for (Queue& queue : lanes[static_cast<std::size_t>(m.peer)]) {
      if (queue.empty()) continue;
      const auto other =
          std::find_if(queue.back().messages.begin(), queue.back().messages.end(), [&](const Message& o) {
            return o.peer == i && o.direction != m.direction && o.shard == m.shard && o.post == m.post &&
                   o.due == m.due;
          });
      if (other == queue.back().messages.end()) continue;
      queue.back().messages.erase(other);
      return true;
    }
    return false;
  };
  bool moves = true;
  while (std::exchange(moves, false)) {
    for (int i = 0; i < group.degree(); ++i) {
      for (Queue& queue : lanes[static_cast<std::size_t>(i)]) {
        if (queue.empty()) continue;
        moves = std::erase_if(queue.back().messages, [&](const Message& m) { return take(i, m); }) > 0 || moves;
        while (!queue.empty() && queue.back().messages.empty()) {
          queue.pop_back();
          moves = true;
        }
      }
    }
  }
  for (const auto& queues : lanes) {
    for (const Queue& queue : queues) EXPECT_TRUE(queue.empty()) << queue.size() << " groups wait for each other";
  }
}

/// Messages of keys under way to a member at once.
int most_in_flight(const ExchangeSchedule& schedule) {
  int most = 0;
  for (int tick = 0; tick < schedule.ticks; ++tick) {
    most =
        std::max(most, static_cast<int>(std::count_if(schedule.keys.begin(), schedule.keys.end(), [&](const auto& m) {
                   return m.direction == Direction::kReceive && m.post <= tick && tick < m.due;
                 })));
  }
  return most;
}

void expect_sound(Exchange exchange, const Nodes& nodes, bool causal) {
  const Group group(exchange, nodes, causal);
  expect_ends_agree(group, &ExchangeSchedule::keys);
  expect_ends_agree(group, &ExchangeSchedule::gradients);
  expect_keys_arrive(group);
  expect_gradients_come_home(group);
  if (exchange == Exchange::hierarchical) expect_each_crosses_once(group);
  for (int i = 0; i < group.degree(); ++i) {
    for (const Messages messages : {&ExchangeSchedule::keys, &ExchangeSchedule::gradients}) {
      for (const Message& m : group.of(i).*messages) {
        EXPECT_EQ(m.far, exchange == Exchange::hierarchical && group.node(i) != group.node(m.peer));
      }
    }
  }
  for (const bool serial : {true, false}) expect_groups_end(group, serial);
  for (const auto& schedule : group.schedules) {
    EXPECT_LE(most_in_flight(schedule), exchange == Exchange::ring ? 1 : exchange == Exchange::direct ? 2 : 4);
  }
}

Nodes members(const std::vector<int>& per_node) {
  Nodes nodes;
  for (std::size_t node = 0; node < per_node.size(); ++node) {
    nodes.insert(nodes.end(), static_cast<std::size_t>(per_node[node]), static_cast<std::int64_t>(node) * 7 - 3);
  }
  return nodes;
}

TEST(ExchangeSchedule, IsSoundForEveryDegreeAndLayout) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  std::vector<Nodes> layouts;
  for (int degree = 1; degree <= 12; ++degree) layouts.push_back(members({degree}));
  for (const auto& per_node : std::vector<std::vector<int>>{
           {1, 1}, {2, 2}, {3, 1}, {1, 3}, {4, 4}, {5, 2, 1}, {1, 2, 5}, {7, 1}, {1, 1, 1, 1, 1}, {3, 3, 3}, {8, 8}}) {
    layouts.push_back(members(per_node));
    for (int i = 0; i < 3; ++i) {
      layouts.push_back(layouts.back());
      std::shuffle(layouts.back().begin(), layouts.back().end(), random);
    }
  }
  for (int i = 0; i < 30; ++i) {
    Nodes nodes(1 + random() % 20);
    for (auto& node : nodes) node = static_cast<std::int64_t>(random() % 5);
    layouts.push_back(nodes);
  }
  for (const Nodes& nodes : layouts) {
    for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
      for (const bool causal : {true, false}) {
        SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::string(to_string(exchange)) + ", nodes " +
                     testing::PrintToString(nodes) + (causal ? ", causal" : ""));
        expect_sound(exchange, nodes, causal);
        if (HasFailure()) return;
      }
    }
  }
}

// Of d (d - 1) messages half are for later positions, and those are half as long.
TEST(ExchangeSchedule, DirectSendsThreeQuartersOfARing) {
  for (int degree = 2; degree <= 9; ++degree) {
    const Group group(Exchange::direct, Nodes(static_cast<std::size_t>(degree), 0), true);
    int halves = 0;
    for (const auto& schedule : group.schedules) {
      for (const Message& m : schedule.keys) halves += m.direction == Direction::kSend ? (m.half ? 1 : 2) : 0;
    }
    EXPECT_EQ(halves * 2, 3 * degree * (degree - 1));
  }
}

// On one node, and with one member on every node, there is nothing to relay.
TEST(ExchangeSchedule, HierarchicalWithoutRelaysIsDirect) {
  const auto pairs_of = [](const ExchangeSchedule& schedule) {
    std::set<std::tuple<Direction, int, int, bool>> pairs;
    for (const Message& m : schedule.keys) pairs.emplace(m.direction, m.peer, m.shard, m.half);
    return pairs;
  };
  for (int degree = 1; degree <= 8; ++degree) {
    Nodes apart(static_cast<std::size_t>(degree));
    std::iota(apart.begin(), apart.end(), 0);
    for (int i = 0; i < degree; ++i) {
      const auto direct = make_exchange_schedule(Exchange::direct, i, apart, true);
      const auto together = make_exchange_schedule(Exchange::hierarchical, i, Nodes(apart.size(), 4), true);
      EXPECT_EQ(direct.block, together.block);
      EXPECT_EQ(pairs_of(direct), pairs_of(together));
      EXPECT_EQ(pairs_of(direct), pairs_of(make_exchange_schedule(Exchange::hierarchical, i, apart, true)));
    }
  }
}

// Two nodes of four: each member relays one foreign shard, and nobody ever waits a tick without a block.
TEST(ExchangeSchedule, EvenNodesShareTheRelays) {
  const Group group(Exchange::hierarchical, members({4, 4}), false);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(group.of(i).forward_ticks, 8);
    const auto crossing = std::count_if(group.of(i).keys.begin(), group.of(i).keys.end(), [&](const Message& m) {
      return m.direction == Direction::kReceive && group.node(i) != group.node(m.peer);
    });
    EXPECT_EQ(crossing, 1);
  }
}

TEST(ExchangeSchedule, AllToAllIsNoExchangeOfShards) {
  EXPECT_THROW(make_exchange_schedule(Exchange::all_to_all, 0, {0, 0}, true), std::exception);
}

}  // namespace
}  // namespace dhp::exchange_schedule_test
