#include "random_case.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "support.h"

namespace dhp::test {
namespace {

class CaseMaker {
 public:
  explicit CaseMaker(std::uint64_t seed) : random_(seed) {}

  Case make(const std::string& planner) {
    Case made;
    typical_tokens_ = std::pow(2.0, real(0, 14));
    made.cluster = cluster();
    made.cost = cost();
    made.batch = batch(made.cluster.ranks());
    give_memory(made);
    made.options = options(made);
    made.options.planner = planner;
    if (chance(40)) add_frames(made);
    if (chance(25)) add_residuals(made.cost);
    return made;
  }

 private:
  bool chance(int percent) { return random_.whole(1, 100) <= percent; }
  int whole(int low, int high) { return static_cast<int>(random_.whole(low, high)); }
  /// Drawn one after the other: compilers differ in which operand comes first.
  int product(int most, int other_most) {
    const int first = whole(1, most);
    return first * whole(1, other_most);
  }
  double real(double low, double high) { return low + (high - low) * random_.unit(); }
  /// Spread evenly over orders of magnitude.
  double magnitude(double low, double high) { return low * std::pow(high / low, random_.unit()); }

  Cluster cluster() {
    constexpr int kMostRanks = 40;
    constexpr int kMostNodes = 6;
    Cluster made;
    made.nodes = whole(1, kMostNodes);
    made.ranks_per_node = chance(15) ? 1 : whole(1, kMostRanks / made.nodes);
    const double bandwidth = magnitude(1e6, 1e11);
    made.intra_node = {bandwidth, latency(), whole(1, 8)};
    made.inter_node = {bandwidth * magnitude(1e-3, 2), latency(), 1};
    if (chance(25)) {
      const int out_of_service = chance(50) ? 0 : whole(1, 40);
      for (Rank rank = 0; rank < made.ranks(); ++rank) {
        made.rank_speed.push_back(chance(out_of_service) ? 0.0 : chance(60) ? 1.0 : real(0.1, 1));
      }
    }
    return made;
  }

  double latency() { return chance(30) ? 0.0 : chance(80) ? magnitude(1e-7, 1e-3) : magnitude(1e-3, 10); }

  double often(int percent, double value) { return chance(percent) ? value : 0.0; }

  PassCost pass(double token_s) {
    const double task_s = token_s * typical_tokens_;
    PassCost made;
    made.token_s = often(90, token_s * magnitude(0.5, 3));
    made.pair_s = often(80, token_s / typical_tokens_ * magnitude(1e-3, 100));
    made.step_s = often(60, task_s * magnitude(1e-4, 1));
    made.sequence_step_s = often(40, task_s * magnitude(1e-5, 0.3));
    made.ring_bytes_per_token = often(80, magnitude(1, 1e6));
    made.all_to_all_bytes_per_token = magnitude(1, 1e6);  // without it the planner ulysses says what is missing
    return made;
  }

  CostModel cost() {
    CostModel made;
    made.name = "random";
    made.layers = whole(1, 40);
    const double token_s = magnitude(1e-8, 1e-2);
    made.task_s = often(60, token_s * typical_tokens_ * magnitude(1e-3, 10));
    made.patch_s = often(50, token_s * magnitude(0.1, 10));
    made.forward = pass(token_s);
    made.backward = pass(token_s * 2);
    made.token_bytes = chance(5) ? 0.0 : chance(50) ? 1.0 : magnitude(1, 1e6);
    made.patch_bytes = often(50, made.token_bytes * magnitude(0.01, 2));
    made.kv_heads = whole(1, 8);
    made.query_heads = made.kv_heads * whole(1, 8);
    made.state_bytes = often(50, made.token_bytes * typical_tokens_);
    return made;
  }

  std::int64_t tokens(double value) { return std::max<std::int64_t>(1, std::llround(value)); }

  std::int64_t heavy_tail() { return tokens(typical_tokens_ * std::min(std::pow(random_.unit() + 1e-9, -0.9), 1e3)); }

  std::vector<std::int64_t> lengths(int ranks) {
    const int count = chance(5) ? whole(0, 1) : whole(1, 80);
    const std::int64_t equal = tokens(typical_tokens_);
    std::vector<std::int64_t> made;
    const auto repeat = [&](int times, auto&& length) {
      for (int i = 0; i < times; ++i) made.push_back(length());
    };
    switch (whole(0, 7)) {
      case 0:
        repeat(count, [&] { return equal; });
        break;
      case 1:
        repeat(count, [&] { return random_.whole(1, 4); });
        break;
      case 2:  // one giant
        repeat(whole(0, count), [&] { return random_.whole(1, equal); });
        made.push_back(equal * ranks * whole(1, 4));
        std::swap(made.back(), made[static_cast<std::size_t>(random_.whole(0, std::ssize(made) - 1))]);
        break;
      case 3:
        repeat(ranks + 1, [&] { return equal; });
        break;
      case 4:  // fewer than ranks
        repeat(whole(1, std::max(1, ranks - 1)), [&] { return heavy_tail(); });
        break;
      case 5:  // two lengths
        repeat(count, [&] { return chance(30) ? equal * 8 : equal; });
        break;
      default:
        repeat(count, [&] { return heavy_tail(); });
    }
    return made;
  }

  Batch batch(int ranks) {
    Batch made;
    const bool visual = chance(50);
    const bool sparse_ids = chance(30);
    std::set<std::int64_t> used;
    for (const std::int64_t length : lengths(ranks)) {
      Sequence& sequence = made.sequences.emplace_back();
      sequence.id = std::ssize(made.sequences) - 1;
      while (sparse_ids && !used.insert(sequence.id = random_.whole(-1000, 1'000'000'000)).second) continue;
      sequence.tokens = length;
      if (visual && chance(70)) sequence.patches = random_.whole(0, length * 4);
    }
    return made;
  }

  /// From too little for the longest on all ranks to ample; sometimes so that it fills some degree to the last byte.
  void give_memory(Case& made) {
    double longest = 1.0;
    double all = 1.0;
    for (const Sequence& sequence : made.batch.sequences) {
      const double bytes = task_memory_bytes(made.cost, load_of(std::span(&sequence, 1)), 1);
      longest = std::max(longest, bytes);
      all += bytes;
    }
    const double ranks = made.cluster.ranks();
    double budget = magnitude(longest / ranks * (chance(5) ? 0.5 : 1.0), std::max(longest, 4 * all / ranks));
    if (chance(20)) budget = longest / whole(1, made.cluster.ranks());
    made.cluster.memory_bytes = made.cost.state_bytes + (chance(1) ? -1.0 : std::max(budget, 1.0));
    made.cluster.memory_bytes = std::max(made.cluster.memory_bytes, 1.0);
  }

  /// Vision that groups cannot split at will.
  void add_frames(Case& made) {
    made.cost.patch_pair_s = often(60, made.cost.patch_s / typical_tokens_ * magnitude(1e-2, 10));
    for (Sequence& sequence : made.batch.sequences) {
      if (sequence.patches == 0 || !chance(80)) continue;
      sequence.frame_patches = chance(30) ? sequence.patches : random_.whole(1, sequence.patches);
    }
  }

  /// Groups that are quicker or slower than the coefficients say.
  void add_residuals(CostModel& cost) {
    std::set<std::pair<int, std::int64_t>> cells;
    const int count = whole(1, 12);
    for (int i = 0; i < count; ++i) {
      const int degree = chance(50) ? whole(2, 4) : whole(2, 40);
      cells.insert({degree, std::int64_t{1} << whole(0, 16)});
    }
    for (const auto& [degree, tokens] : cells) cost.residuals.push_back({degree, tokens, magnitude(0.5, 2)});
  }

  PlanOptions options(const Case& made) {
    const int ranks = made.cluster.ranks();
    PlanOptions chosen;
    const std::int64_t efforts[] = {kEffortFast, 1, 10, kEffortFast, 200};
    chosen.effort = chance(2) ? kEffortDefault : efforts[whole(0, 4)];
    if (chance(40)) chosen.min_shard_tokens = 1;
    const ErrorSizes errors[] = {{0.0, 0.0, 0.0}, {0.3, 0.0, 0.0}, {0.0, 0.1, 0.0}, {0.0, 0.0, 1.0}, {0.1, 0.2, 0.05}};
    if (chance(60)) chosen.expect_error = errors[whole(0, 4)];
    if (chance(30)) chosen.most_loss = whole(0, 4) / 4.0;
    if (chance(50)) return chosen;
    const int rate = whole(5, 50);
    if (chance(rate)) chosen.max_degree = whole(1, ranks);
    if (chance(rate)) chosen.degrees_divide = {product(4, 8)};
    if (chance(rate / 2)) chosen.degrees_divide.push_back(product(3, 8));
    if (chance(rate)) chosen.max_tokens_per_rank = token_cap(made);
    if (chance(rate)) chosen.min_shard_tokens = static_cast<int>(magnitude(1, 2 * typical_tokens_ + 1));
    if (chance(rate)) chosen.max_peers = whole(1, ranks);
    chosen.within_node = chance(rate / 2);
    if (chance(rate)) chosen.placement = Placement::consecutive;
    if (chance(rate)) chosen.exchanges = exchanges();
    if (chance(rate)) chosen.pipeline_stages = whole(1, 8);
    chosen.no_idle_ranks = chance(rate / 2);
    return chosen;
  }

  std::int64_t token_cap(const Case& made) {
    std::int64_t longest = 1;
    for (const Sequence& sequence : made.batch.sequences) longest = std::max(longest, sequence.tokens);
    const int shares = whole(1, 3);
    return std::max<std::int64_t>(1, longest * shares / whole(1, made.cluster.ranks()));
  }

  std::vector<Exchange> exchanges() {
    std::vector<Exchange> made = {Exchange::ring, Exchange::direct, Exchange::hierarchical};
    for (std::size_t i = made.size(); i-- > 1;) std::swap(made[i], made[static_cast<std::size_t>(random_.whole(0, 2))]);
    made.resize(static_cast<std::size_t>(random_.whole(1, 3)));
    return made;
  }

  Random random_;
  double typical_tokens_ = 1.0;
};

}  // namespace

Case random_case(std::uint64_t seed, const std::string& planner) {
  // Neighbouring seeds of the engine give unlike streams already; the factor keeps apart bases that differ by little.
  return CaseMaker(seed * 0x9e3779b97f4a7c15U + 1).make(planner);
}

}  // namespace dhp::test
