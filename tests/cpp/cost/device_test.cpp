// Device files, and how the speed of attention follows from a table of lengths.
#include "dhp/device.h"

#include <gtest/gtest.h>

#include <cmath>

#include "dhp/analytic_cost.h"
#include "dhp/presets.h"
#include "support.h"

namespace dhp::device_test {
namespace {

TEST(Device, PresetsAreWhatTheirNamesSay) {
  std::vector<std::string> names;
  for (const Device& device : devices()) names.push_back(device.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a100", "ascend-910b", "h100", "h200", "local-cpu"}));
  for (const Preset& preset : device_presets()) EXPECT_EQ(parse_device(preset.text, "preset").name, preset.name);
  const Device h200 = read_device("h200");
  const Device h100 = read_device("h100");
  EXPECT_EQ(h200.attention.size(), h100.attention.size());
  for (std::size_t i = 0; i < h100.attention.size(); ++i) {
    EXPECT_EQ(h200.attention[i].flop_per_s, h100.attention[i].flop_per_s);
  }
}

TEST(Device, AttentionRatesOfTheTablesComeOut) {
  // What docs/costs.md states: no length of any table is missed by more than 2 %.
  constexpr double kStatedError = 0.02;
  int rates = 0;
  for (const Device& device : devices()) {
    for (const AttentionTable& table : device.attention) {
      const AttentionRate rate = fit_attention(table);
      for (std::size_t i = 0; i < table.tokens.size(); ++i) {
        const double modelled = attention_flop_per_s(rate, table, table.tokens[i]);
        EXPECT_LE(std::abs(modelled / table.flop_per_s[i] - 1.0), kStatedError)
            << device.name << ", head size " << table.head_dim << ", " << table.tokens[i] << " tokens: " << modelled;
        ++rates;
      }
    }
  }
  EXPECT_EQ(rates, 6 * 2 * 3 + 4 + 1);
}

TEST(Device, CostModelsHaveTheRatesOfTheTables) {
  // 16,384 tokens in sequences of one length, forward and backward as measured: without recomputation, and without the
  // launch from the host, which the kernel's time leaves out.
  constexpr double kTokens = 16384;
  const std::string config = read_model_config("qwen3-vl-8b").text;
  for (const std::string name : {"a100", "h100", "h200"}) {
    const CostReport report = analytic_report(config, "qwen3-vl-8b", {.device = name, .recompute = Recompute::none});
    const AttentionTable table = read_device(name).attention_of(128);
    for (std::size_t i = 0; i < table.tokens.size(); ++i) {
      const double length = table.tokens[i];
      const double sequences = kTokens / length;
      double seconds = 0.0;
      double flop = 0.0;
      for (const ModuleCost& module : report.modules) {
        if (module.name != "attention" || module.unit == "step") continue;
        const double units = module.unit == "pair"    ? sequences * length * length / 2
                             : module.unit == "token" ? kTokens
                                                      : sequences;
        seconds += units * (module.forward.seconds + module.backward.seconds + module.recompute.seconds);
        flop += units * (module.forward.flop + module.backward.flop);
      }
      EXPECT_NEAR(flop / seconds / table.flop_per_s[i], 1.0, 0.025) << name << " " << length;
    }
  }
}

TEST(Device, FitFindsWhatATableWasMadeOf) {
  // 200 TFLOP/s, 300 pairs a token, 4 us a sequence, 8 heads of 64.
  AttentionTable table{
      .head_dim = 64, .causal = true, .heads = 8, .tokens = {256, 1000, 5000, 20000}, .flop_per_s = {}};
  for (const double tokens : table.tokens) {
    const double flop = tokens * tokens / 2 * 4 * 8 * 64;
    const double seconds = (tokens * tokens / 2 + 300 * tokens) * 4 * 8 * 64 / 200e12 + 4e-6;
    table.flop_per_s.push_back(flop / seconds);
  }
  AttentionRate rate = fit_attention(table);
  test::expect_relative(rate.flop_per_s, 200e12, 1e-6);
  test::expect_relative(rate.token_pairs, 300, 1e-6);
  test::expect_relative(rate.sequence_s, 4e-6, 1e-6);
  // A rate that falls with length has no negative fixed parts: the best constant, by relative error of time.
  table.tokens = {1000, 2000};
  table.flop_per_s = {200e12, 100e12};
  rate = fit_attention(table);
  EXPECT_EQ(rate.token_pairs, 0.0);
  EXPECT_EQ(rate.sequence_s, 0.0);
  test::expect_relative(rate.flop_per_s, (200e12 * 200e12 + 100e12 * 100e12) / (200e12 + 100e12), 1e-12);
  // One row says no more than a rate.
  table.tokens = {1000};
  table.flop_per_s = {5e12};
  EXPECT_DOUBLE_EQ(fit_attention(table).flop_per_s, 5e12);
  EXPECT_EQ(fit_attention(table).token_pairs, 0.0);
}

TEST(Device, NearestHeadSize) {
  const Device device = read_device("a100");
  EXPECT_EQ(device.attention_of(128).head_dim, 128);
  EXPECT_EQ(device.attention_of(80).head_dim, 64);
  EXPECT_EQ(device.attention_of(96).head_dim, 128);
  EXPECT_EQ(device.attention_of(6).head_dim, 64);
  EXPECT_EQ(device.attention_of(1024).head_dim, 128);
}

TEST(Device, BadInput) {
  const auto message = [](const std::string& from, const std::string& to) {
    std::string text = R"({"format": "dhp.device/1", "name": "x", "memory_bytes": 1e9, "memory_bytes_per_s": 1e9,
      "bytes_per_value": 2, "linear_flop_per_s": 1e12, "launch_s": 0, "task_s": 0,
      "attention": [{"head_dim": 128, "tokens": [512, 1024], "flop_per_s": [1e12, 2e12]}]})";
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    return test::input_error([&] { parse_device(text, "d.json"); });
  };
  EXPECT_EQ(message("[512, 1024]", "[512]"),
            "d.json: attention[0].flop_per_s: found 2 values for 1 lengths in tokens, expected one for each");
  EXPECT_EQ(message("[512, 1024]", "[512, 512]"),
            "d.json: attention[0].tokens[1]: found 512, expected lengths of at least 1, ascending");
  EXPECT_EQ(message("[1e12, 2e12]", "[1e12, 0]"), "d.json: attention[0].flop_per_s[1]: found 0, expected 1 to 1e21");
  EXPECT_EQ(message("\"launch_s\": 0", "\"launch_s\": -1"),
            "d.json: launch_s: found -1, expected a number from 0 to 1e+06");
  EXPECT_EQ(message("\"linear_flop_per_s\": 1e12, ", ""), "d.json: linear_flop_per_s: missing, expected a number");
  EXPECT_EQ(message("1e9, \"mem", "1e300, \"mem"),
            "d.json: memory_bytes: found 1e+300, expected a number from 1 to 1e+18");
  EXPECT_EQ(message("dhp.device/1", "dhp.cost/1").rfind("d.json: format: found \"dhp.cost/1\"", 0), 0U);
  EXPECT_EQ(test::input_error([] { read_device("abacus"); }),
            "abacus: is neither a file nor a preset; presets: a100, ascend-910b, h100, h200, local-cpu");
  EXPECT_EQ(test::input_error([] { read_device("no/such.json"); }).rfind("no/such.json: cannot be opened", 0), 0U);
}

}  // namespace
}  // namespace dhp::device_test
