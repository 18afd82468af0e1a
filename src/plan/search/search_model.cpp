#include "plan/search/search_model.h"

#include <algorithm>
#include <functional>

#include "cost/terms.h"
#include "cost/transfer.h"

namespace dhp::plan {

void SearchItem::add(const SearchItem& other) {
  tokens += other.tokens;
  patches += other.patches;
  linear_s += other.linear_s;
  vision.work_s += other.vision.work_s;
  vision.frames += other.vision.frames;
  join_largest(vision.frame_s, vision.largest_frames, other.vision.frame_s, other.vision.largest_frames);
  longest = std::max(longest, other.longest);
  for (int pass = 0; pass < 2; ++pass) pair_s[pass] += other.pair_s[pass];
  alone_s += other.alone_s;
  sequences += other.sequences;
  min_degree = std::max(min_degree, other.min_degree);
  max_degree = std::min(max_degree, other.max_degree);
}

SearchModel::SearchModel(const Limits& limits) : limits_(&limits) {
  const CostModel& cost = limits.cost();
  task_s_ = cost.task_s;
  token_s_ = cost.forward.token_s + cost.backward.token_s;
  const PassCost* passes[2] = {&cost.forward, &cost.backward};
  for (int pass = 0; pass < 2; ++pass) {
    pair_s_[pass] = passes[pass]->pair_s / 2;
    step_s_[pass] = passes[pass]->step_s;
    sequence_step_s_[pass] = passes[pass]->sequence_step_s;
    bytes_per_token_[pass] = passes[pass]->ring_bytes_per_token;
  }
  pack_s_ = task_s_ + step_s_[0] + step_s_[1];
  token_bytes_ = cost.token_bytes;
  patch_bytes_ = cost.patch_bytes;
  budget_bytes_ = limits.budget_bytes();
  tokens_per_rank_ = limits.tokens_per_rank();
}

SearchItem SearchModel::item(const Sequence& sequence) const {
  SearchItem item;
  item.tokens = static_cast<double>(sequence.tokens);
  item.longest = item.tokens;
  item.patches = static_cast<double>(sequence.patches);
  item.vision = vision_seconds(limits_->cost(), load_of(std::span(&sequence, 1)));
  item.linear_s = token_s_ * item.tokens + item.vision.work_s;
  item.alone_s = item.linear_s;
  for (int pass = 0; pass < 2; ++pass) {
    item.pair_s[pass] = pair_s_[pass] * item.tokens * item.tokens;
    item.alone_s += item.pair_s[pass] + sequence_step_s_[pass];
  }
  item.min_degree = limits_->min_degree(sequence);
  item.max_degree = limits_->max_degree(sequence, item.min_degree);
  item.id = sequence.id;
  return item;
}

Transfer SearchModel::transfer(const GroupShape& shape) const {
  Transfer result;
  if (shape.degree == 1) return result;
  result.exchange = limits_->exchange_for(shape);
  result.latency_s = transfer_latency_s(limits_->cost(), limits_->cluster(), shape);
  const double byte_s = transfer_seconds_per_byte(limits_->cluster(), shape, result.exchange);
  for (int pass = 0; pass < 2; ++pass) result.token_s[pass] = byte_s * bytes_per_token_[pass] / shape.degree;
  return result;
}

double SearchModel::seconds(const SearchItem& item, int degree, const Transfer& transfer, double speed) const {
  const double d = degree;
  const double pace = speed / residual_factor(limits_->cost(), degree, item.longest);
  double compute = task_s_ + item.linear_s / d;
  if (degree > 1 && item.vision.frame_s > 0.0) compute += item.vision.on(d) - item.vision.work_s / d;
  double exposed = 0.0;
  for (int pass = 0; pass < 2; ++pass) {
    const double attention = item.pair_s[pass] / d;
    const double fixed = step_s_[pass] + item.sequences * sequence_step_s_[pass];
    compute += attention + d * fixed;
    if (degree == 1) continue;
    const double hidden = (d - 1) * (attention / d + fixed) / pace;
    exposed += std::max(0.0, transfer.latency_s + transfer.token_s[pass] * item.tokens - hidden);
  }
  return compute / pace + exposed;
}

std::vector<SearchItem> sorted_items(const Batch& batch, const SearchModel& model) {
  struct Key {
    double alone_s;
    std::int64_t id;
    std::int32_t position;
  };
  std::vector<SearchItem> items;
  std::vector<Key> keys;
  items.reserve(batch.sequences.size());
  keys.reserve(batch.sequences.size());
  for (const Sequence& sequence : batch.sequences) {
    const auto position = static_cast<std::int32_t>(items.size());
    items.push_back(model.item(sequence));
    keys.push_back({items.back().alone_s, sequence.id, position});
  }
  std::sort(keys.begin(), keys.end(),
            [](const Key& a, const Key& b) { return a.alone_s != b.alone_s ? a.alone_s > b.alone_s : a.id < b.id; });
  std::vector<SearchItem> sorted;
  sorted.reserve(items.size());
  for (const Key& key : keys) sorted.push_back(items[static_cast<std::size_t>(key.position)]);
  return sorted;
}

FreeCell::FreeCell(const SearchModel& model, int first_position, int ranks)
    : model_(&model), first_position_(first_position), ranks_(ranks) {
  find_pools();
  find_speeds();
  int largest_block = 0;
  for (const PoolRange& block : blocks_) largest_block = std::max(largest_block, block.ranks);
  widest_ = std::min(model.limits().widest(), largest_block);
  best_.resize(static_cast<std::size_t>(widest_) + 1);
  for (int degree = 2; degree <= widest_; ++degree) {
    const int nodes = fewest_nodes(degree);
    best_[static_cast<std::size_t>(degree)] =
        model.transfer({degree, nodes, (degree + nodes - 1) / nodes, degree / nodes, 1.0});
  }
}

void FreeCell::find_pools() {
  const Limits& limits = model_->limits();
  const auto& begins = limits.block_begins();
  const auto node_of = [&](int position) {
    return limits.cluster().node_of(limits.live()[static_cast<std::size_t>(position)]);
  };
  for (int rank = 0; rank < ranks_; ++rank) {
    const int position = first_position_ + rank;
    const bool new_block = rank == 0 || std::binary_search(begins.begin(), begins.end(), position);
    if (new_block) blocks_.push_back({static_cast<int>(pools_.size()), static_cast<int>(pools_.size()), 0});
    if (new_block || node_of(position) != node_of(position - 1)) {
      pools_.push_back({rank, rank});
      block_of_.push_back(static_cast<int>(blocks_.size()) - 1);
      ++blocks_.back().end;
    }
    ++pools_.back().end;
    ++blocks_.back().ranks;
    pool_of_.push_back(static_cast<int>(pools_.size()) - 1);
  }
  for (const Pool& pool : pools_) largest_pool_ = std::max(largest_pool_, pool.size());
}

GroupShape FreeCell::shape(std::span<const int> ranks) const {
  GroupShape shape{static_cast<int>(ranks.size()), 0, 0, static_cast<int>(ranks.size()), 1.0};
  members_.resize(pools_.size(), 0);
  for (const int rank : ranks) shape.nodes += members_[static_cast<std::size_t>(pool_of(rank))]++ == 0 ? 1 : 0;
  for (const int rank : ranks) {
    int& members = members_[static_cast<std::size_t>(pool_of(rank))];
    if (members == 0) continue;  // its pool is counted
    shape.most_on_node = std::max(shape.most_on_node, members);
    shape.fewest_on_node = std::min(shape.fewest_on_node, members);
    members = 0;
  }
  return shape;
}

void FreeCell::find_speeds() {
  constexpr std::size_t kMostSteps = 6;
  const Limits& limits = model_->limits();
  for (int rank = 0; rank < ranks_; ++rank) {
    const int position = first_position_ + rank;
    lanes_.speed.push_back(limits.cluster().speed_of(limits.live()[static_cast<std::size_t>(position)]));
    lanes_.total_speed += lanes_.speed.back();
  }
  std::vector<double> sorted = lanes_.speed;
  std::sort(sorted.begin(), sorted.end(), std::greater<>());
  top_speed_ = sorted.front();
  lanes_.uniform = sorted.back() == top_speed_;
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  const std::size_t steps = std::min(kMostSteps, sorted.size());
  for (std::size_t step = 1; step <= steps; ++step) speed_steps_.push_back(sorted[sorted.size() * step / steps - 1]);
}

}  // namespace dhp::plan
