// Megatron-Core's BalancedCPScheduler (main, PRs #2054 and #2282), from its rules: a sample's degree follows from its
// length alone, samples run one at a time, and a barrier ends each round.

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <utility>
#include <vector>

#include "base/number_limits.h"
#include "plan/peers/megatron.h"
#include "plan/peers/peers.h"

namespace dhp::plan {
namespace {

using namespace megatron;

constexpr double kBalanced = 0.05;     ///< slack of a balanced round, as a share of the largest load
constexpr double kBucketExcess = 1.1;  ///< of its even share of the work, at which a bucket is closed

/// Samples in order; those before `next` are placed.
struct Bucket {
  std::vector<Sample> samples;
  std::size_t next = 0;

  bool empty() const { return next == samples.size(); }
};

class HybridRound {
 public:
  HybridRound(const Domain& domain, const std::vector<Sample>& samples) : domain_(domain) { make_buckets(samples); }

  /// Places what this round takes; the rest, in the order of the next round, is in left().
  std::optional<Stop> run() {
    place();
    for (const Bucket& bucket : buckets_) {
      left_.insert(left_.end(), bucket.samples.begin() + static_cast<std::ptrdiff_t>(bucket.next),
                   bucket.samples.end());
    }
    trim();
    if (round_.empty()) return Stop{"it asserts that a round has a group: " + domain_.needs_too_many(left_.front())};
    const auto filled = fill_by_doubling(domain_, round_);
    if (const Stop* stop = std::get_if<Stop>(&filled)) return *stop;
    if (std::get<Filled>(filled) == Filled::no_group_expands) {
      return Stop{"its fill rule raises: doubling its first smallest group goes beyond the last rank"};
    }
    return std::nullopt;
  }

  Round take_round() { return std::move(round_); }
  std::vector<Sample> take_left() { return std::move(left_); }

 private:
  double work(const Sample& sample) const { return Domain::work(sample.tokens, domain_.degree_of(sample.tokens)); }

  /// As many buckets as there are degrees, of about equal work.
  void make_buckets(const std::vector<Sample>& samples) {
    std::set<int> degrees;
    double total = 0.0;
    for (const Sample& sample : samples) {
      degrees.insert(domain_.degree_of(sample.tokens));
      total += work(sample);
    }
    const double target = total / static_cast<double>(degrees.size());
    // Both shrink when a bucket is closed, so that samples are saved for half of the buckets only. That is their rule.
    std::ptrdiff_t buckets_left = std::ssize(degrees);
    double filled = 0.0;
    Bucket current;
    for (std::size_t i = 0; i < samples.size(); ++i) {
      const bool too_much = filled + work(samples[i]) > target * kBucketExcess;
      const bool save = std::ssize(samples) - static_cast<std::ptrdiff_t>(i) <= buckets_left - std::ssize(buckets_);
      if (!current.samples.empty() && (too_much || save)) {
        buckets_.push_back(std::exchange(current, {}));
        filled = 0.0;
        --buckets_left;
      }
      current.samples.push_back(samples[i]);
      filled += work(samples[i]);
    }
    buckets_.push_back(std::move(current));
  }

  bool any_group_of(int degree) const { return lightest_.contains(degree); }

  /// The first bucket whose next sample can be placed.
  std::vector<Bucket>::iterator placeable() {
    const int free = domain_.ranks() - used_;
    return std::find_if(buckets_.begin(), buckets_.end(), [&](const Bucket& bucket) {
      if (bucket.empty()) return false;
      const int degree = domain_.degree_of(bucket.samples[bucket.next].tokens);
      return degree <= free || any_group_of(degree);
    });
  }

  /// Free ranks have no load, so a fresh group goes before every group there is; else the least loaded of the degree.
  std::size_t group_for(int degree) {
    if (degree <= domain_.ranks() - used_) {
      used_ += degree;
      round_.push_back({.degree = degree});
      return round_.size() - 1;
    }
    Lightest& same = lightest_.at(degree);
    const std::size_t group = same.top().second;
    same.pop();
    return group;
  }

  void place() {
    std::optional<int> first_degree;
    bool may_end = false;  // only once a sample of a smaller degree than the first's is placed
    for (auto bucket = placeable(); bucket != buckets_.end(); bucket = placeable()) {
      const Sample sample = bucket->samples[bucket->next++];
      const int degree = domain_.degree_of(sample.tokens);
      if (!first_degree) first_degree = degree;
      const std::size_t number = group_for(degree);
      Group& group = round_[number];
      group.samples.push_back(sample);
      group.load += work(sample);
      lightest_[degree].emplace(group.load, number);
      most_ = std::max(most_, group.load);
      while (!buckets_.empty() && buckets_.front().empty()) buckets_.erase(buckets_.begin());
      may_end = may_end || degree < *first_degree;
      if (may_end && !buckets_.empty() && balanced(most_, least())) return;
    }
  }

  /// An empty rank counts: while there is one, no round is balanced.
  double least() const {
    if (used_ < domain_.ranks()) return 0.0;
    double load = kInfinity;
    for (const auto& [degree, groups] : lightest_) load = std::min(load, groups.top().first);
    return load;
  }
  static bool balanced(double most, double least) { return most - least <= kBalanced * most; }

  /// Takes the last sample off the most loaded group while that brings the loads closer together.
  void trim() {
    if (used_ < domain_.ranks()) return;                // an empty rank has no load
    std::set<std::pair<double, std::ptrdiff_t>> loads;  // and minus the group: of equals the first is the last here
    for (std::ptrdiff_t i = 0; i < std::ssize(round_); ++i) loads.emplace(round_[static_cast<std::size_t>(i)].load, -i);
    while (!loads.empty()) {
      const double most = loads.rbegin()->first;
      const double least = loads.begin()->first;
      if (balanced(most, least) || least == 0.0) return;
      Group& group = round_[static_cast<std::size_t>(-loads.rbegin()->second)];
      if (group.samples.size() <= 1) return;
      const Sample sample = group.samples.back();
      const double load = group.load - work(sample);
      auto changed = loads.extract(std::prev(loads.end()));
      changed.value().first = load;
      loads.insert(std::move(changed));
      if (loads.rbegin()->first - loads.begin()->first >= most - least) return;
      group.load = load;
      group.samples.pop_back();
      left_.push_back(sample);
    }
  }

  /// Groups of one degree: the least loaded on top, of equals the first.
  using Lightest =
      std::priority_queue<std::pair<double, std::size_t>, std::vector<std::pair<double, std::size_t>>, std::greater<>>;

  const Domain& domain_;
  std::vector<Bucket> buckets_;
  Round round_;
  std::map<int, Lightest> lightest_;  ///< by degree, while samples are placed
  double most_ = 0.0;                 ///< largest load, while samples are placed
  int used_ = 0;                      ///< ranks of the round's groups, before the fill
  std::vector<Sample> left_;
};

std::variant<std::vector<Round>, Stop> schedule_hybrid(const Domain& domain, const std::vector<Sample>& by_length) {
  std::vector<Sample> samples = by_length;
  std::vector<Round> rounds;
  while (!samples.empty()) {
    HybridRound round(domain, samples);
    if (auto stop = round.run()) return std::move(*stop);
    rounds.push_back(round.take_round());
    samples = round.take_left();
  }
  return rounds;
}

}  // namespace

PlanResult plan_megatron_hybrid(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                std::optional<int> argument) {
  return plan_with(schedule_hybrid, Schedule::rounds, batch, limits, options, argument);
}

}  // namespace dhp::plan
