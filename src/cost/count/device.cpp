#include "dhp/device.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/json_reader.h"
#include "base/number_limits.h"
#include "cost/fit/least_squares.h"
#include "dhp/error.h"
#include "dhp/presets.h"

namespace dhp {
namespace {

constexpr double kMaxTokens = 1e9;

double bounded(const JsonObject& entry, const char* key, double min, double max) {
  const double value = entry.number(key);
  check_number(value, min, max, entry.path_of(key), entry.source());
  return value;
}

double pairs_of(const AttentionTable& table, double tokens) { return tokens * tokens / (table.causal ? 2.0 : 1.0); }

// Two matrix products of 2 * head_dim FLOP a pair and head.
double pair_flop(const AttentionTable& table) { return 4.0 * table.heads * table.head_dim; }

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
    if (!(table.flop_per_s[i] >= kLeastRate && table.flop_per_s[i] <= kMostRate)) {
      entry.fail("flop_per_s" + at, "found " + number_text(table.flop_per_s[i]) + ", expected 1 to 1e21");
    }
    last = table.tokens[i];
  }
  return table;
}

}  // namespace

AttentionRate fit_attention(const AttentionTable& table) {
  constexpr std::size_t kUnknowns = 3;
  // The time of a length over the time measured, which should be 1: by pairs, by tokens and fixed.
  Rows rows;
  for (std::size_t i = 0; i < table.tokens.size(); ++i) {
    const double rate = table.flop_per_s[i];
    const double pairs = pairs_of(table, table.tokens[i]);
    rows.push_back({.x = {rate, rate * table.tokens[i] / pairs, rate / pairs}, .y = 1.0});
  }
  Coefficients seconds = non_negative_least_squares(rows, std::min(kUnknowns, rows.size()));
  // Pairs always take time: a table whose time does not grow with them is a rate and nothing else.
  if (seconds[0] <= 0.0) seconds = non_negative_least_squares(rows, 1);
  const double flop_per_s = 1.0 / seconds[0];
  return {.flop_per_s = flop_per_s,
          .token_pairs = seconds[1] * flop_per_s,
          .sequence_s = seconds[2] * pair_flop(table),
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
  device.memory_bytes = bounded(root, "memory_bytes", 1.0, kMostBytes);
  device.memory_bytes_per_s = bounded(root, "memory_bytes_per_s", kLeastRate, kMostRate);
  device.bytes_per_value = root.integer("bytes_per_value", 1, kMaxValueBytes);
  device.linear_flop_per_s = bounded(root, "linear_flop_per_s", kLeastRate, kMostRate);
  device.launch_s = bounded(root, "launch_s", 0.0, kMostSeconds);
  if (root.has("sequence_launch_s")) device.sequence_launch_s = bounded(root, "sequence_launch_s", 0.0, kMostSeconds);
  device.task_s = bounded(root, "task_s", 0.0, kMostSeconds);
  for (const JsonObject& entry : root.objects("attention")) device.attention.push_back(parse_table(entry));
  if (device.attention.empty()) root.fail("attention", "found an empty array, expected a table of rates");
  return device;
}

}  // namespace dhp
