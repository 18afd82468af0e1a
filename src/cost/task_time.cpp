#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "base/number_limits.h"
#include "cost/terms.h"
#include "cost/transfer.h"
#include "dhp/error.h"

namespace dhp {
namespace {

/// The larger latency of the links that a group of this shape uses.
double latency_s(const Cluster& cluster, const GroupShape& shape) {
  if (shape.nodes == 1) return cluster.intra_node.latency_s;
  if (shape.most_on_node == 1) return cluster.inter_node.latency_s;
  return std::max(cluster.intra_node.latency_s, cluster.inter_node.latency_s);
}

double ring_transfer_s(const Cluster& cluster, const GroupShape& shape, double bytes) {
  double bandwidth = cluster.intra_node.bandwidth_bytes_per_s;
  if (shape.nodes > 1) {
    bandwidth = shape.most_on_node > 1 ? std::min(bandwidth, cluster.inter_node.bandwidth_bytes_per_s)
                                       : cluster.inter_node.bandwidth_bytes_per_s;
  }
  return (shape.degree - 1) * (bytes / bandwidth);
}

double direct_transfer_s(const Cluster& cluster, const GroupShape& shape, double bytes) {
  const double inside = (shape.most_on_node - 1) * bytes / bandwidth_inside(cluster, shape.most_on_node);
  if (shape.nodes == 1) return inside;
  const double across = (shape.degree - shape.fewest_on_node) * bytes / cluster.inter_node.bandwidth_bytes_per_s;
  return std::max(inside, across);
}

double hierarchical_transfer_s(const Cluster& cluster, const GroupShape& shape, double bytes) {
  if (shape.nodes == 1) return direct_transfer_s(cluster, shape, bytes);
  const double nodes = shape.nodes;
  const double most = shape.most_on_node;
  const double fewest = shape.fewest_on_node;
  // Shards of the fullest node that one member of the emptiest takes in per round.
  const double relayed = std::ceil(most / fewest);
  const double fullest = nodes * (most - 1) * bytes / bandwidth_inside(cluster, shape.most_on_node);
  const double emptiest =
      (1 + (nodes - 1) * relayed) * (fewest - 1) * bytes / bandwidth_inside(cluster, shape.fewest_on_node);
  const double across = (nodes - 1) * relayed * bytes / cluster.inter_node.bandwidth_bytes_per_s;
  return std::max({fullest, emptiest, across});
}

/// Seconds of the transfers of one pass, `bytes` each, latencies apart.
double bytes_s(const Cluster& cluster, const GroupShape& shape, Exchange exchange, double bytes) {
  switch (exchange) {
    case Exchange::ring:
      return ring_transfer_s(cluster, shape, bytes);
    case Exchange::direct:
      return direct_transfer_s(cluster, shape, bytes);
    case Exchange::hierarchical:
      return hierarchical_transfer_s(cluster, shape, bytes);
    case Exchange::all_to_all:
      break;
  }
  throw std::logic_error("bytes_s: not a ring-like exchange");
}

/// X of docs/design.md: seconds of all degree - 1 transfers of one pass, `bytes` each.
double exchange_s(const CostModel& cost, const Cluster& cluster, const GroupShape& shape, Exchange exchange,
                  double bytes) {
  return transfer_latency_s(cost, cluster, shape) + bytes_s(cluster, shape, exchange, bytes);
}

/// What a rank computes of the attention of one pass: all of it, and the fixed part of each step.
struct Attention {
  double total_s = 0.0;
  double fixed_s = 0.0;
};
Attention attention_of(const PassCost& pass, const Load& load, const GroupShape& shape) {
  return {.total_s = pass.pair_s * load.tokens_squared / (2 * static_cast<double>(shape.degree)) / shape.speed,
          .fixed_s = (pass.step_s + load.sequences * pass.sequence_step_s) / shape.speed};
}

/// Seconds by which the transfers of one pass outlast the attention that hides them.
double ring_exposed_s(const CostModel& cost, const Cluster& cluster, const PassCost& pass, const Load& load,
                      const GroupShape& shape, Exchange exchange) {
  if (shape.degree == 1) return 0.0;
  const double degree = shape.degree;
  const Attention attention = attention_of(pass, load, shape);
  const double transfer = exchange_s(cost, cluster, shape, exchange, pass.ring_bytes_per_token * load.tokens / degree);
  const double hidden = (degree - 1) * (attention.total_s / degree + attention.fixed_s);
  return std::max(0.0, transfer - hidden);
}

/// Attention of one pass with the shards of the group travelling behind it.
double ring_attention_s(const CostModel& cost, const Cluster& cluster, const PassCost& pass, const Load& load,
                        const GroupShape& shape, Exchange exchange) {
  const Attention attention = attention_of(pass, load, shape);
  return attention.total_s + shape.degree * attention.fixed_s +
         ring_exposed_s(cost, cluster, pass, load, shape, exchange);
}

double all_to_all_transfer_s(const CostModel& cost, const Cluster& cluster, const PassCost& pass, const Load& load,
                             const GroupShape& shape) {
  const AllToAll transfer = all_to_all_transfer(cost, cluster, pass, load, shape);
  return transfer.latency_s + transfer.bytes_s;
}

/// Attention of one pass with whole sequences and split heads; nothing is hidden.
double all_to_all_attention_s(const CostModel& cost, const Cluster& cluster, const PassCost& pass, const Load& load,
                              const GroupShape& shape) {
  const Attention attention = attention_of(pass, load, shape);
  return attention.total_s + attention.fixed_s + all_to_all_transfer_s(cost, cluster, pass, load, shape);
}

/// A cost model without these figures would make all_to_all look free.
void check_all_to_all(const CostModel& cost) {
  const std::string source = "cost model \"" + cost.name + "\"";
  if (cost.query_heads < 1) throw InputError(source, "query_heads", "missing; exchange all_to_all needs it");
  for (const auto& [name, pass] : {std::pair{"forward", &cost.forward}, std::pair{"backward", &cost.backward}}) {
    if (pass->all_to_all_bytes_per_token <= 0.0) {
      throw InputError(source, std::string(name) + ".all_to_all_bytes_per_token",
                       "missing; exchange all_to_all needs it");
    }
  }
}

}  // namespace

double bandwidth_inside(const Cluster& cluster, int members) {
  return cluster.intra_node.bandwidth_bytes_per_s * std::max(1, std::min(cluster.intra_node.links, members - 1));
}

AllToAll all_to_all_transfer(const CostModel& cost, const Cluster& cluster, const PassCost& pass, const Load& load,
                             const GroupShape& shape) {
  if (shape.degree == 1) return {};
  const double degree = shape.degree;
  const double bytes = pass.all_to_all_bytes_per_token * load.tokens / degree * (degree - 1) / degree;
  const double bandwidth =
      shape.nodes == 1 ? bandwidth_inside(cluster, shape.degree) : cluster.inter_node.bandwidth_bytes_per_s;
  return {.latency_s = 4.0 * cost.layers * latency_s(cluster, shape), .bytes_s = bytes / bandwidth, .bytes = bytes};
}

GroupShape with_residual(const CostModel& cost, const Load& load, GroupShape shape) {
  shape.speed /= residual_factor(cost, shape.degree, load.longest);
  return shape;
}

double exposed_transfer_s(const CostModel& cost, const Cluster& cluster, const Load& load, const GroupShape& group,
                          Exchange exchange) {
  const GroupShape shape = with_residual(cost, load, group);
  double seconds = 0.0;
  for (const PassCost* pass : {&cost.forward, &cost.backward}) {
    seconds += exchange == Exchange::all_to_all ? all_to_all_transfer_s(cost, cluster, *pass, load, shape)
                                                : ring_exposed_s(cost, cluster, *pass, load, shape, exchange);
  }
  return seconds;
}

double transfer_latency_s(const CostModel& cost, const Cluster& cluster, const GroupShape& shape) {
  return (shape.degree - 1) * (cost.layers * latency_s(cluster, shape));
}

double transfer_seconds_per_byte(const Cluster& cluster, const GroupShape& shape, Exchange exchange) {
  return bytes_s(cluster, shape, exchange, 1.0);
}

void Load::add(const Sequence& sequence) {
  const auto length = static_cast<double>(sequence.tokens);
  sequences += 1;
  tokens += length;
  tokens_squared += length * length;
  const auto sequence_patches = static_cast<double>(sequence.patches);
  const auto frame = static_cast<double>(sequence.frame_patches);
  patches += sequence_patches;
  patch_pairs += sequence_patches * frame;
  longest = std::max(longest, length);
  if (frame == 0.0) return;
  frames += std::ceil(sequence_patches / frame);
  join_largest(largest_frame, largest_frames, frame, std::floor(sequence_patches / frame));
}

/// Frames of two sizes, the largest and the mean of the others, go to the ranks largest first, each to the rank with
/// the least work. Exact for frames of one size, and for one sequence.
VisionSeconds::Share VisionSeconds::fullest_share(double degree) const {
  constexpr double kCountRounding = 1e-9;
  const Share even = {.work = 1.0 / degree};
  if (degree <= 1.0 || !(frame_s > 0.0)) return even;
  const auto seconds = [&](const Share& share) { return share.work * work_s + share.frame * frame_s; };
  const double turns = std::max(1.0, std::ceil(largest_frames / degree));
  const Share largest = {.frame = turns};
  const Share least = work_s / degree < turns * frame_s ? largest : even;
  const double others = frames - largest_frames;
  if (!(others > 0.0)) return least;
  const double other_s = (work_s - largest_frames * frame_s) / others;
  // Ranks with one of the largest frames less than the fullest have room for as many of the others as that one takes.
  const double fit = (turns * degree - largest_frames) * std::floor(frame_s / other_s + kCountRounding);
  if (!(others > fit)) return least;
  // The rest in turns, or as level as frames of their size allow.
  const auto with_others = [&](Share share, double count) {
    share.work += count / others;
    share.frame -= count / others * largest_frames;
    return share;
  };
  const Share in_turns = with_others(largest, std::ceil((others - fit) / degree));
  const Share level = with_others(even, 1.0 - 1.0 / degree);
  const Share dealt = seconds(in_turns) < seconds(level) ? in_turns : level;
  return seconds(least) < seconds(dealt) ? dealt : least;
}

double VisionSeconds::on(double degree) const {
  if (!(frame_s > 0.0)) return work_s / degree;
  const Share share = fullest_share(degree);
  return share.work * work_s + share.frame * frame_s;
}

VisionSeconds vision_seconds(const CostModel& cost, const Load& load) {
  return {.work_s = load.patches * cost.patch_s + load.patch_pairs * cost.patch_pair_s,
          .frame_s = (cost.patch_s + cost.patch_pair_s * load.largest_frame) * load.largest_frame,
          .largest_frames = load.largest_frames,
          .frames = load.frames};
}

Load load_of(std::span<const Sequence> sequences) {
  Load load;
  for (const Sequence& sequence : sequences) load.add(sequence);
  return load;
}

GroupShape shape_of(const Cluster& cluster, std::span<const Rank> ranks) {
  if (ranks.empty()) throw std::invalid_argument("shape_of: a group has at least one rank");
  double speed = 1.0;
  bool node_by_node = true;  // as groups mostly come: then no sort is needed
  int last_node = -1;
  for (const Rank rank : ranks) {
    if (rank < 0 || rank >= cluster.ranks()) {
      throw std::invalid_argument("shape_of: rank " + std::to_string(rank) + " is outside the cluster");
    }
    speed = std::min(speed, cluster.speed_of(rank));
    const int node = cluster.node_of(rank);
    node_by_node = node_by_node && node >= last_node;
    last_node = node;
  }
  if (!node_by_node) {
    std::vector<Rank> sorted(ranks.begin(), ranks.end());
    std::sort(sorted.begin(), sorted.end());
    return shape_of(cluster, sorted);
  }
  GroupShape shape{.degree = static_cast<int>(ranks.size()),
                   .nodes = 0,
                   .most_on_node = 0,
                   .fewest_on_node = static_cast<int>(ranks.size()),
                   .speed = speed};
  for (std::size_t begin = 0, end = 0; begin < ranks.size(); begin = end) {
    const int node = cluster.node_of(ranks[begin]);
    while (end < ranks.size() && cluster.node_of(ranks[end]) == node) ++end;
    const int members = static_cast<int>(end - begin);
    ++shape.nodes;
    shape.most_on_node = std::max(shape.most_on_node, members);
    shape.fewest_on_node = std::min(shape.fewest_on_node, members);
  }
  return shape;
}

GroupShape consecutive_shape(const Cluster& cluster, Rank first, int degree) {
  if (degree < 1 || first < 0 || degree > cluster.ranks() - first) {
    throw std::invalid_argument("consecutive_shape: " + std::to_string(degree) + " ranks from " +
                                std::to_string(first) + " on are not in the cluster");
  }
  const int per_node = cluster.ranks_per_node;
  const int last = first + degree - 1;
  const int nodes = cluster.node_of(last) - cluster.node_of(first) + 1;
  double speed = 1.0;
  if (!cluster.rank_speed.empty()) {
    const auto begin = cluster.rank_speed.begin() + first;
    speed = *std::min_element(begin, begin + degree);
  }
  if (nodes == 1) return {degree, 1, degree, degree, speed};
  const int head = per_node - first % per_node;  // on the first node
  const int tail = last % per_node + 1;          // on the last node
  // Nodes between the first and the last are full.
  return {.degree = degree,
          .nodes = nodes,
          .most_on_node = nodes > 2 ? per_node : std::max(head, tail),
          .fewest_on_node = std::min(head, tail),
          .speed = speed};
}

double task_seconds(const CostModel& cost, const Cluster& cluster, const Load& load, const GroupShape& group,
                    Exchange exchange) {
  if (exchange == Exchange::all_to_all) check_all_to_all(cost);
  if (!(group.speed > 0.0)) return kInfinity;
  const GroupShape shape = with_residual(cost, load, group);
  double seconds = (cost.task_s + vision_seconds(cost, load).on(shape.degree)) / shape.speed;
  for (const PassCost* pass : {&cost.forward, &cost.backward}) {
    seconds += pass->token_s * load.tokens / shape.degree / shape.speed;
    seconds += exchange == Exchange::all_to_all ? all_to_all_attention_s(cost, cluster, *pass, load, shape)
                                                : ring_attention_s(cost, cluster, *pass, load, shape, exchange);
  }
  return seconds;
}

double alone_seconds(const CostModel& cost, const Cluster& cluster, const Sequence& sequence) {
  return task_seconds(cost, cluster, load_of(std::span(&sequence, 1)), GroupShape{}, Exchange::ring);
}

}  // namespace dhp
