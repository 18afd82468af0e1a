#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include "dhp/analytic_cost.h"
#include "dhp/planner.h"
#include "dhp/presets.h"

// The inputs that benchmarks share: bench/cases, and larger batches drawn from them.
namespace dhp::bench {

inline const std::vector<std::string> kData = {"openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"};
inline const std::vector<std::string> kTokens = {"4096", "8192", "16384"};

inline std::string case_file(const std::string& name) { return DHP_DATA_DIR "/../bench/cases/" + name + ".json"; }

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

/// Pseudo-random numbers from 0 to below 1: Knuth's MMIX generator.
class Uniform {
 public:
  explicit Uniform(std::uint64_t seed) : state_(seed) {}
  double next() {
    state_ = state_ * 6364136223846793005U + 1442695040888963407U;
    return static_cast<double>(state_ >> 11U) * 0x1p-53;
  }

 private:
  std::uint64_t state_;
};

/// `count` sequences from the distribution of a batch: quantiles between its lengths, at pseudo-random positions.
inline Batch drawn_from(const Batch& batch, int count, std::uint64_t seed) {
  std::vector<Sequence> sorted = batch.sequences;
  std::sort(sorted.begin(), sorted.end(), [](const Sequence& a, const Sequence& b) { return a.tokens < b.tokens; });
  Batch drawn;
  Uniform uniform(seed);
  for (int i = 0; i < count; ++i) {
    const double position = uniform.next() * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<std::size_t>(position);
    const auto between = [&](std::int64_t a, std::int64_t b) {
      return a + static_cast<std::int64_t>(static_cast<double>(b - a) * (position - static_cast<double>(low)));
    };
    drawn.sequences.push_back({i, between(sorted[low].tokens, sorted[low + 1].tokens),
                               between(sorted[low].patches, sorted[low + 1].patches)});
  }
  return drawn;
}

/// `count` sequences of text, log-normal: median 4,915 tokens, one in a hundred above 80,000, at most 400,000.
inline Batch long_tailed(int count, std::uint64_t seed) {
  constexpr double kMu = 8.5;
  constexpr double kSigma = 1.2;
  Batch drawn;
  Uniform uniform(seed);
  for (int i = 0; i < count; ++i) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform.next()));  // Box and Muller
    const double normal = radius * std::cos(2.0 * std::numbers::pi * uniform.next());
    drawn.sequences.push_back(
        {i, static_cast<std::int64_t>(std::clamp(std::exp(kMu + kSigma * normal), 64.0, 4e5)), 0});
  }
  return drawn;
}

/// Nodes of eight H100 with the analytic costs of Qwen3-VL-8B, whose optimizer's state 64 ranks share.
inline Case h100_case(int ranks) {
  const NamedText config = read_model_config("qwen3-vl-8b");
  Case one{"h100"};
  one.cluster = read_cluster("h100-8x8");
  one.cluster.nodes = ranks / one.cluster.ranks_per_node;
  one.cost = analytic_report(config.text, config.source, {.device = "h100", .ranks = 64}, config.source).cost;
  return one;
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
