#include "dhp/cluster.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>

#include "base/json_reader.h"
#include "base/number_limits.h"
#include "dhp/error.h"
#include "dhp/presets.h"

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

/// A whole number from 1 to kMaxRanks; 0 if it is none.
int parse_count(std::string_view digits) {
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && end == digits.data() + digits.size() && number >= 1 && number <= kMaxRanks ? number
                                                                                                            : 0;
}

/// "h100-16x8": the preset "h100-8x8" with 16 nodes. Nothing if the name is a file or not of this form. As many ranks a
/// node as in the preset, or fewer: how more would be wired is not known.
std::optional<Cluster> resized_preset(const std::string& name) {
  const std::size_t dash = name.rfind('-');
  const std::size_t times = name.find('x', std::min(dash, name.size()));
  std::error_code ignored;
  if (times == std::string::npos || std::filesystem::exists(name, ignored)) return std::nullopt;
  const int nodes = parse_count(std::string_view(name).substr(dash + 1, times - dash - 1));
  const int ranks = parse_count(std::string_view(name).substr(times + 1));
  for (const Preset& preset : cluster_presets()) {
    if (preset.name.substr(0, preset.name.rfind('-')) != std::string_view(name).substr(0, dash)) continue;
    Cluster cluster = parse_cluster(preset.text, name);
    if (nodes == 0 || ranks == 0 || ranks > cluster.ranks_per_node) {
      throw InputError(name, "",
                       "expected " + name.substr(0, dash) + "-NODESxRANKS of at most " +
                           std::to_string(cluster.ranks_per_node) + " ranks a node, " + std::to_string(kMaxRanks) +
                           " in all");
    }
    cluster.nodes = nodes;
    cluster.ranks_per_node = ranks;
    validate(cluster, name);
    return cluster;
  }
  return std::nullopt;
}

std::string format_limit(const char* name, double bytes_per_s) {
  if (bytes_per_s == 0.0) return "";
  return ",\n \"" + std::string(name) + "\": " + format_number(bytes_per_s);
}

void check_link(const Link& link, const std::string& name, const std::string& source) {
  check_number(link.bandwidth_bytes_per_s, kLeastRate, kMostBandwidth, name + ".bandwidth_bytes_per_s", source);
  check_number(link.latency_s, 0.0, kMostSeconds, name + ".latency_s", source);
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
    if (speed == 0.0 || (speed >= kLeastSpeed && speed <= 1.0)) continue;
    throw InputError(source, "rank_speed[" + std::to_string(rank) + "]",
                     "found " + number_text(speed) + ", expected 0 (out of service), or a number from " +
                         format_number(kLeastSpeed) + " to 1 (nominal)");
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
  check_number(cluster.memory_bytes, 0.0, kMostBytes, "memory_bytes", source);
  check_link(cluster.intra_node, "intra_node", source);
  check_link(cluster.inter_node, "inter_node", source);
  for (const auto& [name, limit] : {std::pair{"node_bandwidth_bytes_per_s", cluster.node_bandwidth_bytes_per_s},
                                    std::pair{"switch_bandwidth_bytes_per_s", cluster.switch_bandwidth_bytes_per_s}}) {
    if (limit != 0.0) check_number(limit, kLeastRate, kMostBandwidth, name, source);  // 0: none
  }
}

Cluster read_cluster(const std::string& file) {
  if (std::optional<Cluster> preset = resized_preset(file)) return *preset;
  const NamedText found = read_file_or_preset(file, cluster_presets());
  return parse_cluster(found.text, found.source);
}

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
