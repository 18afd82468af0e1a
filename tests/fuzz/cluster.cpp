#include "dhp/cluster.h"

#include "readers.h"

namespace dhp::fuzz {

void cluster(std::string_view text) {
  const auto cluster = round_trip<Cluster>(text, parse_cluster, parse_cluster);
  if (!cluster) return;
  for (const Rank rank : cluster->live_ranks()) require(cluster->speed_of(rank) > 0.0, "live ranks are in service");
  require(cluster->node_of(cluster->ranks() - 1) == cluster->nodes - 1, "the last rank is on the last node");
}

}  // namespace dhp::fuzz
