#include "dhp/cluster.h"

#include "core/json_reader.h"
#include "dhp/error.h"

namespace dhp {
namespace {

Link parse_link(const JsonObject& entry) {
  return {.bandwidth_bytes_per_s = entry.positive("bandwidth_bytes_per_s"),
          .latency_s = entry.non_negative("latency_s"),
          .links = entry.integer_or("links", 1, 1)};
}

std::string format_link(const Link& link) {
  return "{\"bandwidth_bytes_per_s\": " + format_number(link.bandwidth_bytes_per_s) +
         ", \"latency_s\": " + format_number(link.latency_s) + ", \"links\": " + std::to_string(link.links) + "}";
}

std::string format_speeds(const std::vector<double>& speeds) {
  if (speeds.empty()) return "";
  std::string text;
  for (const double speed : speeds) text += (text.empty() ? "" : ", ") + format_number(speed);
  return ",\n \"rank_speed\": [" + text + "]";
}

std::string format_limit(const char* name, double bytes_per_s) {
  if (bytes_per_s == 0.0) return "";
  return ",\n \"" + std::string(name) + "\": " + format_number(bytes_per_s);
}

void check_speeds(const Cluster& cluster, const std::string& source) {
  if (cluster.rank_speed.empty()) return;
  if (std::ssize(cluster.rank_speed) != cluster.ranks()) {
    throw InputError(source, "rank_speed",
                     "found " + std::to_string(cluster.rank_speed.size()) + " values, expected one for each of the " +
                         std::to_string(cluster.ranks()) + " ranks");
  }
  for (std::size_t rank = 0; rank < cluster.rank_speed.size(); ++rank) {
    const double speed = cluster.rank_speed[rank];
    if (speed >= 0.0 && speed <= 1.0) continue;
    throw InputError(source, "rank_speed[" + std::to_string(rank) + "]",
                     "found " + format_number(speed) + ", expected a number from 0 (out of service) to 1 (nominal)");
  }
}

}  // namespace

std::vector<Rank> Cluster::live_ranks() const {
  std::vector<Rank> live;
  for (Rank rank = 0; rank < ranks(); ++rank) {
    if (speed_of(rank) > 0.0) live.push_back(rank);
  }
  return live;
}

void validate(const Cluster& cluster, const std::string& source) {
  for (const auto& [name, count] :
       {std::pair{"nodes", cluster.nodes}, std::pair{"ranks_per_node", cluster.ranks_per_node}}) {
    if (count < 1) throw InputError(source, name, "found " + std::to_string(count) + ", expected at least 1");
  }
  if (cluster.nodes > kMaxRanks / cluster.ranks_per_node) {
    throw InputError(source, "nodes",
                     "found " + std::to_string(cluster.nodes) + " nodes of " + std::to_string(cluster.ranks_per_node) +
                         " ranks, expected at most " + std::to_string(kMaxRanks) + " ranks in all");
  }
  check_speeds(cluster, source);
  for (const auto& [name, limit] : {std::pair{"node_bandwidth_bytes_per_s", cluster.node_bandwidth_bytes_per_s},
                                    std::pair{"switch_bandwidth_bytes_per_s", cluster.switch_bandwidth_bytes_per_s}}) {
    if (!(limit >= 0.0)) throw InputError(source, name, "found a negative number, expected bytes a second, or 0: none");
  }
}

Cluster read_cluster(const std::string& file) { return parse_cluster(read_text_file(file), file); }

Cluster parse_cluster(std::string_view text, const std::string& source) {
  const JsonDocument document(text, source);
  const JsonObject root = document.root();
  root.expect_format("dhp.cluster/1");
  Cluster cluster;
  cluster.nodes = root.integer("nodes", 1, kMaxRanks);
  cluster.ranks_per_node = root.integer("ranks_per_node", 1, kMaxRanks);
  cluster.memory_bytes = root.positive("memory_bytes");
  cluster.intra_node = parse_link(root.object("intra_node"));
  cluster.inter_node = parse_link(root.object("inter_node"));
  if (root.has_value("rank_speed")) cluster.rank_speed = root.numbers("rank_speed");
  cluster.node_bandwidth_bytes_per_s = root.non_negative_or("node_bandwidth_bytes_per_s", 0.0);
  cluster.switch_bandwidth_bytes_per_s = root.non_negative_or("switch_bandwidth_bytes_per_s", 0.0);
  validate(cluster, source);
  return cluster;
}

std::string to_json(const Cluster& cluster) {
  return "{\"format\": \"dhp.cluster/1\", \"nodes\": " + std::to_string(cluster.nodes) +
         ", \"ranks_per_node\": " + std::to_string(cluster.ranks_per_node) +
         ", \"memory_bytes\": " + format_number(cluster.memory_bytes) +
         ",\n \"intra_node\": " + format_link(cluster.intra_node) +
         ",\n \"inter_node\": " + format_link(cluster.inter_node) + format_speeds(cluster.rank_speed) +
         format_limit("node_bandwidth_bytes_per_s", cluster.node_bandwidth_bytes_per_s) +
         format_limit("switch_bandwidth_bytes_per_s", cluster.switch_bandwidth_bytes_per_s) + "}\n";
}

}  // namespace dhp
