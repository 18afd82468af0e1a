#include "plan/peers/blocks.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace dhp::plan {
namespace {

enum class Choose { least_work, tightest };

std::optional<std::vector<int>> deal(std::span<const Demand> groups, std::span<const int> order,
                                     std::span<const Block> blocks, Choose choose) {
  std::vector<int> block_of(groups.size(), 0);
  std::vector<double> work(blocks.size(), 0.0);
  std::vector<int> left;
  for (const Block& block : blocks) left.push_back(block.size);
  for (const int index : order) {
    const Demand& group = groups[static_cast<std::size_t>(index)];
    std::size_t best = blocks.size();
    double best_score = 0.0;
    for (std::size_t block = 0; block < blocks.size(); ++block) {
      if (left[block] < group.ranks) continue;
      const double score = choose == Choose::least_work ? work[block] / blocks[block].size : left[block];
      if (best < blocks.size() && score >= best_score) continue;
      best = block;
      best_score = score;
    }
    if (best == blocks.size()) return std::nullopt;
    block_of[static_cast<std::size_t>(index)] = static_cast<int>(best);
    left[best] -= group.ranks;
    work[best] += group.work;
  }
  return block_of;
}

}  // namespace

std::vector<Block> make_blocks(const Limits& limits) {
  std::vector<Block> blocks;
  const std::vector<int>& begins = limits.block_begins();
  const auto node_of = [&](int position) {
    return limits.cluster().node_of(limits.live()[static_cast<std::size_t>(position)]);
  };
  for (std::size_t i = 0; i + 1 < begins.size(); ++i) {
    Block block{begins[i], begins[i + 1] - begins[i], {0}};
    for (int position = 1; position < block.size; ++position) {
      if (node_of(block.begin + position) != node_of(block.begin + position - 1)) block.node_begins.push_back(position);
    }
    block.node_begins.push_back(block.size);
    blocks.push_back(std::move(block));
  }
  return blocks;
}

std::optional<std::vector<int>> deal_to_blocks(std::span<const Demand> groups, std::span<const Block> blocks) {
  std::vector<int> order(groups.size());
  std::iota(order.begin(), order.end(), 0);
  const auto key = [&](int group) {
    const Demand& demand = groups[static_cast<std::size_t>(group)];
    return std::tuple(-demand.ranks, -demand.work, group);
  };
  std::sort(order.begin(), order.end(), [&](int a, int b) { return key(a) < key(b); });
  if (auto dealt = deal(groups, order, blocks, Choose::least_work)) return dealt;
  return deal(groups, order, blocks, Choose::tightest);
}

}  // namespace dhp::plan
