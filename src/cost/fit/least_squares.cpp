#include "cost/fit/least_squares.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

namespace dhp {
namespace {

using Matrix = std::array<std::array<double, kMostColumns>, kMostColumns>;

/// Normal equations, columns scaled to length 1.
struct Normal {
  Matrix gram = {};
  Coefficients right = {};
  Coefficients scale = {};  // length of each column
};

Normal normal_equations(const Rows& rows, std::size_t columns) {
  Normal normal;
  for (std::size_t j = 0; j < columns; ++j) {
    for (const Row& row : rows) normal.scale[j] += row.weight * row.x[j] * row.x[j];
    normal.scale[j] = std::sqrt(normal.scale[j]);
  }
  const auto scaled = [&](const Row& row, std::size_t j) {
    return normal.scale[j] > 0.0 ? row.x[j] / normal.scale[j] : 0.0;
  };
  for (const Row& row : rows) {
    for (std::size_t j = 0; j < columns; ++j) {
      normal.right[j] += row.weight * scaled(row, j) * row.y;
      for (std::size_t k = 0; k < columns; ++k) normal.gram[j][k] += row.weight * scaled(row, j) * scaled(row, k);
    }
  }
  return normal;
}

/// Cholesky factor of the rows and columns of `gram` that are in the set; its diagonal holds, for the last column of
/// the set, the length that the columns before do not explain. Nothing where the set is not independent.
constexpr double kLeastPivot = 1e-12;  // of 1: beyond it, rounding of the sums decides

std::optional<Matrix> factor(const Matrix& gram, const std::vector<std::size_t>& set) {
  Matrix lower = {};
  for (std::size_t i = 0; i < set.size(); ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      double sum = gram[set[i]][set[j]];
      for (std::size_t k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
      if (i != j) {
        lower[i][j] = sum / lower[j][j];
      } else if (sum > kLeastPivot) {
        lower[i][i] = std::sqrt(sum);
      } else {
        return std::nullopt;
      }
    }
  }
  return lower;
}

/// The unconstrained solution over the columns of the set, in scaled units.
std::optional<Coefficients> solve(const Normal& normal, const std::vector<std::size_t>& set) {
  const auto lower = factor(normal.gram, set);
  if (!lower) return std::nullopt;
  Coefficients middle = {};
  for (std::size_t i = 0; i < set.size(); ++i) {
    middle[i] = normal.right[set[i]];
    for (std::size_t k = 0; k < i; ++k) middle[i] -= (*lower)[i][k] * middle[k];
    middle[i] /= (*lower)[i][i];
  }
  Coefficients solution = {};
  for (std::size_t i = set.size(); i-- > 0;) {
    double value = middle[i];
    for (std::size_t k = i + 1; k < set.size(); ++k) value -= (*lower)[k][i] * solution[set[k]];
    solution[set[i]] = value / (*lower)[i][i];
  }
  return solution;
}

std::vector<std::size_t> members_of(unsigned set, std::size_t columns) {
  std::vector<std::size_t> members;
  for (std::size_t j = 0; j < columns; ++j) {
    if ((set >> j & 1U) != 0) members.push_back(j);
  }
  return members;
}

}  // namespace

double value_of(const Row& row, const Coefficients& coefficients) {
  double value = 0.0;
  for (std::size_t j = 0; j < kMostColumns; ++j) value += row.x[j] * coefficients[j];
  return value;
}

Coefficients non_negative_least_squares(const Rows& rows, std::size_t columns) {
  const Normal normal = normal_equations(rows, columns);
  std::vector<unsigned> sets(1U << columns);
  for (unsigned set = 0; set < sets.size(); ++set) sets[set] = set;
  std::stable_sort(sets.begin(), sets.end(),
                   [](unsigned a, unsigned b) { return std::popcount(a) < std::popcount(b); });
  Coefficients best = {};
  double best_gain = 0.0;  // what the solution takes off the sum of squares: its product with the right side
  for (const unsigned set : sets) {
    const auto members = members_of(set, columns);
    const auto solution = solve(normal, members);
    if (!solution) continue;
    double gain = 0.0;
    bool positive = true;
    for (const std::size_t j : members) {
      positive = positive && (*solution)[j] >= 0.0;
      gain += (*solution)[j] * normal.right[j];
    }
    if (positive && gain > best_gain) {
      best = *solution;
      best_gain = gain;
    }
  }
  for (std::size_t j = 0; j < columns; ++j) best[j] = normal.scale[j] > 0.0 ? best[j] / normal.scale[j] : 0.0;
  return best;
}

std::vector<double> own_shares(const Rows& rows, std::size_t columns) {
  const Normal normal = normal_equations(rows, columns);
  std::vector<double> shares(columns, 0.0);
  for (std::size_t j = 0; j < columns; ++j) {
    // The others first, as far as they are independent of each other; then this one: its pivot is what it has alone.
    std::vector<std::size_t> set;
    for (std::size_t k = 0; k < columns; ++k) {
      if (k == j) continue;
      set.push_back(k);
      if (!factor(normal.gram, set)) set.pop_back();
    }
    set.push_back(j);
    if (const auto lower = factor(normal.gram, set)) {
      const double pivot = (*lower)[set.size() - 1][set.size() - 1];
      shares[j] = pivot * pivot;
    }
  }
  return shares;
}

}  // namespace dhp
