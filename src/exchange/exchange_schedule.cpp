#include "exchange/exchange_schedule.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "dhp/error.h"

namespace dhp {
namespace {

/// Transfers that a member has under way at once inside a node, in each direction.
constexpr int kInFlight = 2;

/// How a shard reaches one member, and where its gradient goes from there.
struct Route {
  int from;
  int post;
  int due;  // also the tick of the block
  bool half;
  int gradient_to;
  int gradient_post;
  int gradient_due;
  bool far = false;
};

struct Routes {
  std::function<Route(int receiver, int shard)> route;
  std::vector<int> near;  // members that may hand on other members' shards to this one or get them from it
};

Routes ring_routes(int position, int degree) {
  const auto route = [degree](int receiver, int shard) -> Route {
    const int step = (receiver - shard + degree) % degree;
    return {.from = (receiver + degree - 1) % degree,
            .post = step - 1,
            .due = step,
            .half = false,  // somebody farther on needs the rest
            .gradient_to = (receiver + 1) % degree,
            .gradient_post = step,
            .gradient_due = step + 1};
  };
  return {route, {(position + degree - 1) % degree, (position + 1) % degree}};
}

/// The members of a group by node. Nodes are numbered in the order in which the group first touches them.
class NodeMap {
 public:
  explicit NodeMap(const std::vector<std::int64_t>& nodes) {
    std::map<std::int64_t, std::size_t> numbers;
    for (const std::int64_t node : nodes) {
      const auto number = numbers.emplace(node, numbers.size()).first->second;
      if (number == members_.size()) members_.emplace_back();
      places_.push_back({number, static_cast<int>(members_[number].size())});
      members_[number].push_back(static_cast<int>(places_.size()) - 1);
    }
    int before = 0;
    for (const auto& members : members_) {
      begins_.push_back(before);
      before += static_cast<int>(members.size());
    }
  }

  struct Place {
    std::size_t node;
    int index;  // among the members of the node
  };

  int degree() const { return static_cast<int>(places_.size()); }
  Place place(int position) const { return places_[static_cast<std::size_t>(position)]; }
  const std::vector<int>& members(std::size_t node) const { return members_[node]; }

  /// Counts the shards of other nodes, beginning after `node`: so that not all nodes ask the same one first.
  int foreign_index(std::size_t node, int shard) const {
    const Place owner = place(shard);
    const int ahead = begins_[owner.node] - begins_[node] - static_cast<int>(members_[node].size());
    return (ahead + 2 * degree()) % degree() + owner.index;
  }

 private:
  std::vector<Place> places_;              // by position
  std::vector<std::vector<int>> members_;  // positions, ascending, by node
  std::vector<int> begins_;                // members of the nodes before, by node
};

/// Members of a node hold one shard each from tick `begin` on, and pass them on to each other.
Route inside_route(int from, int offset, int begin, bool half) {
  const int due = begin + offset;
  return {.from = from,
          .post = std::max(begin, due - kInFlight),
          .due = due,
          .half = half,
          .gradient_to = from,
          .gradient_post = due,
          .gradient_due = due + kInFlight};
}

/// From the owner to the gateway of another node of `size` members, in time for the shard's turn at tick `begin`.
Route crossing_route(int owner, int size, int begin, bool half) {
  const int travel = std::max(size, kInFlight);
  const int complete = size == 1 ? begin : begin + size - 1 + kInFlight;  // the gradients of all members are here
  return {.from = owner,
          .post = std::max(0, begin - travel),
          .due = begin,
          .half = half,
          .gradient_to = owner,
          .gradient_post = complete,
          .gradient_due = complete + travel,
          .far = true};
}

Route node_route(const NodeMap& map, bool causal, int receiver, int shard) {
  const auto [node, index] = map.place(receiver);
  const auto owner = map.place(shard);
  const auto& members = map.members(node);
  const int size = static_cast<int>(members.size());
  if (owner.node == node) {
    return inside_route(shard, (index - owner.index + size) % size, 0, causal && shard < receiver);
  }
  const int turn = map.foreign_index(node, shard);
  const int begin = (turn / size + 1) * size;
  const bool half = causal && shard < members.front();  // the gateway passes on what all members need
  const int offset = (index - turn % size + size) % size;
  if (offset == 0) return crossing_route(shard, size, begin, half);
  return inside_route(members[static_cast<std::size_t>(turn % size)], offset, begin, half);
}

Routes node_routes(int position, const std::vector<std::int64_t>& nodes, bool causal) {
  const auto map = std::make_shared<const NodeMap>(nodes);
  return {[map, causal](int receiver, int shard) { return node_route(*map, causal, receiver, shard); },
          map->members(map->place(position).node)};
}

Routes make_routes(Exchange exchange, int position, const std::vector<std::int64_t>& nodes, bool causal) {
  switch (exchange) {
    case Exchange::ring:
      return ring_routes(position, static_cast<int>(nodes.size()));
    case Exchange::direct:
      return node_routes(position, std::vector<std::int64_t>(nodes.size(), 0), causal);
    case Exchange::hierarchical:
      return node_routes(position, nodes, causal);
    case Exchange::all_to_all:
      break;
  }
  throw InputError("exchange", "", "all_to_all moves heads, not shards: it has no schedule of shards");
}

/// Adds what `position` has to do with the way of `shard` to `receiver` and of the gradient back.
void add_messages(ExchangeSchedule& schedule, const Route& route, int position, int receiver, int shard) {
  const auto add = [&](std::vector<Message>& messages, int sender, int target, int post, int due) {
    if (position == sender) messages.push_back({Direction::kSend, target, shard, post, due, route.half, route.far});
    if (position == target) messages.push_back({Direction::kReceive, sender, shard, post, due, route.half, route.far});
  };
  add(schedule.keys, route.from, receiver, route.post, route.due);
  add(schedule.gradients, receiver, route.gradient_to, route.gradient_post, route.gradient_due);
}

int last_due(const std::vector<Message>& messages) {
  int last = 0;
  for (const Message& message : messages) last = std::max(last, message.due);
  return last;
}

}  // namespace

ExchangeSchedule make_exchange_schedule(Exchange exchange, int position, const std::vector<std::int64_t>& nodes,
                                        bool causal) {
  const int degree = static_cast<int>(nodes.size());
  const auto [route, near] = make_routes(exchange, position, nodes, causal);
  ExchangeSchedule schedule;
  schedule.half.assign(nodes.size(), false);
  std::vector<std::pair<int, int>> blocks{{0, position}};
  for (int receiver = 0; receiver < degree; ++receiver) {
    const bool any_shard = receiver == position || std::find(near.begin(), near.end(), receiver) != near.end();
    for (int shard = any_shard ? 0 : position; shard < (any_shard ? degree : position + 1); ++shard) {
      if (shard == receiver) continue;
      const Route way = route(receiver, shard);
      add_messages(schedule, way, position, receiver, shard);
      if (receiver != position) continue;
      blocks.emplace_back(way.due, shard);
      schedule.half[static_cast<std::size_t>(shard)] = way.half;
    }
  }
  const auto by_time = [](const Message& a, const Message& b) {
    return std::tie(a.post, a.far, a.due, a.shard, a.peer) < std::tie(b.post, b.far, b.due, b.shard, b.peer);
  };
  std::sort(schedule.keys.begin(), schedule.keys.end(), by_time);
  std::sort(schedule.gradients.begin(), schedule.gradients.end(), by_time);
  schedule.forward_ticks = std::max(std::max_element(blocks.begin(), blocks.end())->first, last_due(schedule.keys)) + 1;
  schedule.ticks = std::max(schedule.forward_ticks, last_due(schedule.gradients) + 1);
  schedule.block.assign(static_cast<std::size_t>(schedule.ticks), ExchangeSchedule::kNoBlock);
  for (const auto& [tick, shard] : blocks) schedule.block[static_cast<std::size_t>(tick)] = shard;
  return schedule;
}

std::shared_ptr<const ExchangeSchedule> shared_exchange_schedule(Exchange exchange, int position,
                                                                 const std::vector<std::int64_t>& nodes, bool causal) {
  using Key = std::tuple<Exchange, int, std::vector<std::int64_t>, bool>;
  static std::mutex mutex;
  static std::map<Key, std::shared_ptr<const ExchangeSchedule>> kept;
  // More than the tasks of a rank in a step. A schedule of 512 members takes some 100 KB.
  constexpr std::size_t kMost = 256;
  const std::scoped_lock lock(mutex);
  Key key(exchange, position, nodes, causal);
  if (const auto found = kept.find(key); found != kept.end()) return found->second;
  auto made = std::make_shared<const ExchangeSchedule>(make_exchange_schedule(exchange, position, nodes, causal));
  if (kept.size() == kMost) kept.clear();
  return kept.emplace(std::move(key), std::move(made)).first->second;
}

std::vector<std::vector<int>> shard_senders(Exchange exchange, const std::vector<std::int64_t>& nodes) {
  if (exchange == Exchange::all_to_all || nodes.empty()) return {};
  const std::size_t degree = nodes.size();
  std::vector<std::vector<int>> senders(degree - 1, std::vector<int>(degree));
  for (std::size_t receiver = 0; receiver < degree; ++receiver) {
    const int position = static_cast<int>(receiver);
    const Routes routes = make_routes(exchange, position, nodes, true);
    std::vector<std::pair<int, int>> by_due;
    for (int shard = 0; shard < static_cast<int>(degree); ++shard) {
      if (shard == position) continue;
      const Route route = routes.route(position, shard);
      by_due.emplace_back(route.due, route.from);
    }
    std::sort(by_due.begin(), by_due.end());
    for (std::size_t step = 0; step < by_due.size(); ++step) senders[step][receiver] = by_due[step].second;
  }
  return senders;
}

}  // namespace dhp
