#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace dhp {

/// Small linear least squares: few columns, any number of rows, each with a weight. Of each row the first `columns`
/// entries of `x` count.
inline constexpr std::size_t kMostColumns = 7;
using Coefficients = std::array<double, kMostColumns>;

struct Row {
  std::array<double, kMostColumns> x = {};
  double y = 0.0;
  double weight = 1.0;
};
using Rows = std::vector<Row>;

double value_of(const Row& row, const Coefficients& coefficients);

/// The coefficients >= 0 with the least sum of weight * (x·c - y)^2. Exact: every set of coefficients that are not zero
/// is solved for, and the best that came out positive is taken; of equals the one with fewer.
Coefficients non_negative_least_squares(const Rows& rows, std::size_t columns);

/// By column: the share of its sum of squares that no combination of the other columns gives (1 - R^2). 0 for a column
/// that is a combination of others, or zero.
std::vector<double> own_shares(const Rows& rows, std::size_t columns);

}  // namespace dhp
