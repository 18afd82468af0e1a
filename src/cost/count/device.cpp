#include "dhp/device.h"

#include <algorithm>
#include <cmath>

#include "base/json_reader.h"
#include "base/number_limits.h"
#include "dhp/error.h"
#include "dhp/presets.h"

namespace dhp {
namespace {

constexpr double kMostPairs = 1e9;

double bounded(const JsonObject& entry, const char* key, double min, double max) {
  const double value = entry.number(key);
  check_number(value, min, max, entry.path_of(key), entry.source());
  return value;
}

double bounded_or(const JsonObject& entry, const char* key, double fallback, double min, double max) {
  return entry.has(key) ? bounded(entry, key, min, max) : fallback;
}

AttentionRate parse_rate(const JsonObject& entry) {
  if (entry.is_array("flop_per_s")) {
    entry.fail("flop_per_s",
               "found a rate for each length, expected the one fitted to them; dhp.cost.fit.fit_attention makes it");
  }
  return {.head_dim = entry.integer("head_dim", 1, kMaxHeads),
          .flop_per_s = bounded(entry, "flop_per_s", kLeastRate, kMostRate),
          .token_pairs = bounded_or(entry, "token_pairs", 0.0, 0.0, kMostPairs),
          .sequence_s = bounded_or(entry, "sequence_s", 0.0, 0.0, kMostSeconds),
          .backward_rate = bounded_or(entry, "backward_rate", 1.0, 1e-3, 1e3)};
}

}  // namespace

AttentionRate Device::attention_of(int head_dim) const {
  const auto distance = [&](const AttentionRate& rate) {
    return std::abs(std::log(static_cast<double>(rate.head_dim) / head_dim));
  };
  return *std::min_element(attention.begin(), attention.end(),
                           [&](const AttentionRate& a, const AttentionRate& b) { return distance(a) < distance(b); });
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
  device.sequence_launch_s = bounded_or(root, "sequence_launch_s", 0.0, 0.0, kMostSeconds);
  device.task_s = bounded(root, "task_s", 0.0, kMostSeconds);
  for (const JsonObject& entry : root.objects("attention")) device.attention.push_back(parse_rate(entry));
  if (device.attention.empty()) root.fail("attention", "found an empty array, expected a rate");
  return device;
}

}  // namespace dhp
