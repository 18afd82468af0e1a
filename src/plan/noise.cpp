// Steps whose tasks take other times than predicted.

#include <cstdint>
#include <stdexcept>

#include "dhp/metrics.h"

namespace dhp {
namespace {

/// splitmix64: the k-th draw of a trial needs no state, so trials are the same in any order and on every machine.
std::uint64_t mix(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

/// Nearly normal, mean 0 and variance 1: the sum of twelve uniform numbers (Irwin-Hall). Sums of multiples of 2^-53
/// stay the same everywhere, which logarithms and cosines of libraries do not.
double normal(std::uint64_t key) {
  constexpr std::uint64_t kSummands = 12;
  double sum = 0.0;
  for (std::uint64_t i = 0; i < kSummands; ++i) sum += static_cast<double>(mix(key + i) >> 11U) * 0x1p-53;
  return sum - 6.0;
}

/// e^x for |x| <= 7 or so, by plain arithmetic: libraries round std::exp differently. The series of e^(x/64), raised to
/// the power of 64 by squaring; relative error about 1e-14.
double exponential(double x) {
  constexpr double kSlices = 64.0;
  constexpr int kSquarings = 6;
  constexpr int kTerms = 14;
  double power = 1.0;
  for (int k = kTerms; k >= 1; --k) power = 1.0 + power * (x / kSlices) / k;
  for (int i = 0; i < kSquarings; ++i) power *= power;
  return power;
}

void check_noise(double noise) {
  if (!(noise >= 0.0 && noise <= kMostNoise)) throw std::invalid_argument("noise outside 0 to 1");
}

}  // namespace

std::vector<double> noise_factors(std::size_t tasks, double noise, std::uint64_t seed, int trial) {
  check_noise(noise);
  const std::uint64_t trial_key = mix(mix(seed) + static_cast<std::uint64_t>(trial));
  std::vector<double> factors(tasks);
  for (std::size_t task = 0; task < tasks; ++task) {
    factors[task] = exponential(noise * normal(mix(trial_key + task)) - noise * noise / 2);  // of mean 1
  }
  return factors;
}

std::vector<double> noisy_makespans(const Plan& plan, std::span<const double> task_s, double noise, int trials,
                                    std::uint64_t seed) {
  check_noise(noise);
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
