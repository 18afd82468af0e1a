#pragma once

#include <optional>
#include <span>
#include <vector>

#include "plan/limits.h"

namespace dhp::plan {

/// A run of positions that no group of it leaves.
struct Block {
  int begin = 0;                 ///< position in Limits::live()
  int size = 0;                  ///< positions
  std::vector<int> node_begins;  ///< first position of every node, counted from `begin`, and `size` at the end
};

std::vector<Block> make_blocks(const Limits& limits);

/// What a block must hold of a group.
struct Demand {
  int ranks = 1;      ///< at least
  double work = 0.0;  ///< of any unit
};

/// A block for every group, so that work is spread by size: the widest group first, to the block with the least work a
/// rank among those with ranks enough; where that leaves no room for some group, to the block that it fills best.
/// Empty if that fails too, although there may be a way.
std::optional<std::vector<int>> deal_to_blocks(std::span<const Demand> groups, std::span<const Block> blocks);

}  // namespace dhp::plan
