#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "dhp/planner.h"

// The inputs that benchmarks share: data/cases, and larger batches drawn from them.
namespace dhp::bench {

inline const std::vector<std::string> kData = {"openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"};
inline const std::vector<std::string> kTokens = {"4096", "8192", "16384"};

inline std::string case_file(const std::string& name) { return DHP_DATA_DIR "/cases/" + name + ".json"; }

struct Case {
  std::string name;
  Batch batch = {};
  Cluster cluster = {};
  CostModel cost = {};
};

inline Case shared_case(const std::string& cluster, const std::string& tokens, const std::string& data) {
  return {cluster + " " + tokens + " " + data, read_batch(case_file("batch_" + data + "_512")),
          read_cluster(case_file("cluster_" + cluster)), read_cost_model(case_file("cost_qwen3-vl-8b_" + tokens))};
}

/// `count` sequences from the distribution of a batch: quantiles between its lengths, at pseudo-random places.
inline Batch drawn_from(const Batch& batch, int count, std::uint64_t seed) {
  std::vector<Sequence> sorted = batch.sequences;
  std::sort(sorted.begin(), sorted.end(), [](const Sequence& a, const Sequence& b) { return a.tokens < b.tokens; });
  Batch drawn;
  std::uint64_t state = seed;
  for (int i = 0; i < count; ++i) {
    state = state * 6364136223846793005U + 1442695040888963407U;  // Knuth's MMIX generator
    const double place = static_cast<double>(state >> 11U) * 0x1p-53 * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<std::size_t>(place);
    const auto between = [&](std::int64_t a, std::int64_t b) {
      return a + static_cast<std::int64_t>(static_cast<double>(b - a) * (place - static_cast<double>(low)));
    };
    drawn.sequences.push_back({i, between(sorted[low].tokens, sorted[low + 1].tokens),
                               between(sorted[low].patches, sorted[low + 1].patches)});
  }
  return drawn;
}

/// 910B-like nodes of eight and eight sequences a rank, 8,192 tokens of text a rank.
inline Case large_case(int ranks, const std::string& data) {
  Case one = shared_case("910b_8x8", "8192", data);
  one.cluster.nodes = ranks / one.cluster.ranks_per_node;
  one.batch = drawn_from(one.batch, 8 * ranks, 1);
  one.name = std::to_string(ranks) + " ranks " + data;
  return one;
}

}  // namespace dhp::bench
