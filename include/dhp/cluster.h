#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dhp {

using Rank = int;

/// Largest number of ranks accepted in a cluster or plan; far above any machine, far below what an int holds.
inline constexpr int kMaxRanks = 1 << 20;

/// One kind of link between ranks.
struct Link {
  double bandwidth_bytes_per_s = 0.0;  ///< of one link, one direction
  double latency_s = 0.0;
  int links = 1;  ///< links of a rank that carry different peers' traffic at once (7 in an 8-rank full mesh)

  bool operator==(const Link&) const = default;
};

/// `nodes * ranks_per_node` ranks, numbered node by node.
struct Cluster {
  int nodes = 1;
  int ranks_per_node = 1;
  double memory_bytes = 0.0;  ///< of one rank
  Link intra_node = {};
  Link inter_node = {};  ///< bandwidth is per rank
  /// Speed of each rank relative to the cost model: 1 is nominal, 0.8 takes 1/0.8 of the time to compute, 0 is out of
  /// service. Either empty (all 1) or one value in [0, 1] per rank.
  std::vector<double> rank_speed = {};
  /// The most that the ranks of a node together can send to other nodes, and the most that they can receive (shared
  /// NICs); 0: only the bandwidth of each rank limits them. free and lockstep plan for it, simulate() shows it; the
  /// times that plans state do not.
  double node_bandwidth_bytes_per_s = 0.0;
  /// The most that all nodes together can send to each other (an oversubscribed switch); 0: no limit. As above.
  double switch_bandwidth_bytes_per_s = 0.0;

  int ranks() const { return nodes * ranks_per_node; }  ///< of a valid cluster: 1 to kMaxRanks
  int node_of(Rank rank) const { return rank / ranks_per_node; }
  /// Throws std::out_of_range if there is no such speed.
  double speed_of(Rank rank) const { return rank_speed.empty() ? 1.0 : rank_speed.at(static_cast<std::size_t>(rank)); }
  /// Ranks in service (speed above 0), ascending. Throws std::out_of_range if speeds are missing.
  std::vector<Rank> live_ranks() const;

  bool operator==(const Cluster&) const = default;
};

/// Throws InputError (from `source`) for sizes, speeds and rates out of range, and if the numbers of speeds and ranks
/// differ.
void validate(const Cluster& cluster, const std::string& source);

/// Reads `dhp.cluster/1` JSON: a file, or the name of a preset of data/clusters ("ascend-910b-8x8"), with any numbers
/// of nodes and ranks per node ("ascend-910b-128x8", "h100-1x4"). Throws InputError.
Cluster read_cluster(const std::string& file);
/// Parses `dhp.cluster/1` JSON; `source` names it in errors. Throws InputError, also for what validate() refuses.
Cluster parse_cluster(std::string_view text, const std::string& source);
/// The cluster as JSON; parse_cluster() reads it back as the same cluster.
std::string to_json(const Cluster& cluster);

}  // namespace dhp
