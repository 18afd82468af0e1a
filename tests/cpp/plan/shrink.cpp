#include "shrink.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "dhp/plan_options.h"

namespace dhp::test {
namespace {

class Shrinker {
 public:
  Shrinker(Case made, const std::function<bool(const Case&)>& bad) : best_(std::move(made)), bad_(bad) {}

  Case run() {
    bool better = true;
    while (better && looks_left_ > 0) {
      better = drop_sequences();
      better = drop_options() || better;
      better = drop_ranks() || better;
      better = simplify_cost() || better;
      better = shorten_sequences() || better;
    }
    return best_;
  }

 private:
  /// Keeps the change if the case stays bad.
  template <typename Change>
  bool attempt(const Change& change) {
    Case candidate = best_;
    change(candidate);
    if (looks_left_ <= 0) return false;
    --looks_left_;
    if (!bad_(candidate)) return false;
    best_ = std::move(candidate);
    return true;
  }

  bool drop_sequences() {
    bool better = false;
    for (std::size_t part = best_.batch.sequences.size(); part >= 1; part /= 2) {
      for (std::size_t begin = 0; begin < best_.batch.sequences.size();) {
        const bool dropped = attempt([&](Case& candidate) {
          auto& all = candidate.batch.sequences;
          const std::size_t end = std::min(begin + part, all.size());
          all.erase(all.begin() + static_cast<std::ptrdiff_t>(begin), all.begin() + static_cast<std::ptrdiff_t>(end));
        });
        better = dropped || better;
        if (!dropped) begin += part;
      }
    }
    return better;
  }

  bool drop_options() {
    bool better = false;
    for (const OptionInfo& info : plan_options()) {
      const std::string text = option_text(best_.options, info.name);
      if (info.name == "planner" || text == info.default_text) continue;
      better =
          attempt([&](Case& candidate) { set_option(candidate.options, info.name, info.default_text, info.name); }) ||
          better;
    }
    if (best_.options.effort != 1) better = attempt([](Case& candidate) { candidate.options.effort = 1; }) || better;
    return better;
  }

  static void drop_speeds(Cluster& cluster, const auto& drop) {
    std::vector<double> kept;
    for (Rank rank = 0; rank < std::ssize(cluster.rank_speed); ++rank) {
      if (!drop(rank)) kept.push_back(cluster.rank_speed[static_cast<std::size_t>(rank)]);
    }
    cluster.rank_speed = kept;
  }

  bool drop_ranks() {
    bool better = false;
    while (best_.cluster.nodes > 1 && attempt([](Case& candidate) {
             Cluster& cluster = candidate.cluster;
             drop_speeds(cluster, [&](Rank rank) { return cluster.node_of(rank) == cluster.nodes - 1; });
             --cluster.nodes;
           })) {
      better = true;
    }
    while (best_.cluster.ranks_per_node > 1 && attempt([](Case& candidate) {
             Cluster& cluster = candidate.cluster;
             drop_speeds(cluster, [&](Rank rank) { return (rank + 1) % cluster.ranks_per_node == 0; });
             --cluster.ranks_per_node;
           })) {
      better = true;
    }
    if (best_.cluster.rank_speed.empty()) return better;
    if (attempt([](Case& candidate) { candidate.cluster.rank_speed.clear(); })) return true;
    for (std::size_t rank = 0; rank < best_.cluster.rank_speed.size(); ++rank) {
      const double speed = best_.cluster.rank_speed[rank];
      if (speed == 1.0) continue;
      better = attempt([&](Case& candidate) { candidate.cluster.rank_speed[rank] = 1.0; }) || better;
      if (speed == 0.0 || speed == 0.5) continue;
      better = attempt([&](Case& candidate) { candidate.cluster.rank_speed[rank] = 0.5; }) || better;
    }
    return better;
  }

  static std::vector<double*> terms_of(Case& made) {
    CostModel& cost = made.cost;
    std::vector<double*> terms = {&cost.task_s,
                                  &cost.patch_s,
                                  &cost.patch_pair_s,
                                  &cost.patch_bytes,
                                  &cost.state_bytes,
                                  &cost.token_bytes,
                                  &made.cluster.intra_node.latency_s,
                                  &made.cluster.inter_node.latency_s};
    for (PassCost* pass : {&cost.forward, &cost.backward}) {
      for (double* term : {&pass->token_s, &pass->pair_s, &pass->step_s, &pass->sequence_step_s,
                           &pass->ring_bytes_per_token, &pass->all_to_all_bytes_per_token}) {
        terms.push_back(term);
      }
    }
    return terms;
  }

  /// To nothing, or else to one digit.
  bool simplify_cost() {
    bool better = false;
    const std::size_t count = terms_of(best_).size();
    for (std::size_t term = 0; term < count; ++term) {
      const double value = *terms_of(best_)[term];
      if (value == 0.0) continue;
      const double digit = std::pow(10.0, std::floor(std::log10(value)));
      for (const double simpler : {0.0, 1.0, std::round(value / digit) * digit}) {
        if (simpler == value || value == 1.0) break;
        if (!attempt([&](Case& candidate) { *terms_of(candidate)[term] = simpler; })) continue;
        better = true;
        break;
      }
    }
    if (!best_.cost.residuals.empty()) {
      better = attempt([](Case& candidate) { candidate.cost.residuals.clear(); }) || better;
    }
    const auto links_to_one = [](Case& candidate) { candidate.cluster.intra_node.links = 1; };
    if (best_.cluster.intra_node.links > 1) better = attempt(links_to_one) || better;
    if (best_.cost.layers > 1) better = attempt([](Case& candidate) { candidate.cost.layers = 1; }) || better;
    return better;
  }

  bool shorten_sequences() {
    bool better = false;
    for (std::size_t i = 0; i < best_.batch.sequences.size(); ++i) {
      const auto change = [&](auto&& edit) {
        better = attempt([&](Case& candidate) { edit(candidate.batch.sequences[i]); }) || better;
      };
      const Sequence before = best_.batch.sequences[i];
      if (before.patches > 0) change([](Sequence& sequence) { sequence.patches = sequence.frame_patches = 0; });
      if (before.frame_patches > 0) change([](Sequence& sequence) { sequence.frame_patches = 0; });
      if (before.tokens > 1) change([](Sequence& sequence) { sequence.tokens /= 2; });
    }
    if (best_.batch.sequences.empty()) return better;
    const std::int64_t first = best_.batch.sequences.front().tokens;
    if (std::all_of(best_.batch.sequences.begin(), best_.batch.sequences.end(),
                    [&](const Sequence& one) { return one.tokens <= first; })) {
      return better;
    }
    return attempt([&](Case& candidate) {
             for (Sequence& sequence : candidate.batch.sequences) sequence.tokens = std::min(sequence.tokens, first);
           }) ||
           better;
  }

  Case best_;
  const std::function<bool(const Case&)>& bad_;
  int looks_left_ = 3000;
};

}  // namespace

Case shrink(Case made, const std::function<bool(const Case&)>& bad) { return Shrinker(std::move(made), bad).run(); }

}  // namespace dhp::test
