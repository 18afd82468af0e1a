#include "base/random.h"

#include <cmath>

namespace dhp {
namespace {

constexpr double kLn2 = 0.69314718055994530942;

}  // namespace

std::uint64_t splitmix64(std::uint64_t z) {
  z += 0x9e3779b97f4a7c15U;
  z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
  z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
  return z ^ (z >> 31U);
}

double portable_exp(double x) {
  constexpr double kLargest = 709.0;
  constexpr double kSmallest = -745.0;
  if (x > kLargest) x = kLargest;
  if (x < kSmallest) return 0.0;
  const double doublings = std::nearbyint(x / kLn2);
  const double rest = x - doublings * kLn2;  // at most ln(2) / 2 in size: 18 terms reach 2^-53
  double sum = 1.0;
  for (int k = 18; k >= 1; --k) sum = 1.0 + sum * rest / k;
  return std::ldexp(sum, static_cast<int>(doublings));
}

double portable_log(double x) {
  constexpr double kHalfRoot = 0.70710678118654752440;
  int exponent = 0;
  double mantissa = std::frexp(x, &exponent);  // in [0.5, 1)
  if (mantissa < kHalfRoot) {
    mantissa *= 2.0;
    --exponent;
  }
  // ln(m) = 2 artanh((m - 1) / (m + 1)); the argument is below 0.172, so that 11 terms reach 2^-53.
  const double ratio = (mantissa - 1.0) / (mantissa + 1.0);
  double sum = 0.0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * ratio * ratio + 1.0 / k;
  return 2.0 * ratio * sum + exponent * kLn2;
}

Random::Random(std::uint64_t seed, std::uint64_t stream, std::uint64_t index)
    : key_(splitmix64(splitmix64(splitmix64(seed) + stream) + index)) {}

std::uint64_t Random::bits() { return splitmix64(key_ + count_++); }

double Random::unit() { return static_cast<double>(bits() >> 11U) * 0x1p-53; }

std::int64_t Random::whole(std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(std::floor(unit() * static_cast<double>(high - low + 1)));
}

double Random::normal() {
  for (;;) {
    const double x = 2.0 * unit() - 1.0;
    const double y = 2.0 * unit() - 1.0;
    const double square = x * x + y * y;
    if (square < 1.0 && square > 0.0) return x * std::sqrt(-2.0 * portable_log(square) / square);
  }
}

double Random::log_normal(double mu, double sigma) { return portable_exp(mu + sigma * normal()); }

std::int64_t Random::geometric(double success) {
  return static_cast<std::int64_t>(std::floor(portable_log(1.0 - unit()) / portable_log(1.0 - success)));
}

}  // namespace dhp
