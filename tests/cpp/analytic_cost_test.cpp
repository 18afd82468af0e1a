// Counting a Hugging Face config into a cost model.
#include "dhp/analytic_cost.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "support.h"

namespace dhp {
namespace {

std::string config(const std::string& size) {
  std::ifstream stream(test::golden_file("configs/qwen3-vl-" + size + ".json"));
  std::ostringstream text;
  text << stream.rdbuf();
  return std::move(text).str();
}

TEST(AnalyticCost, ParametersEqualThePublishedModels) {
  const auto expect_counts = [](const std::string& size, std::int64_t body, std::int64_t embeddings,
                                std::int64_t vision, std::int64_t total) {
    const ParameterCounts counts = count_parameters(config(size), size);
    EXPECT_EQ(counts.language_body, body) << size;
    EXPECT_EQ(counts.embeddings, embeddings) << size;
    EXPECT_EQ(counts.vision, vision) << size;
    EXPECT_EQ(counts.total(), total) << size;
  };
  expect_counts("2b", 1'409'410'048, 311'164'928, 406'957'056, 2'127'532'032);
  expect_counts("4b", 3'633'511'936, 388'956'160, 415'347'712, 4'437'815'808);
  expect_counts("8b", 6'946'075'648, 2 * 622'329'856LL, 576'388'336, 8'767'123'696);
}

TEST(AnalyticCost, AgreesWithTheSharedCostFiles) {
  // The shared files count with rounded figures, without output head, reserve and recomputation of the vision tower.
  for (const std::string size : {"2b", "4b", "8b"}) {
    SCOPED_TRACE(size);
    const CostModel expected = read_cost_model(test::case_file("cost_qwen3-vl-" + size + ".json"));
    const CostModel cost = analytic_cost(config(size), size, {.device = "ascend-910b", .ranks = 64});
    const ParameterCounts counts = count_parameters(config(size), size);
    const auto vocabulary_head =
        static_cast<double>(counts.embeddings) / (size == "8b" ? 2.0 : 1.0);  // weights of the output head
    const double head_s = 2 * vocabulary_head / 160e12;
    EXPECT_EQ(cost.layers, expected.layers);
    EXPECT_EQ(cost.query_heads, expected.query_heads);
    EXPECT_EQ(cost.kv_heads, expected.kv_heads);
    EXPECT_EQ(cost.task_s, expected.task_s);
    test::expect_relative(cost.forward.token_s - head_s, expected.forward.token_s, 2e-3);
    test::expect_relative(cost.backward.token_s - 2 * head_s, expected.backward.token_s, 2e-3);
    test::expect_relative(cost.forward.pair_s, expected.forward.pair_s, 5e-3);
    test::expect_relative(cost.backward.pair_s, expected.backward.pair_s, 5e-3);
    test::expect_relative(cost.forward.step_s, expected.forward.step_s, 1e-12);
    test::expect_relative(cost.backward.step_s, expected.backward.step_s, 1e-12);
    test::expect_relative(cost.forward.sequence_step_s, expected.forward.sequence_step_s, 1e-12);
    test::expect_relative(cost.backward.sequence_step_s, expected.backward.sequence_step_s, 1e-12);
    EXPECT_EQ(cost.forward.ring_bytes_per_token, expected.forward.ring_bytes_per_token);
    EXPECT_EQ(cost.backward.ring_bytes_per_token, expected.backward.ring_bytes_per_token);
    EXPECT_EQ(cost.forward.all_to_all_bytes_per_token, expected.forward.all_to_all_bytes_per_token);
    EXPECT_EQ(cost.backward.all_to_all_bytes_per_token, expected.backward.all_to_all_bytes_per_token);
    // Blocks alone there; patch embedding and the four mergers add 9 to 11 % (counted exactly in TinyModelByHand).
    EXPECT_GT(cost.patch_s * 3 / 4, 1.08 * expected.patch_s);
    EXPECT_LT(cost.patch_s * 3 / 4, 1.11 * expected.patch_s);
    test::expect_relative(cost.state_bytes - 4.0 * 1024 * 1024 * 1024, expected.state_bytes, 1e-4);
    // Rounded to a tenth of a MiB there.
    EXPECT_NEAR(cost.token_bytes, expected.token_bytes, 0.1 * 1024 * 1024);
  }
}

/// Two layers, head size apart from hidden size, everything small enough to count by hand.
constexpr const char* kTiny = R"({"model_type": "qwen3_vl", "tie_word_embeddings": true,
  "text_config": {"hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "head_dim": 6, "vocab_size": 50},
  "vision_config": {"depth": 1, "hidden_size": 4, "intermediate_size": 6, "out_hidden_size": 8, "patch_size": 2,
                    "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 9,
                    "deepstack_visual_indexes": [0]}})";

TEST(AnalyticCost, TinyModelByHand) {
  const ParameterCounts counts = count_parameters(kTiny, "tiny");
  const std::int64_t layer = 8 * 24 * 2 + 8 * 12 * 2 + 3 * 8 * 20 + 2 * 8 + 2 * 6;
  EXPECT_EQ(counts.language_body, 2 * layer + 8);
  EXPECT_EQ(counts.embeddings, 400);
  const std::int64_t block = (4 * 12 + 12) + (4 * 4 + 4) + (4 * 6 + 6) + (6 * 4 + 4) + 2 * 8;
  const std::int64_t merger = (16 * 16 + 16) + (16 * 8 + 8);
  EXPECT_EQ(counts.vision, 100 + 36 + block + 2 * merger + 8 + 32);  // patches, positions, blocks, mergers, norms

  const CostModel cost = analytic_cost(kTiny, "tiny", {.device = "local-cpu", .ranks = 4});
  const Device& cpu = devices().front();
  ASSERT_EQ(cpu.name, "local-cpu");
  const double body_flop = 2.0 * 2 * (8 * 24 * 2 + 8 * 12 * 2 + 3 * 8 * 20);
  const double head_flop = 2.0 * 50 * 8;
  test::expect_relative(cost.forward.token_s, (body_flop + head_flop) / cpu.linear_flop_per_s, 1e-14);
  test::expect_relative(cost.backward.token_s, (3 * body_flop + 2 * head_flop) / cpu.linear_flop_per_s, 1e-14);
  test::expect_relative(cost.forward.pair_s, 4.0 * 24 * 2 / cpu.attention_flop_per_s, 1e-14);
  EXPECT_EQ(cost.forward.ring_bytes_per_token, 2 * 2 * 12 * 4);
  EXPECT_EQ(cost.backward.ring_bytes_per_token, 3 * 2 * 2 * 12 * 4);  // gradients are no wider than fp32 values
  const double patch_flop = 2.0 * (24 * 4 + (4 * 12 + 16 + 24 + 24) + 2 * (16 * 16 + 16 * 8) / 4.0);
  test::expect_relative(cost.patch_s, 4 * patch_flop / cpu.linear_flop_per_s, 1e-14);
  const double layer_bytes = (4.0 * 8 + 3 * 36 + 3 * 20) * 4 + 4 * 4;
  EXPECT_EQ(cost.token_bytes, 2 * 8 * 4 + std::max(50 * 8.0, layer_bytes));
  EXPECT_EQ(cost.patch_bytes, (24 + 4 + 2 * 8 / 4.0) * 4);
  EXPECT_EQ(cost.state_bytes, static_cast<double>(counts.total()) * (4 + 4 + 8 / 4.0) + cpu.memory_bytes / 16);

  const CostModel frozen = analytic_cost(kTiny, "tiny", {.device = "local-cpu", .ranks = 4, .freeze_vit = true});
  test::expect_relative(frozen.patch_s, patch_flop / cpu.linear_flop_per_s, 1e-14);
  EXPECT_EQ(frozen.patch_bytes, (24 + 2 * 8 / 4.0) * 4);
  EXPECT_EQ(cost.state_bytes - frozen.state_bytes, static_cast<double>(counts.vision) * (4 + 8 / 4.0));
  EXPECT_EQ(parse_cost_model(to_json(cost), "cost"), cost);
}

TEST(AnalyticCost, BadInput) {
  const auto message = [](const std::string& from, const std::string& to, const CostOptions& options = {}) {
    std::string text = kTiny;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    return test::input_error([&] { analytic_cost(text, "config.json", options); });
  };
  EXPECT_EQ(message("qwen3_vl", "llama"), "config.json: model_type: found \"llama\", expected \"qwen3_vl\"");
  EXPECT_EQ(message("\"num_hidden_layers\": 2, ", "").rfind("config.json: text_config.num_hidden_layers: missing", 0),
            0U);
  EXPECT_EQ(message("\"depth\": 1", "\"depth\": 1.5").rfind("config.json: vision_config.depth: found 1.5", 0), 0U);
  EXPECT_EQ(message("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")
                .rfind("config.json: text_config.num_key_value_heads: found 3, expected a divisor of the 4", 0),
            0U);
  EXPECT_EQ(message("\"text_config\"", "\"text\"").rfind("config.json: text_config: missing", 0), 0U);
  EXPECT_EQ(message("50", "50", {.device = "tpu"}),
            "--device: found \"tpu\", expected one of local-cpu, ascend-910b, h100");
  EXPECT_EQ(message("50", "50", {.ranks = 0}), "--ranks: found 0, expected at least 1");
}

}  // namespace
}  // namespace dhp
