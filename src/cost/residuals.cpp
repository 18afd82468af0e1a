#include <algorithm>
#include <bit>
#include <tuple>

#include "dhp/cost_model.h"

namespace dhp {

double residual_factor(const CostModel& cost, int degree, double longest_tokens) {
  if (degree == 1 || cost.residuals.empty() || longest_tokens < 1.0) return 1.0;
  const auto tokens = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(longest_tokens)));
  const auto before = [](const ResidualFactor& a, const std::pair<int, std::int64_t>& b) {
    return std::tie(a.degree, a.tokens) < std::tie(b.first, b.second);
  };
  const auto found = std::lower_bound(cost.residuals.begin(), cost.residuals.end(), std::pair{degree, tokens}, before);
  const bool is_there = found != cost.residuals.end() && found->degree == degree && found->tokens == tokens;
  return is_there ? found->factor : 1.0;
}

double least_residual_factor(const CostModel& cost) {
  double least = 1.0;
  for (const ResidualFactor& residual : cost.residuals) least = std::min(least, residual.factor);
  return least;
}

}  // namespace dhp
