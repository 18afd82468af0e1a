#include "sim/program.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/number_limits.h"
#include "cost/transfer.h"

namespace dhp::sim {
namespace {

/// How many members of a group each node has that has any, by node.
std::map<int, int> members_by_node(const Cluster& cluster, const std::vector<Rank>& ranks) {
  std::map<int, int> members;
  for (const Rank rank : ranks) ++members[cluster.node_of(rank)];
  return members;
}

NodeStream stream(int from, int to, double bytes, double seconds, double ranks) {
  // What takes no time that a double can say is held up by shared links alone.
  const double pace = seconds > 0.0 ? bytes / seconds : kInfinity;
  return {.from = from, .to = to, .bytes = bytes, .pace_bytes_per_s = pace, .ranks = ranks};
}

/// A ring hands on a shard a step: as many from node to node as there are neighbours on them.
std::vector<NodeStream> ring_streams(const Cluster& cluster, const Task& task, double shard_bytes) {
  std::map<std::pair<int, int>, int> hops;
  for (std::size_t i = 0; i < task.ranks.size(); ++i) {
    const int from = cluster.node_of(task.ranks[i]);
    const int to = cluster.node_of(task.ranks[(i + 1) % task.ranks.size()]);
    if (from != to) ++hops[{from, to}];
  }
  const double seconds = shard_bytes / cluster.inter_node.bandwidth_bytes_per_s;
  std::vector<NodeStream> streams;
  streams.reserve(hops.size());
  for (const auto& [nodes, count] : hops) {
    streams.push_back(stream(nodes.first, nodes.second, count * shard_bytes, seconds, count));
  }
  return streams;
}

/// Every node sends to every other node of the group, `crossings(receivers)` times each shard of its members in the
/// whole pass, which takes at least `pass_s`. A transfer is one of degree - 1 equal shares of that.
template <typename Crossings>
std::vector<NodeStream> all_pairs(const Cluster& cluster, const Task& task, double shard_bytes, double pass_s,
                                  const Crossings& crossings) {
  const std::map<int, int> members = members_by_node(cluster, task.ranks);
  double all = 0.0;
  for (const auto& [node, count] : members) all += crossings(count);
  const double share = 1.0 / (task.degree() - 1);
  std::vector<NodeStream> streams;
  for (const auto& [from, senders] : members) {
    for (const auto& [to, receivers] : members) {
      if (from == to) continue;
      const double times = crossings(receivers);
      // A rank that sends to several nodes at once counts as one rank in all.
      const double ranks = senders * times / (all - crossings(senders));
      streams.push_back(stream(from, to, senders * times * shard_bytes * share, pass_s * share, ranks));
    }
  }
  return streams;
}

std::vector<NodeStream> streams_of(const Cluster& cluster, const Task& task, const GroupShape& shape,
                                   double shard_bytes) {
  if (shape.nodes == 1 || !(shard_bytes > 0.0)) return {};
  const double shard_s = shard_bytes / cluster.inter_node.bandwidth_bytes_per_s;
  if (task.exchange == Exchange::direct) {
    return all_pairs(cluster, task, shard_bytes, (shape.degree - shape.fewest_on_node) * shard_s,
                     [](int receivers) { return static_cast<double>(receivers); });
  }
  if (task.exchange == Exchange::hierarchical) {
    const double relayed = std::ceil(static_cast<double>(shape.most_on_node) / shape.fewest_on_node);
    return all_pairs(cluster, task, shard_bytes, (shape.nodes - 1) * relayed * shard_s, [](int) { return 1.0; });
  }
  return ring_streams(cluster, task, shard_bytes);
}

/// Messages that a member has under way at once, as src/exchange/exchange_schedule.cpp posts them.
int messages_ahead(Exchange exchange, const GroupShape& shape) {
  if (exchange == Exchange::ring) return 1;
  return exchange == Exchange::hierarchical && shape.nodes > 1 ? std::max(2, shape.most_on_node) : 2;
}

/// One of the degree - 1 transfers of a pass.
Transfer shard_transfer(const CostModel& cost, const Cluster& cluster, const GroupShape& shape, const Task& task,
                        double shard_bytes) {
  const double transfers = shape.degree - 1;
  return {.latency_s = transfer_latency_s(cost, cluster, shape) / transfers,
          .bytes_s = shard_bytes * transfer_seconds_per_byte(cluster, shape, task.exchange) / transfers,
          .bytes = shape.degree * shard_bytes,
          .streams = streams_of(cluster, task, shape, shard_bytes)};
}

/// One of the two exchanges of a pass of all_to_all, before attention and after it.
Transfer heads_transfer(const Cluster& cluster, const GroupShape& shape, const Task& task, const AllToAll& both) {
  Transfer transfer{.latency_s = both.latency_s / 2,
                    .bytes_s = both.bytes_s / 2,
                    .bytes = shape.degree * both.bytes / 2,
                    .streams = {}};
  if (shape.nodes == 1 || !(both.bytes > 0.0)) return transfer;
  const std::map<int, int> members = members_by_node(cluster, task.ranks);
  for (const auto& [from, senders] : members) {
    for (const auto& [to, receivers] : members) {
      if (from == to) continue;
      const double bytes = senders * receivers * both.bytes / 2 / (shape.degree - 1);
      const double ranks = static_cast<double>(senders) * receivers / (shape.degree - senders);
      transfer.streams.push_back(stream(from, to, bytes, transfer.bytes_s, ranks));
    }
  }
  return transfer;
}

class ProgramWriter {
 public:
  ProgramWriter(const CostModel& cost, const Cluster& cluster, const Load& load, const Task& task)
      : cost_(cost),
        cluster_(cluster),
        load_(load),
        task_(task),
        shape_(with_residual(cost, load, shape_of(cluster, task.ranks))) {}

  Program write() {
    lead(Segment::Kind::task, cost_.task_s / shape_.speed);
    lead(Segment::Kind::vision, vision_seconds(cost_, load_).on(shape_.degree) / shape_.speed);
    add_pass(cost_.forward, false);
    add_pass(cost_.backward, true);
    return std::move(program_);
  }

 private:
  void lead(Segment::Kind kind, double seconds) {
    if (seconds == 0.0) return;
    Part part;
    part.kind = kind;
    part.lead_s = seconds;
    program_.push_back(std::move(part));
  }

  void add_pass(const PassCost& pass, bool backward) {
    const double degree = shape_.degree;
    Part part;
    part.kind = Segment::Kind::linear;
    part.backward = backward;
    part.lead_s = pass.token_s * load_.tokens / degree / shape_.speed;
    const double attention_s = pass.pair_s * load_.tokens_squared / (2 * degree) / shape_.speed;
    const double fixed_s = (pass.step_s + load_.sequences * pass.sequence_step_s) / shape_.speed;
    if (task_.exchange == Exchange::all_to_all && shape_.degree > 1) {
      part.blocks = 2;  // an empty one, so that nothing hides the exchange
      part.block_s = attention_s + fixed_s;
      part.transfer =
          heads_transfer(cluster_, shape_, task_, all_to_all_transfer(cost_, cluster_, pass, load_, shape_));
      program_.push_back(part);
      part.lead_s = part.block_s = 0.0;
    } else {
      part.blocks = shape_.degree;
      part.first_block_s = part.block_s = attention_s / degree + fixed_s;
      part.ahead = messages_ahead(task_.exchange, shape_);
      if (shape_.degree > 1) {
        part.transfer =
            shard_transfer(cost_, cluster_, shape_, task_, pass.ring_bytes_per_token * load_.tokens / degree);
      }
    }
    program_.push_back(std::move(part));
  }

  const CostModel& cost_;
  const Cluster& cluster_;
  const Load& load_;
  const Task& task_;
  GroupShape shape_;
  Program program_;
};

}  // namespace

Program task_program(const CostModel& cost, const Cluster& cluster, const Load& load, const Task& task) {
  return ProgramWriter(cost, cluster, load, task).write();
}

namespace {

/// A part that is one exchange and nothing else.
Part exchange_part(Transfer transfer) {
  Part part;
  part.blocks = 2;  // empty ones
  part.transfer = std::move(transfer);
  return part;
}

}  // namespace

Program reduce_program(const CostModel& cost, const Cluster& cluster) {
  const std::vector<Rank> live = cluster.live_ranks();
  if (!(cost.gradient_bytes > 0.0) || live.size() < 2) return {};
  const std::map<int, int> members = members_by_node(cluster, live);
  const auto by_count = [](const auto& a, const auto& b) { return a.second < b.second; };
  const int most = std::max_element(members.begin(), members.end(), by_count)->second;
  const int fewest = std::min_element(members.begin(), members.end(), by_count)->second;
  const auto nodes = static_cast<double>(members.size());
  Program program;
  Transfer inside{.latency_s = (most - 1) * cluster.intra_node.latency_s,
                  .bytes_s = (most - 1) * (cost.gradient_bytes / most) / bandwidth_inside(cluster, most),
                  .bytes = 0.0,
                  .streams = {}};
  if (most > 1) program.push_back(exchange_part(inside));
  if (members.size() > 1) {
    // Every node passes on its sums of 1/nodes of all gradients at a time, twice round; each rank carries its share.
    const double bytes = 2 * (nodes - 1) / nodes * cost.gradient_bytes;
    const double seconds = bytes / fewest / cluster.inter_node.bandwidth_bytes_per_s;
    Transfer across{.latency_s = 2 * (nodes - 1) * cluster.inter_node.latency_s,
                    .bytes_s = seconds,
                    .bytes = nodes * bytes,
                    .streams = {}};
    for (auto from = members.begin(); from != members.end(); ++from) {
      const auto to = std::next(from) == members.end() ? members.begin() : std::next(from);
      across.streams.push_back(stream(from->first, to->first, bytes, seconds, fewest));
    }
    program.push_back(exchange_part(std::move(across)));
  }
  if (most > 1) program.push_back(exchange_part(std::move(inside)));
  return program;
}

void slow_down(Program& program, double factor) {
  for (Part& part : program) {
    part.lead_s *= factor;
    part.first_block_s *= factor;
    part.block_s *= factor;
    part.transfer.latency_s *= factor;
    part.transfer.bytes_s *= factor;
    for (NodeStream& stream : part.transfer.streams) stream.pace_bytes_per_s /= factor;
  }
}

}  // namespace dhp::sim
