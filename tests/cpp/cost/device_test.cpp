// Device files, and the speed of attention that costs have from them.
#include "dhp/device.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/json_reader.h"
#include "dhp/analytic_cost.h"
#include "dhp/presets.h"
#include "support.h"

namespace dhp::device_test {
namespace {

TEST(Device, PresetsAreWhatTheirNamesSay) {
  std::vector<std::string> names;
  for (const Device& device : devices()) names.push_back(device.name);
  EXPECT_EQ(names, (std::vector<std::string>{"a100", "ascend-910b", "b200", "h100", "h200", "local-cpu"}));
  for (const Preset& preset : device_presets()) EXPECT_EQ(parse_device(preset.text, "preset").name, preset.name);
  const Device h200 = read_device("h200");
  const Device h100 = read_device("h100");
  EXPECT_EQ(h200.attention.size(), h100.attention.size());
  for (std::size_t i = 0; i < h100.attention.size(); ++i) {
    EXPECT_EQ(h200.attention[i].flop_per_s, h100.attention[i].flop_per_s);
  }
}

TEST(Device, CostModelsHaveTheRatesThatWereMeasured) {
  // 16,384 tokens in sequences of one length, forward and backward as measured: without recomputation, and without the
  // launch from the host, which the kernel's time leaves out.
  constexpr double kTokens = 16384;
  const std::string config = read_model_config("qwen3-vl-8b").text;
  for (const std::string name : {"a100", "h100", "h200"}) {
    const CostReport report = analytic_report(config, "qwen3-vl-8b", {.device = name, .recompute = Recompute::none});
    const JsonDocument file(read_file_or_preset(name, device_presets()).text, name);
    const JsonObject entry = file.root().objects("attention").at(0);
    ASSERT_EQ(entry.integer("head_dim", 1), 128);
    const std::vector<double> tokens = entry.object("measured").numbers("tokens");
    const std::vector<double> flop_per_s = entry.object("measured").numbers("flop_per_s");
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      const double length = tokens[i];
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
      EXPECT_NEAR(flop / seconds / flop_per_s[i], 1.0, 0.025) << name << " " << length;
    }
  }
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
      "attention": [{"head_dim": 128, "flop_per_s": 1.5e12, "token_pairs": 7}]})";
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    return test::input_error([&] { parse_device(text, "d.json"); });
  };
  EXPECT_EQ(message("1.5e12", "[1e12, 2e12]"),
            "d.json: attention[0].flop_per_s: found a rate for each length, expected the one fitted to them; "
            "dhp.cost.fit.fit_attention makes it");
  EXPECT_EQ(message("1.5e12", "0"), "d.json: attention[0].flop_per_s: found 0, expected a number from 1 to 1e+21");
  EXPECT_EQ(message("\"token_pairs\": 7", "\"token_pairs\": -7"),
            "d.json: attention[0].token_pairs: found -7, expected a number from 0 to 1e+09");
  EXPECT_EQ(message("\"launch_s\": 0", "\"launch_s\": -1"),
            "d.json: launch_s: found -1, expected a number from 0 to 1e+06");
  EXPECT_EQ(message("\"linear_flop_per_s\": 1e12, ", ""), "d.json: linear_flop_per_s: missing, expected a number");
  EXPECT_EQ(message("1e9, \"mem", "1e300, \"mem"),
            "d.json: memory_bytes: found 1e+300, expected a number from 1 to 1e+18");
  EXPECT_EQ(message("dhp.device/1", "dhp.cost/1").rfind("d.json: format: found \"dhp.cost/1\"", 0), 0U);
  EXPECT_EQ(test::input_error([] { read_device("abacus"); }),
            "abacus: is neither a file nor a preset; presets: a100, ascend-910b, b200, h100, h200, local-cpu");
  EXPECT_EQ(test::input_error([] { read_device("no/such.json"); }).rfind("no/such.json: cannot be opened", 0), 0U);
}

}  // namespace
}  // namespace dhp::device_test
