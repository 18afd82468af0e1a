#include "dhp/device.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <optional>

#include "core/json_reader.h"
#include "dhp/error.h"
#include "dhp/presets.h"

namespace dhp {
namespace {

constexpr int kMaxHeads = 1 << 12;
constexpr double kMaxTokens = 1e9;
// Far beyond any device, and all that is counted stays a finite number.
constexpr double kMinRate = 1.0;  // FLOP or bytes a second
constexpr double kMaxRate = 1e21;
constexpr double kMaxSeconds = 1e6;
constexpr double kMaxBytes = 1e18;

double bounded(const JsonObject& entry, const char* key, double min, double max) {
  const double value = entry.number(key);
  if (value < min || value > max) {
    entry.fail(key, "found " + number_text(value) + ", expected a number from " + format_number(min) + " to " +
                        format_number(max));
  }
  return value;
}

double pairs_of(const AttentionTable& table, double tokens) { return tokens * tokens / (table.causal ? 2.0 : 1.0); }

// Two matrix products of 2 * head_dim FLOP a pair and head.
double pair_flop(const AttentionTable& table) { return 4.0 * table.heads * table.head_dim; }

/// Seconds a FLOP at a length: one row of the regression. Unknowns: seconds a FLOP, of a token's and of a sequence's
/// fixed work in seconds and pairs a FLOP.
constexpr std::size_t kUnknowns = 3;
using Row = std::array<double, kUnknowns>;

Row row_of(const AttentionTable& table, double tokens) {
  const double pairs = pairs_of(table, tokens);
  return {1.0, tokens / pairs, 1.0 / pairs};
}

/// Solves the normal equations over the unknowns in `used` by elimination; nothing if they are singular.
std::optional<Row> least_squares(const std::vector<Row>& rows, const std::vector<std::size_t>& used) {
  const std::size_t n = used.size();
  std::array<std::array<double, kUnknowns + 1>, kUnknowns> matrix{};
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < n; ++j) matrix[i][j] += row[used[i]] * row[used[j]];
      matrix[i][n] += row[used[i]];  // the right side is 1: errors are relative
    }
  }
  for (std::size_t i = 0; i < n; ++i) {
    // Symmetric and positive definite unless singular: the diagonal serves as pivot.
    const double pivot = matrix[i][i];
    if (!(pivot > 1e-12)) return std::nullopt;
    for (std::size_t k = i + 1; k < n; ++k) {
      const double factor = matrix[k][i] / pivot;
      for (std::size_t j = i; j <= n; ++j) matrix[k][j] -= factor * matrix[i][j];
    }
  }
  Row solution{};
  for (std::size_t i = n; i-- > 0;) {
    double value = matrix[i][n];
    for (std::size_t j = i + 1; j < n; ++j) value -= matrix[i][j] * solution[used[j]];
    solution[used[i]] = value / matrix[i][i];
  }
  return solution;
}

double squared_error(const std::vector<Row>& rows, const Row& solution) {
  double sum = 0.0;
  for (const Row& row : rows) {
    const double error = row[0] * solution[0] + row[1] * solution[1] + row[2] * solution[2] - 1.0;
    sum += error * error;
  }
  return sum;
}

AttentionTable parse_table(const JsonObject& entry) {
  AttentionTable table;
  table.head_dim = entry.integer("head_dim", 1, kMaxHeads);
  table.causal = entry.boolean_or("causal", true);
  table.heads = entry.integer_or("heads", 1, 1, kMaxHeads);
  table.backward_rate = entry.has("backward_rate") ? bounded(entry, "backward_rate", 1e-3, 1e3) : 1.0;
  table.tokens = entry.numbers("tokens");
  table.flop_per_s = entry.numbers("flop_per_s");
  if (table.tokens.empty() || table.tokens.size() != table.flop_per_s.size()) {
    entry.fail("flop_per_s", "found " + std::to_string(table.flop_per_s.size()) + " values for " +
                                 std::to_string(table.tokens.size()) + " lengths in tokens, expected one for each");
  }
  double last = 0.0;
  for (std::size_t i = 0; i < table.tokens.size(); ++i) {
    const std::string at = std::string("[").append(std::to_string(i)).append("]");
    if (!(table.tokens[i] > last && table.tokens[i] >= 1.0 && table.tokens[i] <= kMaxTokens)) {
      entry.fail("tokens" + at,
                 "found " + number_text(table.tokens[i]) + ", expected lengths of at least 1, ascending");
    }
    if (!(table.flop_per_s[i] >= kMinRate && table.flop_per_s[i] <= kMaxRate)) {
      entry.fail("flop_per_s" + at, "found " + number_text(table.flop_per_s[i]) + ", expected 1 to 1e21");
    }
    last = table.tokens[i];
  }
  return table;
}

}  // namespace

AttentionRate fit_attention(const AttentionTable& table) {
  // Scaled so that all unknowns are of one size.
  const double length = table.tokens.front();
  std::vector<Row> rows;
  for (std::size_t i = 0; i < table.tokens.size(); ++i) {
    const Row row = row_of(table, table.tokens[i]);
    const double rate = table.flop_per_s[i] / table.flop_per_s.back();
    rows.push_back({rate * row[0], rate * row[1] * length, rate * row[2] * length * length});
  }
  Row best{};
  double least = -1.0;
  for (const std::vector<std::size_t>& used : {std::vector<std::size_t>{0}, {0, 1}, {0, 2}, {0, 1, 2}}) {
    if (used.size() > rows.size()) continue;
    const std::optional<Row> solution = least_squares(rows, used);
    if (!solution || (*solution)[0] <= 0.0 || (*solution)[1] < 0.0 || (*solution)[2] < 0.0) continue;
    const double error = squared_error(rows, *solution);
    if (least >= 0.0 && error >= least) continue;
    least = error;
    best = *solution;
  }
  const double flop_per_s = table.flop_per_s.back() / best[0];
  return {.flop_per_s = flop_per_s,
          .token_pairs = best[1] * length / best[0],
          .sequence_s = best[2] * length * length / best[0] * pair_flop(table) / flop_per_s,
          .backward_rate = table.backward_rate};
}

double attention_flop_per_s(const AttentionRate& rate, const AttentionTable& table, double tokens) {
  const double pairs = pairs_of(table, tokens);
  const double seconds = (pairs + rate.token_pairs * tokens) * pair_flop(table) / rate.flop_per_s + rate.sequence_s;
  return pairs * pair_flop(table) / seconds;
}

AttentionTable Device::attention_of(int head_dim) const {
  const auto distance = [&](const AttentionTable& table) {
    return std::abs(std::log(static_cast<double>(table.head_dim) / head_dim));
  };
  return *std::min_element(attention.begin(), attention.end(),
                           [&](const AttentionTable& a, const AttentionTable& b) { return distance(a) < distance(b); });
}

const std::vector<Device>& devices() {
  static const std::vector<Device> parsed = [] {
    std::vector<Device> result;
    for (const Preset& preset : device_presets()) {
      result.push_back(parse_device(preset.text, std::string(preset.name)));
    }
    return result;
  }();
  return parsed;
}

Device read_device(const std::string& name) {
  const NamedText file = read_file_or_preset(name, device_presets());
  return parse_device(file.text, file.source);
}

Device parse_device(std::string_view text, const std::string& source) {
  const JsonDocument document(text, source);
  const JsonObject root = document.root();
  root.expect_format("dhp.device/1");
  constexpr int kMaxValueBytes = 8;
  Device device;
  device.name = root.text("name");
  device.memory_bytes = bounded(root, "memory_bytes", 1.0, kMaxBytes);
  device.memory_bytes_per_s = bounded(root, "memory_bytes_per_s", kMinRate, kMaxRate);
  device.bytes_per_value = root.integer("bytes_per_value", 1, kMaxValueBytes);
  device.linear_flop_per_s = bounded(root, "linear_flop_per_s", kMinRate, kMaxRate);
  device.launch_s = bounded(root, "launch_s", 0.0, kMaxSeconds);
  if (root.has("sequence_launch_s")) device.sequence_launch_s = bounded(root, "sequence_launch_s", 0.0, kMaxSeconds);
  device.task_s = bounded(root, "task_s", 0.0, kMaxSeconds);
  for (const JsonObject& entry : root.objects("attention")) device.attention.push_back(parse_table(entry));
  if (device.attention.empty()) root.fail("attention", "found an empty array, expected a table of rates");
  return device;
}

}  // namespace dhp
