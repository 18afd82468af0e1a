#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>

#include "dhp/error.h"

namespace dhp::test {

/// A file of the shared cases: batches, clusters, cost models and expected values.
inline std::string case_file(const std::string& name) { return std::string(DHP_DATA_DIR) + "/../bench/cases/" + name; }

/// A file of tests/golden.
inline std::string golden_file(const std::string& name) {
  return std::string(DHP_DATA_DIR) + "/../tests/golden/" + name;
}

/// The seed of the first random case: DHP_TEST_SEED (nightly: another each time), or `usual`.
inline std::uint64_t first_seed(std::uint64_t usual) {
  const char* text = std::getenv("DHP_TEST_SEED");
  return text == nullptr ? usual : std::strtoull(text, nullptr, 10);
}

/// How many of `most` random cases to try: DHP_TEST_SHARE of them (CI: 0.1), at least one.
inline std::uint64_t share_of(std::uint64_t most) {
  const char* text = std::getenv("DHP_TEST_SHARE");
  const double cases = std::ceil(static_cast<double>(most) * (text == nullptr ? 1.0 : std::strtod(text, nullptr)));
  return static_cast<std::uint64_t>(std::max(1.0, cases));
}

/// Whole numbers at random, the same on every machine (std::uniform_int_distribution is not).
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  /// In [low, high]; the slight bias of the remainder does not matter here.
  std::int64_t whole(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }
  double unit() { return static_cast<double>(engine_() >> 11U) * 0x1p-53; }

 private:
  std::mt19937_64 engine_;
};

inline void expect_relative(double actual, double expected, double tolerance) {
  EXPECT_LE(std::abs(actual - expected), tolerance * std::abs(expected)) << actual << " against " << expected;
}

/// The message of the InputError that `action` throws; fails the test if it throws none.
inline std::string input_error(const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected an InputError";
  return "";
}

}  // namespace dhp::test
