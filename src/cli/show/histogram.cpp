#include "cli/show/histogram.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "cli/show/json.h"
#include "cli/show/report.h"
#include "cli/show/table.h"

namespace dhp::cli {
namespace {

constexpr std::array<double, 8> kShares = {0.01, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99};

/// With commas between groups of three digits.
std::string number_text(double value, int decimals) {
  if (decimals > 0) return fixed_text(value, decimals);
  return grouped(static_cast<std::int64_t>(std::lround(value)));
}

/// As few decimals as it needs.
std::string edge_text(double value) {
  return value == std::floor(value) ? number_text(value, 0) : fixed_text(value, 1);
}

std::string share_name(double share) { return std::string("p").append(std::to_string(std::lround(share * 100.0))); }

/// Eighths of a cell, so that small shares show.
std::string bar(double share, double most, int cells) {
  constexpr int kParts = 8;
  constexpr std::array<const char*, kParts> kSlices = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int parts = share > 0.0 ? std::max(1, static_cast<int>(std::lround(share / most * cells * kParts))) : 0;
  std::string text;
  for (int i = 0; i < parts / kParts; ++i) text += "█";
  return text + kSlices.at(static_cast<std::size_t>(parts % kParts));
}

}  // namespace

Histogram::Histogram(std::vector<double> values) : sorted_(std::move(values)) {
  std::sort(sorted_.begin(), sorted_.end());
  if (sorted_.empty()) return;
  double power = std::exp2(std::floor(std::log2(sorted_.front())));
  double edge = sorted_.front() < 1.5 * power ? power : 1.5 * power;
  std::size_t below = 0;
  while (below < sorted_.size()) {
    const double next = edge == power ? 1.5 * power : 2.0 * power;
    const auto end = std::lower_bound(sorted_.begin(), sorted_.end(), next);
    const auto up_to = static_cast<std::size_t>(end - sorted_.begin());
    bins_.push_back({edge, next, up_to - below});
    below = up_to;
    if (edge != power) power *= 2.0;
    edge = next;
  }
}

double Histogram::percentile(double q) const { return sorted_.empty() ? 0.0 : percentile_of_sorted(sorted_, q); }

double Histogram::mean() const {
  if (sorted_.empty()) return 0.0;
  return std::accumulate(sorted_.begin(), sorted_.end(), 0.0) / static_cast<double>(sorted_.size());
}

std::string Histogram::text(const std::string& title, const std::string& unit, int decimals, int width) const {
  if (sorted_.empty()) return title + "\n  none\n";
  const auto number = [&](double value) { return number_text(value, decimals); };
  std::string text = title + "\n  mean " + number(mean()) + " " + unit + ", min " + number(sorted_.front());
  for (const double share : kShares) text += ", " + share_name(share) + " " + number(percentile(share));
  text += ", max " + number(sorted_.back()) + "\n";
  std::size_t most = 0;
  for (const Bin& bin : bins_) most = std::max(most, bin.count);
  const double all = static_cast<double>(sorted_.size());
  TextTable table({{unit}, {"share"}, {"", TextTable::Align::left}});
  constexpr int kBesideBars = 34;
  constexpr int kFewestCells = 10;
  const int cells = std::max(kFewestCells, width - kBesideBars);
  for (const Bin& bin : bins_) {
    const double share = static_cast<double>(bin.count) / all;
    table.add({edge_text(bin.from) + " to < " + edge_text(bin.to), percent_text(share),
               bar(share, static_cast<double>(most) / all, cells)});
  }
  return text + table.text("  ");
}

nlohmann::ordered_json Histogram::json() const {
  if (sorted_.empty()) return {{"count", 0}, {"histogram", Json::array()}};
  Json percentiles = Json::object();
  for (const double share : kShares) percentiles[share_name(share)] = percentile(share);
  Json bins = Json::array();
  for (const Bin& bin : bins_) {
    bins.push_back({{"from", bin.from},
                    {"to", bin.to},
                    {"count", bin.count},
                    {"share", static_cast<double>(bin.count) / static_cast<double>(sorted_.size())}});
  }
  return {{"count", sorted_.size()},    {"mean", mean()},   {"min", sorted_.front()}, {"max", sorted_.back()},
          {"percentiles", percentiles}, {"histogram", bins}};
}

}  // namespace dhp::cli
