// Steps whose tasks take other times than predicted.

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>

#include "base/random.h"
#include "dhp/metrics.h"
#include "formats/sequence_index.h"

namespace dhp {
namespace {

enum Stream : std::uint64_t { kSequences, kTasks, kRanks };

/// Log-normal of mean 1. The k-th draw of a trial needs no state: trials are the same in any order and on every
/// machine.
double factor(double size, std::uint64_t trial_key, Stream stream, std::uint64_t index) {
  return size > 0.0 ? Random(trial_key, stream, index).log_normal(-size * size / 2, size) : 1.0;
}

}  // namespace

NoiseFactors::NoiseFactors(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                           const ErrorSizes& noise, std::uint64_t seed)
    : plan_(plan), noise_(noise), seed_(seed) {
  validate(noise, "noise");
  require_shape(plan);
  const SequenceIndex sequences(batch);
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    sequences.load_of(plan, i);  // refuses sequences that the batch lacks
    double sum = 0.0;
    for (const std::int64_t id : plan.tasks[i].sequences) {
      alone_s_.push_back(alone_seconds(cost, cluster, *sequences.find(id)));
      sum += alone_s_.back();
    }
    sum_s_.push_back(sum);
  }
}

std::vector<double> NoiseFactors::of_trial(int trial) const {
  const std::uint64_t key = splitmix64(splitmix64(seed_) + static_cast<std::uint64_t>(trial));
  std::vector<double> factors;
  factors.reserve(plan_.tasks.size());
  std::size_t sequence = 0;
  std::uint64_t member = 0;
  for (std::size_t i = 0; i < plan_.tasks.size(); ++i) {
    const Task& task = plan_.tasks[i];
    double mean = 0.0;
    for (const std::int64_t id : task.sequences) {
      mean += alone_s_[sequence++] * factor(noise_.sequence, key, kSequences, static_cast<std::uint64_t>(id));
    }
    double slowest = 0.0;
    for (int rank = 0; rank < task.degree(); ++rank) {
      slowest = std::max(slowest, factor(noise_.rank, key, kRanks, member++));
    }
    const bool has_weight = noise_.sequence > 0.0 && sum_s_[i] > 0.0;
    factors.push_back((has_weight ? mean / sum_s_[i] : 1.0) * factor(noise_.task, key, kTasks, i) * slowest);
  }
  return factors;
}

std::vector<double> noise_factors(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                  const ErrorSizes& noise, std::uint64_t seed, int trial) {
  return NoiseFactors(plan, batch, cluster, cost, noise, seed).of_trial(trial);
}

std::vector<double> noisy_makespans(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                    const ErrorSizes& noise, int trials, std::uint64_t seed) {
  if (trials < 0) throw std::invalid_argument("noisy_makespans: fewer than 0 trials");
  const NoiseFactors factors(plan, batch, cluster, cost, noise, seed);
  const std::vector<double> task_s = predict_task_seconds(plan, batch, cluster, cost);
  std::vector<double> makespans;
  std::vector<double> noisy_s(task_s.size());
  for (int trial = 0; trial < trials; ++trial) {
    const std::vector<double> drawn = factors.of_trial(trial);
    for (std::size_t task = 0; task < task_s.size(); ++task) noisy_s[task] = task_s[task] * drawn[task];
    makespans.push_back(replay(plan, noisy_s).makespan_s);
  }
  return makespans;
}

}  // namespace dhp
