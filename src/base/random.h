#pragma once

#include <cstdint>

namespace dhp {

/// The output function of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
std::uint64_t splitmix64(std::uint64_t z);

/// e^x and ln(x) by plain arithmetic, the same bits on every machine, which those of libraries are not. Relative error
/// below 1e-14 where the result is a normal number; x > 0 for the logarithm.
double portable_exp(double x);
double portable_log(double x);

/// Random numbers without state between samples: sample `index` of `stream` has its own sequence, whatever was drawn
/// before and on which machine. splitmix64 over a counter.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t stream, std::uint64_t index);

  std::uint64_t bits();
  /// In [0, 1), a multiple of 2^-53.
  double unit();
  /// In [low, high]; low <= high, fewer than 2^53 of them.
  std::int64_t whole(std::int64_t low, std::int64_t high);
  /// Of mean 0 and variance 1 (polar method of Marsaglia).
  double normal();
  /// e^(mu + sigma x normal).
  double log_normal(double mu, double sigma);
  /// Failures before the first success of that probability.
  std::int64_t geometric(double success);

 private:
  std::uint64_t key_;
  std::uint64_t count_ = 0;
};

}  // namespace dhp
