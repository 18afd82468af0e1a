#pragma once

#include <functional>
#include <span>
#include <vector>

#include "dhp/cluster.h"

namespace dhp::plan {

/// Gives groups that run at once consecutive ranks: the position in Limits::live() of the first rank of each. Groups
/// wider than a node come first, by falling degree; then node after node is filled with the groups that fill it best,
/// so that a group that fits a node stays inside one wherever possible. Idle ranks are those at the ends of nodes that
/// cannot be filled. Where a group must straddle two nodes, it is the one with the least `straddled_s`. Ties go to the
/// lower group. `node_begins` has the first position of every node, and the number of positions at its end. The degrees
/// must sum to at most that number.
std::vector<int> place_consecutive(std::span<const int> degrees, std::span<const int> node_begins,
                                   const std::function<double(int group)>& straddled_s);

/// On a cluster of which all ranks are in service: positions are ranks.
std::vector<Rank> place_consecutive(std::span<const int> degrees, const Cluster& cluster,
                                    const std::function<double(int group)>& straddled_s);

}  // namespace dhp::plan
