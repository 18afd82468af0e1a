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

}  // namespace

Cluster read_cluster(const std::string& file) { return parse_cluster(read_text_file(file), file); }

Cluster parse_cluster(std::string_view text, const std::string& source) {
  const JsonDocument document(text, source);
  const JsonObject root = document.root();
  root.expect_format("dhp.cluster/1");
  Cluster cluster;
  cluster.nodes = root.integer("nodes", 1, kMaxRanks);
  cluster.ranks_per_node = root.integer("ranks_per_node", 1, kMaxRanks);
  if (cluster.nodes > kMaxRanks / cluster.ranks_per_node) {
    root.fail("nodes", "found " + std::to_string(cluster.nodes) + " nodes of " +
                           std::to_string(cluster.ranks_per_node) + " ranks, expected at most " +
                           std::to_string(kMaxRanks) + " ranks in all");
  }
  cluster.memory_bytes = root.positive("memory_bytes");
  cluster.intra_node = parse_link(root.object("intra_node"));
  cluster.inter_node = parse_link(root.object("inter_node"));
  return cluster;
}

std::string to_json(const Cluster& cluster) {
  return "{\"format\": \"dhp.cluster/1\", \"nodes\": " + std::to_string(cluster.nodes) +
         ", \"ranks_per_node\": " + std::to_string(cluster.ranks_per_node) +
         ", \"memory_bytes\": " + format_number(cluster.memory_bytes) +
         ",\n \"intra_node\": " + format_link(cluster.intra_node) +
         ",\n \"inter_node\": " + format_link(cluster.inter_node) + "}\n";
}

}  // namespace dhp
