#include "sim/route.h"

#include <algorithm>

namespace dhp {
namespace {

std::size_t index(int value) { return static_cast<std::size_t>(value); }

/// Members of the group on the node of `position`, by position, and the others, beginning with the next node: nodes
/// count in the order in which the group first touches them.
struct Neighbourhood {
  std::vector<int> inside;
  std::vector<int> outside;
};
Neighbourhood neighbourhood(const Task& task, const Cluster& cluster, int position) {
  std::vector<int> nodes;  // in order of first touch
  std::vector<std::vector<int>> members;
  std::size_t own = 0;
  for (int at = 0; at < task.degree(); ++at) {
    const int node = cluster.node_of(task.ranks[index(at)]);
    const auto found = static_cast<std::size_t>(std::find(nodes.begin(), nodes.end(), node) - nodes.begin());
    if (found == nodes.size()) {
      nodes.push_back(node);
      members.emplace_back();
    }
    members[found].push_back(at);
    if (at == position) own = found;
  }
  Neighbourhood around{.inside = members[own], .outside = {}};
  for (std::size_t k = 1; k < nodes.size(); ++k) {
    const std::vector<int>& next = members[(own + k) % nodes.size()];
    around.outside.insert(around.outside.end(), next.begin(), next.end());
  }
  return around;
}

/// Foreign shards come in rounds of as many as the node has members, one to each; then the members pass them on.
int hierarchical_sender(const Task& task, const Cluster& cluster, int position, int step) {
  const auto [inside, outside] = neighbourhood(task, cluster, position);
  const int size = static_cast<int>(inside.size());
  const int own = static_cast<int>(std::find(inside.begin(), inside.end(), position) - inside.begin());
  if (step < size) return inside[index((own - step + size) % size)];
  // The step-th of the shards that it gets: in the order of rounds, from its own to those of the members before it.
  int left = step - size;
  for (int round = 0;; ++round) {
    for (int offset = 0; offset < size; ++offset) {
      const int gateway = (own - offset + size) % size;
      const int turn = round * size + gateway;
      if (turn >= static_cast<int>(outside.size()) || left-- > 0) continue;
      return offset == 0 ? outside[index(turn)] : inside[index(gateway)];
    }
  }
}

}  // namespace

std::vector<int> senders(const Task& task, const Cluster& cluster, int step) {
  const int degree = task.degree();
  std::vector<int> from;
  if (task.exchange == Exchange::all_to_all) return from;
  for (int position = 0; position < degree; ++position) {
    switch (task.exchange) {
      case Exchange::direct:
        from.push_back((position - step + degree) % degree);
        break;
      case Exchange::hierarchical:
        from.push_back(hierarchical_sender(task, cluster, position, step));
        break;
      default:
        from.push_back((position + degree - 1) % degree);
    }
  }
  return from;
}

}  // namespace dhp
