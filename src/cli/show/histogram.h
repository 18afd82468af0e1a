#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace dhp::cli {

/// Values that fall into [from, to).
struct Bin {
  double from = 0.0;
  double to = 0.0;
  std::size_t count = 0;
};

/// Lengths and how they are spread: bins from 2^k to 1.5 x 2^k and on to 2^(k+1), from that of the least value.
class Histogram {
 public:
  /// Values above 0.
  explicit Histogram(std::vector<double> values);

  const std::vector<Bin>& bins() const { return bins_; }
  /// The value that a share `q` of the values does not exceed, the nearest rank of them.
  double percentile(double q) const;
  double mean() const;
  std::size_t count() const { return sorted_.size(); }

  /// A line with mean and percentiles, to `decimals`, then one a bin: range, share, bar. `unit` is of the numbers.
  std::string text(const std::string& title, const std::string& unit, int decimals, int width) const;
  nlohmann::ordered_json json() const;

 private:
  std::vector<double> sorted_;
  std::vector<Bin> bins_;
};

}  // namespace dhp::cli
