// Megatron-Core's BalancedCPScheduler (main, PRs #2054 and #2282), from its rules: a sample's degree follows from its
// length alone, samples run one at a time, and a barrier ends each round.

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "plan/megatron.h"
#include "plan/planners.h"

namespace dhp {
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

  bool any_group_of(int degree) const {
    return std::any_of(round_.begin(), round_.end(), [&](const Group& group) { return group.degree == degree; });
  }

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
  Group& group_for(int degree) {
    if (degree <= domain_.ranks() - used_) {
      used_ += degree;
      return round_.emplace_back(Group{.degree = degree});
    }
    Group* best = nullptr;
    for (Group& group : round_) {
      if (group.degree == degree && (best == nullptr || group.load < best->load)) best = &group;
    }
    return *best;
  }

  void place() {
    std::optional<int> first_degree;
    bool may_end = false;  // only once a sample of a smaller degree than the first's is placed
    for (auto bucket = placeable(); bucket != buckets_.end(); bucket = placeable()) {
      const Sample sample = bucket->samples[bucket->next++];
      const int degree = domain_.degree_of(sample.tokens);
      if (!first_degree) first_degree = degree;
      Group& group = group_for(degree);
      group.samples.push_back(sample);
      group.load += work(sample);
      while (!buckets_.empty() && buckets_.front().empty()) buckets_.erase(buckets_.begin());
      may_end = may_end || degree < *first_degree;
      if (may_end && !buckets_.empty() && balanced(most(), least())) return;
    }
  }

  double most() const {
    double load = 0.0;
    for (const Group& group : round_) load = std::max(load, group.load);
    return load;
  }
  /// An empty rank counts: while there is one, no round is balanced.
  double least() const {
    if (used_ < domain_.ranks()) return 0.0;
    double load = std::numeric_limits<double>::infinity();
    for (const Group& group : round_) load = std::min(load, group.load);
    return load;
  }
  static bool balanced(double most, double least) { return most - least <= kBalanced * most; }

  /// Takes the last sample off the most loaded group while that brings the loads closer together.
  void trim() {
    while (!round_.empty()) {
      const double slack = most() - least();
      if (balanced(most(), least()) || least() == 0.0) return;
      const auto lighter = [](const Group& a, const Group& b) { return a.load < b.load; };
      Group& group = *std::max_element(round_.begin(), round_.end(), lighter);
      if (group.samples.size() <= 1) return;
      const Sample sample = group.samples.back();
      const double load = std::exchange(group.load, group.load - work(sample));
      if (most() - least() >= slack) {
        group.load = load;
        return;
      }
      group.samples.pop_back();
      left_.push_back(sample);
    }
  }

  const Domain& domain_;
  std::vector<Bucket> buckets_;
  Round round_;
  int used_ = 0;  ///< ranks of the round's groups, before the fill
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

}  // namespace dhp
