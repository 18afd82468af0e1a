// Steps whose tasks take other times than predicted.

#include <cstdint>
#include <stdexcept>

#include "base/random.h"
#include "dhp/metrics.h"

namespace dhp {
namespace {

/// Nearly normal, mean 0 and variance 1: the sum of twelve uniform numbers (Irwin-Hall). Sums of multiples of 2^-53
/// stay the same everywhere, which logarithms and cosines of libraries do not.
double normal(std::uint64_t key) {
  constexpr std::uint64_t kSummands = 12;
  double sum = 0.0;
  for (std::uint64_t i = 0; i < kSummands; ++i) sum += static_cast<double>(splitmix64(key + i) >> 11U) * 0x1p-53;
  return sum - 6.0;
}

void check_noise(double noise) {
  if (!(noise >= 0.0 && noise <= kMostNoise)) throw std::invalid_argument("noise outside 0 to 1");
}

}  // namespace

std::vector<double> noise_factors(std::size_t tasks, double noise, std::uint64_t seed, int trial) {
  check_noise(noise);
  // The k-th draw of a trial needs no state: trials are the same in any order and on every machine.
  const std::uint64_t trial_key = splitmix64(splitmix64(seed) + static_cast<std::uint64_t>(trial));
  std::vector<double> factors(tasks);
  for (std::size_t task = 0; task < tasks; ++task) {
    factors[task] = portable_exp(noise * normal(splitmix64(trial_key + task)) - noise * noise / 2);  // of mean 1
  }
  return factors;
}

std::vector<double> noisy_makespans(const Plan& plan, std::span<const double> task_s, double noise, int trials,
                                    std::uint64_t seed) {
  check_noise(noise);
  require_shape(plan);
  if (trials < 0) throw std::invalid_argument("noisy_makespans: fewer than 0 trials");
  std::vector<double> makespans;
  std::vector<double> noisy_s(task_s.size());
  for (int trial = 0; trial < trials; ++trial) {
    const std::vector<double> factors = noise_factors(task_s.size(), noise, seed, trial);
    for (std::size_t task = 0; task < task_s.size(); ++task) noisy_s[task] = task_s[task] * factors[task];
    makespans.push_back(replay(plan, noisy_s).makespan_s);
  }
  return makespans;
}

}  // namespace dhp
