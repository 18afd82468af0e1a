// Megatron-Core's DefaultDynamicCPScheduler (dev, PRs #2000, #3405 and #5154), from its rules: micro-batch by
// micro-batch, packed groups of power-of-two degrees under a cap on work, then every rank is given something.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/number_limits.h"
#include "plan/peers/megatron.h"
#include "plan/peers/peers.h"

namespace dhp::plan {
namespace {

using namespace megatron;

/// What a rank may work, over the longest sample's tokens times M.
constexpr double kCapSlack = 0.05;

/// Groups of one degree, in the order in which they were opened: the least loaded of those with room, without a look at
/// all of them. A tree of the least of each half.
class GroupTree {
 public:
  explicit GroupTree(int most_groups)
      : leaves_(std::bit_ceil(static_cast<std::size_t>(most_groups))), nodes_(2 * leaves_) {}

  /// The slot of a new group.
  std::size_t add(int group) {
    groups_.push_back(group);
    return groups_.size() - 1;
  }
  /// `packed`: tokens of a rank.
  void set(std::size_t slot, double packed, double load) {
    std::size_t node = leaves_ + slot;
    nodes_[node] = {packed, load};
    for (node /= 2; node > 0; node /= 2) {
      const Node& left = nodes_[2 * node];
      const Node& right = nodes_[2 * node + 1];
      nodes_[node] = {std::min(left.packed, right.packed), std::min(left.load, right.load)};
    }
  }
  /// Of the groups whose packed tokens leave room; infinite if there is none.
  double least_load(const auto& leaves_room) const {
    double least = kInfinity;
    lower(1, leaves_room, least);
    return least;
  }
  /// The first group that leaves room and is light; -1: none.
  int first(const auto& leaves_room, const auto& is_light) const { return first_of(1, leaves_room, is_light); }

 private:
  struct Node {
    double packed = kInfinity;
    double load = kInfinity;
  };

  void lower(std::size_t node, const auto& leaves_room, double& least) const {
    if (nodes_[node].load >= least || !leaves_room(nodes_[node].packed)) return;
    if (node >= leaves_) {
      least = nodes_[node].load;
      return;
    }
    const bool right_first = nodes_[2 * node + 1].load < nodes_[2 * node].load;
    lower(2 * node + (right_first ? 1 : 0), leaves_room, least);
    lower(2 * node + (right_first ? 0 : 1), leaves_room, least);
  }
  int first_of(std::size_t node, const auto& leaves_room, const auto& is_light) const {
    if (!leaves_room(nodes_[node].packed) || !is_light(nodes_[node].load)) return -1;
    if (node >= leaves_) return groups_[node - leaves_];
    const int left = first_of(2 * node, leaves_room, is_light);
    return left >= 0 ? left : first_of(2 * node + 1, leaves_room, is_light);
  }

  std::size_t leaves_;
  std::vector<Node> nodes_;
  std::vector<int> groups_;  // by slot
};

class DynamicMicroBatch {
 public:
  /// `samples` by falling length.
  DynamicMicroBatch(const Domain& domain, const std::vector<Sample>& samples)
      : domain_(domain),
        samples_(samples),
        cap_(static_cast<double>(samples.front().tokens) * static_cast<double>(domain.tokens_per_rank()) *
             (1.0 + kCapSlack)) {}

  /// Places what this micro-batch takes; the rest, by falling length, is in left().
  std::optional<Stop> run() {
    const Sample& longest = samples_.front();
    const int degree = domain_.degree_of(longest.tokens);
    if (degree > domain_.ranks()) {
      return Stop{"it asserts that the longest sample fits the ranks: " + domain_.needs_too_many(longest)};
    }
    join(longest, {.degree = degree});
    for (std::size_t i = 1; i < samples_.size(); ++i) {
      const Choice choice = best_choice(samples_[i]);
      if (choice.degree == 0) {
        left_.push_back(samples_[i]);
      } else {
        join(samples_[i], choice);
      }
    }
    const auto filled = fill_by_doubling(domain_, round_);
    if (const Stop* stop = std::get_if<Stop>(&filled)) return *stop;
    if (std::get<Filled>(filled) == Filled::no_group_expands && domain_.limits().allows(domain_.ranks())) {
      return put_on_all_ranks();
    }
    return std::nullopt;
  }

  Round take_round() { return std::move(round_); }
  std::vector<Sample> take_left() { return std::move(left_); }

 private:
  struct Choice {
    double most = 0.0;  ///< the largest load then
    int degree = 0;     ///< 0: none
    int group = -1;     ///< -1: a new one on free ranks
  };

  double shard(const Sample& sample, int degree) const { return static_cast<double>(sample.tokens) / degree; }

  void join(const Sample& sample, const Choice& choice) {
    if (choice.group < 0) {
      round_.push_back({.degree = choice.degree});
      packed_.push_back(0.0);
      used_ += choice.degree;
      GroupTree& tree = trees_.try_emplace(choice.degree, domain_.ranks() / choice.degree).first->second;
      slot_.push_back(tree.add(static_cast<int>(round_.size()) - 1));
    }
    const std::size_t index = choice.group < 0 ? round_.size() - 1 : static_cast<std::size_t>(choice.group);
    Group& group = round_[index];
    group.samples.push_back(sample);
    group.load += Domain::work(sample.tokens, group.degree);
    packed_[index] += shard(sample, group.degree);
    most_ = std::max(most_, group.load);
    trees_.at(group.degree).set(slot_[index], packed_[index], group.load);
  }

  /// Least projected load, then least degree, then the first group, then free ranks.
  Choice best_choice(const Sample& sample) const {
    Choice best;
    best.most = kInfinity;
    const auto consider = [&](double load, int degree, int group) {
      const double most = std::max(most_, load);
      if (most <= cap_ && most < best.most) best = {most, degree, group};
    };
    for (int degree = domain_.degree_of(sample.tokens); degree <= domain_.ranks(); degree *= 2) {
      if (!domain_.limits().allows(degree)) continue;
      const double work = Domain::work(sample.tokens, degree);
      if (const auto tree = trees_.find(degree); tree != trees_.end()) {
        const double more = shard(sample, degree);
        const auto leaves_room = [&](double packed) {
          return packed + more <= static_cast<double>(domain_.tokens_per_rank());
        };
        const double load = std::max(most_, tree->second.least_load(leaves_room) + work);
        const int group = tree->second.first(leaves_room, [&](double other) { return other + work <= load; });
        if (group >= 0) consider(load, degree, group);
      }
      if (domain_.ranks() - used_ >= degree) consider(work, degree, -1);
    }
    return best;
  }

  /// The way out where doubling cannot fill the ranks: the plan is dropped, and one group of all ranks takes what fits.
  std::optional<Stop> put_on_all_ranks() {
    Group all{.degree = domain_.ranks()};
    left_.clear();
    double packed = 0.0;
    for (const Sample& sample : samples_) {
      const double more = shard(sample, all.degree);
      if (packed + more > static_cast<double>(domain_.tokens_per_rank())) {
        left_.push_back(sample);
        continue;
      }
      all.samples.push_back(sample);
      packed += more;
    }
    if (all.samples.empty()) return Stop{"it asserts that a sample fits the group of all ranks"};
    round_.clear();
    round_.push_back(std::move(all));
    return std::nullopt;
  }

  const Domain& domain_;
  const std::vector<Sample>& samples_;
  double cap_;
  Round round_;
  std::vector<double> packed_;      ///< tokens of a rank, one a group
  std::map<int, GroupTree> trees_;  ///< by degree
  std::vector<std::size_t> slot_;   ///< in the tree of its degree, one a group
  int used_ = 0;                    ///< ranks of the groups, before the fill
  double most_ = 0.0;               ///< largest load of a rank
  std::vector<Sample> left_;
};

std::variant<std::vector<Round>, Stop> schedule_dynamic(const Domain& domain, const std::vector<Sample>& by_length) {
  std::vector<Sample> samples = by_length;
  std::vector<Round> rounds;
  while (!samples.empty()) {
    DynamicMicroBatch micro_batch(domain, samples);
    if (auto stop = micro_batch.run()) return std::move(*stop);
    rounds.push_back(micro_batch.take_round());
    samples = micro_batch.take_left();
  }
  return rounds;
}

}  // namespace

PlanResult plan_megatron_dynamic(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                 std::optional<int> argument) {
  return plan_with(schedule_dynamic, Schedule::lockstep, batch, limits, options, argument);
}

}  // namespace dhp::plan
