// Counting a Hugging Face config into a cost model.
#include "dhp/analytic_cost.h"

#include <gtest/gtest.h>

#include <map>

#include "dhp/presets.h"
#include "support.h"
#include "temporary_folder.h"

namespace dhp::analytic_cost_test {
namespace {

std::string preset(const std::string& name) { return read_model_config(name).text; }

const ModuleCost& row(const CostReport& report, std::string_view name, std::string_view unit) {
  for (const ModuleCost& module : report.modules) {
    if (module.name == name && module.unit == unit) return module;
  }
  throw std::out_of_range(std::string(name) + " per " + std::string(unit));
}

TEST(AnalyticCost, ParametersEqualTheReference) {
  // Counted from the papers' tables of dimensions, apart from this code; the Python tests compare every preset with the
  // model class itself.
  const std::map<std::string, std::int64_t> totals = {
      {"qwen3-vl-2b", 2'127'532'032},   {"qwen3-vl-4b", 4'437'815'808},       {"qwen3-vl-8b", 8'767'123'696},
      {"qwen3-vl-32b", 33'357'390'064}, {"qwen3-vl-30b-a3b", 31'070'754'032}, {"qwen3-vl-235b-a22b", 235'670'022'896},
      {"qwen2.5-vl-3b", 3'754'622'976}, {"qwen2.5-vl-7b", 8'292'166'656},     {"internvl3-1b", 938'193'024},
      {"internvl3-2b", 2'088'957'440},  {"internvl2.5-4b", 3'712'637'952},    {"internvl3-8b", 7'944'373'760},
      {"internvl3-14b", 15'117'256'704}};
  EXPECT_EQ(model_presets().size(), totals.size());
  for (const auto& [name, total] : totals) {
    EXPECT_EQ(count_parameters(preset(name), name).total(), total) << name;
    const CostReport report = analytic_report(preset(name), name, {.device = "h100"});
    std::int64_t sum = 0;
    for (const ModuleCost& module : report.modules) sum += module.parameters;
    EXPECT_EQ(sum, total) << name;
  }
  const auto expect_parts = [](const std::string& name, std::int64_t body, std::int64_t embeddings) {
    const ParameterCounts counts = count_parameters(preset(name), name);
    EXPECT_EQ(counts.language_body, body) << name;
    EXPECT_EQ(counts.embeddings, embeddings) << name;
  };
  expect_parts("qwen3-vl-2b", 1'409'410'048, 311'164'928);
  expect_parts("qwen3-vl-4b", 3'633'511'936, 388'956'160);
  expect_parts("qwen3-vl-8b", 6'946'075'648, 2 * 622'329'856LL);
  expect_parts("internvl3-1b", 357'898'112, 2 * 151'674 * 896LL);
  expect_parts("internvl3-2b", 1'310'340'608, 2 * 151'674 * 1536LL);
  expect_parts("internvl2.5-4b", 2'774'773'760, 2 * 151'674 * 2048LL);
  expect_parts("internvl3-8b", 6'525'621'760, 2 * 151'674 * 3584LL);
  expect_parts("internvl3-14b", 13'212'898'304, 2 * 151'674 * 5120LL);
  EXPECT_EQ(count_parameters(preset("qwen2.5-vl-7b"), "").vision, 676'550'144);
  EXPECT_EQ(row(analytic_report(preset("internvl3-8b"), "", {}), "vision", "patch").parameters, 304'012'288);
}

TEST(AnalyticCost, ForwardWorkEqualsTheReference) {
  // GFLOP a token of all layers, and of the tower's blocks a visual token (4 patches), to the last digit there.
  const auto expect_gflop = [](const std::string& name, double layers, double tower) {
    const CostReport report = analytic_report(preset(name), name, {.device = "a100"});
    EXPECT_NEAR(row(report, "layers", "token").forward.flop / 1e9, layers, 0.005) << name;
    const double patch = row(report, "vision", "patch").forward.flop;
    EXPECT_GT(4 * patch / 1e9, tower - 0.005) << name;
    // Patch embedding (1 %) comes on top; in InternVL attention inside the tile too (17 %), which the reference leaves
    // out.
    EXPECT_LT(4 * patch / 1e9, tower * (name.front() == 'q' ? 1.015 : 1.18)) << name;
  };
  expect_gflop("qwen3-vl-2b", 2.82, 2.42);
  expect_gflop("qwen3-vl-4b", 7.27, 2.42);
  expect_gflop("qwen3-vl-8b", 13.89, 3.29);
  expect_gflop("internvl3-2b", 2.62, 2.42);
  expect_gflop("internvl2.5-4b", 5.55, 2.42);
  expect_gflop("internvl3-8b", 13.05, 2.42);
  // 3.35 and 22.19 billion parameters meet a token, head included; two FLOP each.
  const auto active = [](const std::string& name) {
    const CostReport report = analytic_report(preset(name), name, {.device = "a100"});
    return (row(report, "layers", "token").forward.flop + row(report, "head", "token").forward.flop) / 2e9;
  };
  EXPECT_NEAR(active("qwen3-vl-30b-a3b") + 0.31, 3.35, 0.01);  // and the embedding
  EXPECT_NEAR(active("qwen3-vl-235b-a22b") + 0.62, 22.19, 0.01);
}

/// Two layers, head size apart from hidden size, everything small enough to count by hand.
constexpr const char* kTiny = R"({"model_type": "qwen3_vl", "tie_word_embeddings": true,
  "text_config": {"hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "head_dim": 6, "vocab_size": 50},
  "vision_config": {"depth": 1, "hidden_size": 4, "intermediate_size": 6, "num_heads": 1, "out_hidden_size": 8,
                    "patch_size": 2, "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 9,
                    "deepstack_visual_indexes": [0]}})";

/// The tiny model on a device on which seconds are FLOP of dense layers, and half the FLOP of attention.
CostModel counted(CostOptions options) {
  const test::TemporaryFolder folder;
  options.device = folder.write("counter.json", R"({"format": "dhp.device/1", "name": "counter", "memory_bytes": 1600,
    "bytes_per_value": 2, "memory_bytes_per_s": 1e21, "linear_flop_per_s": 1, "launch_s": 5, "sequence_launch_s": 3,
    "task_s": 7, "attention": [{"head_dim": 6, "flop_per_s": 2}]})");
  options.ranks = 4;
  return analytic_cost(kTiny, "tiny", options);
}

TEST(AnalyticCost, TinyModelByHand) {
  const ParameterCounts counts = count_parameters(kTiny, "tiny");
  const std::int64_t layer = 8 * 24 * 2 + 8 * 12 * 2 + 3 * 8 * 20 + 2 * 8 + 2 * 6;
  EXPECT_EQ(counts.language_body, 2 * layer + 8);
  EXPECT_EQ(counts.embeddings, 400);
  const std::int64_t block = (4 * 12 + 12) + (4 * 4 + 4) + (4 * 6 + 6) + (6 * 4 + 4) + 2 * 8;
  const std::int64_t merger = (16 * 16 + 16) + (16 * 8 + 8);
  EXPECT_EQ(counts.vision, 100 + 36 + block + 2 * merger + 8 + 32);  // patches, positions, blocks, mergers, norms

  const CostModel cost = counted({});
  // Layers: 2 FLOP x 2 layers x (8*24*2 + 8*12*2 + 3*8*20) = 4224. Head: 2*8*50 = 800.
  EXPECT_EQ(cost.forward.token_s, 4224 + 800 + 0.0);
  EXPECT_NEAR(cost.backward.token_s, 3 * 4224 + 2 * 800, 1e-9);  // again, inputs, weights; the head is not run again
  // 4 FLOP x 4 heads x 6 x 2 layers = 192 a pair, at 2 FLOP/s; five products for two, and again.
  EXPECT_EQ(cost.forward.pair_s, 96);
  EXPECT_EQ(cost.backward.pair_s, 96 * 3.5);
  EXPECT_EQ(cost.forward.step_s, 2 * 5);
  EXPECT_EQ(cost.backward.step_s, 2 * 2 * 5);
  EXPECT_EQ(cost.forward.sequence_step_s, 2 * 3);
  EXPECT_EQ(cost.backward.sequence_step_s, 2 * 2 * 3);
  EXPECT_EQ(cost.task_s, 7);
  EXPECT_EQ(cost.forward.ring_bytes_per_token, 2 * 2 * 12 * 2);
  EXPECT_EQ(cost.backward.ring_bytes_per_token, 2 * 96 + 2 * 2 * 12 * 4);  // twice, and gradients in fp32
  EXPECT_EQ(cost.forward.all_to_all_bytes_per_token, 2 * (2 * 24 + 2 * 12) * 2);
  EXPECT_EQ(cost.backward.all_to_all_bytes_per_token, 3 * 288);
  // A patch of 3*2*2*2 = 24 values: embedding 2*24*4 = 192; block 2*(4*4*4 + 2*4*6) = 224; attention 4*4 = 16 a pair,
  // at 2 FLOP/s; two mergers for every 4 patches: 2*2/4*(16*16) = 256 and 2*2/4*(16*8) = 128.
  const double forward = 192 + 224 + 256 + 128;
  EXPECT_NEAR(cost.patch_s, forward + 192 + (2 + 1) * 224 + 2 * (256 + 128), 1e-9);
  EXPECT_NEAR(cost.patch_pair_s, (1 + 2.5 + 1) * 8, 1e-9);
  // Kept: inputs of two layers. A live layer: norms 4*8, queries, keys, values and
  // output 2*24 + 2*12, norms of heads 24 + 12, the MLP 3*20, and 4 heads' sums in fp32.
  const double live = (32 + 72 + 36 + 60) * 2 + 4 * 4;
  EXPECT_EQ(cost.token_bytes, 2 * 8 * 2 + live);
  // Pixels, the block's input, two mergers' rows: norm in and out 16, GELU in and out 16, out 8; a quarter each.
  EXPECT_EQ(cost.patch_bytes, (24 + 4 + 2 * (16 + 16 + 16 + 16 + 8) / 4.0) * 2);
  // 2^25 logits of 8 bytes, and of each of the head's 50 * 8 weights the gradient in fp32 and a copy in bf16.
  const double loss = (1 << 25) * 8.0 + 50 * 8 * 6;
  EXPECT_EQ(cost.state_bytes, static_cast<double>(counts.total()) * (2 + 2 + 12 / 4.0) + loss + 1600 / 16.0);
  EXPECT_EQ(parse_cost_model(to_json(cost), "cost"), cost);
}

TEST(AnalyticCost, TinyModelFrozenByHand) {
  const auto with = [](Freeze freeze) { return counted({.freeze = freeze}); };
  const CostModel all = with({});
  const double forward = 192 + 224 + 256 + 128;
  const ParameterCounts counts = count_parameters(kTiny, "tiny");
  const std::int64_t mergers = 2 * ((16 * 16 + 16) + (16 * 8 + 8)) + 8 + 32;
  const double tower = static_cast<double>(counts.vision - mergers);

  const CostModel vit = with({.vit = true});
  EXPECT_EQ(vit.patch_s, forward + 2 * (256 + 128));  // the norm before the first matrix trains, too
  EXPECT_EQ(vit.patch_pair_s, 8);
  EXPECT_EQ(vit.patch_bytes, all.patch_bytes - 4 * 2);
  EXPECT_EQ(all.state_bytes - vit.state_bytes, tower * (2 + 12 / 4.0));
  EXPECT_EQ(vit.backward, all.backward);

  const CostModel aligner = with({.aligner = true});
  EXPECT_NEAR(aligner.patch_s, forward + 192 + 3 * 224 + 256 + 128, 1e-9);  // inputs alone
  EXPECT_EQ(aligner.patch_pair_s, all.patch_pair_s);
  EXPECT_EQ(all.state_bytes - aligner.state_bytes, static_cast<double>(mergers) * (2 + 12 / 4.0));

  const CostModel vision = with({.vit = true, .aligner = true});
  EXPECT_EQ(vision.patch_s, forward);
  EXPECT_EQ(vision.patch_pair_s, 8);
  EXPECT_EQ(vision.patch_bytes, (24 + 2 * 8 / 4.0) * 2);

  const CostModel llm = with({.llm = true});
  EXPECT_EQ(llm.backward.token_s, 2 * 4224 + 800);  // again, and gradients of inputs
  EXPECT_EQ(llm.backward.pair_s, all.backward.pair_s);
  EXPECT_EQ(llm.patch_s, all.patch_s);
  EXPECT_EQ(all.state_bytes - llm.state_bytes,
            static_cast<double>(counts.language_body + counts.embeddings) * (2 + 12 / 4.0) + 50 * 8 * 4);
}

TEST(AnalyticCost, TinyModelWithoutRecomputationByHand) {
  const CostModel cost = counted({.recompute = Recompute::none});
  EXPECT_EQ(cost.backward.token_s, 2 * 4224 + 2 * 800);
  EXPECT_EQ(cost.backward.pair_s, 96 * 2.5);
  EXPECT_EQ(cost.backward.step_s, 10);
  EXPECT_EQ(cost.backward.sequence_step_s, 6);
  EXPECT_EQ(cost.backward.ring_bytes_per_token, 96 + 2 * 2 * 12 * 4);
  EXPECT_EQ(cost.backward.all_to_all_bytes_per_token, 2 * 288);
  const double forward = 192 + 224 + 256 + 128;
  EXPECT_NEAR(cost.patch_s, forward + 192 + 2 * 224 + 2 * (256 + 128), 1e-9);
  EXPECT_NEAR(cost.patch_pair_s, (1 + 2.5) * 8, 1e-9);
  const double layer = (32 + 72 + 36 + 60) * 2 + 4 * 4;
  EXPECT_EQ(cost.token_bytes, 2 * layer);
  // The block keeps two norms' inputs and outputs, queries, keys, values, output (8*4), GELU's input and output (2*6).
  EXPECT_EQ(cost.patch_bytes, (24 + 2 * (16 + 16 + 16 + 16 + 8) / 4.0) * 2 + (8 * 4 + 2 * 6) * 2 + 4);
}

TEST(AnalyticCost, BandwidthLimitsWhatHasLittleToCompute) {
  const test::TemporaryFolder folder;
  const std::string device = folder.write("slow.json", R"({"format": "dhp.device/1", "name": "slow",
    "memory_bytes": 1600, "bytes_per_value": 2, "memory_bytes_per_s": 1, "linear_flop_per_s": 1e21, "launch_s": 0,
    "task_s": 0, "attention": [{"head_dim": 6, "flop_per_s": 1e21}]})");
  const CostReport report = analytic_report(kTiny, "tiny", {.device = device});
  // A row of the embedding is read and written; backward the gradient is read and added to another.
  const ModuleCost& embedding = row(report, "embedding", "token");
  EXPECT_EQ(embedding.forward.seconds, 2 * 8 * 2);
  EXPECT_EQ(embedding.backward.seconds, 3 * 8 * 2);
  // The head reads a row, writes logits, and the loss reads and writes as many.
  EXPECT_EQ(row(report, "head", "token").forward.bytes, (8 + 3 * 50) * 2);
  // A layer: norm 16, three matrices 3*8 + 24 + 2*12, norms of heads and rotation 2*36 each, attention 48 + 24, output
  // matrix 24 + 8, residual 24; norm 16, gate and up 16 + 40, product 60, down 20 + 8, residual 24. Last norm: 16.
  const double layer = 16 + 72 + 144 + 72 + 32 + 24 + 16 + 56 + 60 + 28 + 24;
  EXPECT_EQ(row(report, "layers", "token").forward.bytes, (2 * layer + 16) * 2);
  EXPECT_EQ(row(report, "layers", "token").forward.seconds, (2 * layer + 16) * 2);
}

TEST(AnalyticCost, ActivationsEqualTheReference) {
  // Bytes a token: one layer, all inputs of layers, as in the table of the reference; MiB of the tower a visual token.
  const auto expect_bytes = [](const std::string& name, double layer, double kept_kib, double tower_mib) {
    const CostOptions options{.device = "ascend-910b"};
    CostOptions whole = options;
    whole.recompute = Recompute::none;
    const CostReport full = analytic_report(preset(name), name, options);
    const CostReport none = analytic_report(preset(name), name, whole);
    EXPECT_EQ(full.memory.token_live_layer, layer) << name;
    EXPECT_EQ(full.memory.token_kept, kept_kib * 1024) << name;
    EXPECT_EQ(none.memory.token_kept, layer * full.cost.layers) << name;
    CostOptions frozen = whole;
    frozen.freeze.vit = true;  // projector and pixels stay
    const double tower = 4 * (none.memory.patch_kept - analytic_report(preset(name), name, frozen).memory.patch_kept);
    EXPECT_NEAR(tower / 1048576, tower_mib, 0.01) << name;
  };
  expect_bytes("qwen3-vl-2b", 71'744, 112, 3.01);
  expect_bytes("qwen3-vl-4b", 109'696, 180, 3.01);
  expect_bytes("qwen3-vl-8b", 137'344, 288, 3.68);
  expect_bytes("internvl3-2b", 73'264, 84, 3.01);
  expect_bytes("internvl2.5-4b", 91'712, 144, 3.01);
  expect_bytes("internvl3-8b", 158'832, 196, 3.01);
}

TEST(AnalyticCost, ZeroShardsStates) {
  const auto parameters = static_cast<double>(count_parameters(preset("qwen3-vl-8b"), "").total());
  // Bytes a parameter over 64 ranks: 16, 4 + 12/N, 2 + 14/N, 16/N.
  const double expected[] = {16, 4 + 12 / 64.0, 2 + 14 / 64.0, 16 / 64.0};
  for (int zero = 0; zero <= 3; ++zero) {
    const CostReport report =
        analytic_report(preset("qwen3-vl-8b"), "", {.device = "ascend-910b", .ranks = 64, .zero = zero});
    const double state = report.cost.state_bytes - report.memory.reserve - report.memory.loss;
    test::expect_relative(state, parameters * expected[zero], 1e-14);
    EXPECT_EQ(report.memory.reserve, 4.0 * 1024 * 1024 * 1024);
  }
}

// 8,767,123,696 parameters, of which the tower has 415,891,440 (docs/costs.md).
TEST(AnalyticCost, StepsEndWithGradientsAndAdamW) {
  const auto with = [](CostOptions options) { return analytic_cost(preset("qwen3-vl-8b"), "", options); };
  const CostModel bf16 = with({.device = "ascend-910b", .ranks = 64});
  EXPECT_EQ(bf16.gradient_bytes, 17'534'247'392.0);
  // A gradient of 2 bytes, moments and fp32 weights read and written, a weight of 2 bytes written; 1.6 TB/s.
  test::expect_relative(bf16.optimizer_s, 8767123696.0 / 64 * 28 / 1.6e12, 1e-14);
  test::expect_relative(with({.device = "ascend-910b", .ranks = 64, .zero = 0}).optimizer_s, 8767123696.0 * 28 / 1.6e12,
                        1e-14);
  const CostModel frozen = with({.device = "ascend-910b", .ranks = 64, .freeze = {.vit = true}});
  EXPECT_EQ(frozen.gradient_bytes, 2.0 * (8767123696.0 - 415891440.0));
  test::expect_relative(frozen.optimizer_s, (8767123696.0 - 415891440.0) / 64 * 28 / 1.6e12, 1e-14);
  // fp32: gradients of 4 bytes, no copies; 10 GB/s.
  const CostModel fp32 = with({.device = "local-cpu", .ranks = 4});
  EXPECT_EQ(fp32.gradient_bytes, 4 * 8767123696.0);
  test::expect_relative(fp32.optimizer_s, 8767123696.0 / 4 * 28 / 1e10, 1e-14);
}

TEST(AnalyticCost, AgreesWithTheSharedCostFiles) {
  // docs/costs.md says where and why they differ.
  for (const std::string name :
       {"qwen3-vl-2b", "qwen3-vl-4b", "qwen3-vl-8b", "internvl3-2b", "internvl2.5-4b", "internvl3-8b"}) {
    SCOPED_TRACE(name);
    const CostModel expected = read_cost_model(test::case_file("cost_" + name + ".json"));
    const CostReport report = analytic_report(preset(name), name, {.device = "ascend-910b", .ranks = 64});
    const CostModel& cost = report.cost;
    EXPECT_EQ(cost.layers, expected.layers);
    EXPECT_EQ(cost.query_heads, expected.query_heads);
    EXPECT_EQ(cost.kv_heads, expected.kv_heads);
    EXPECT_EQ(cost.task_s, expected.task_s);
    const ModuleCost& layers = row(report, "layers", "token");
    test::expect_relative(layers.forward.seconds, expected.forward.token_s, 3e-3);
    test::expect_relative(layers.backward.seconds + layers.recompute.seconds, expected.backward.token_s, 3e-3);
    // 120 TFLOP/s there.
    test::expect_relative(cost.forward.pair_s * report.attention.flop_per_s / 120e12, expected.forward.pair_s, 6e-3);
    test::expect_relative(cost.forward.step_s / 70e-6, expected.forward.step_s / 60e-6, 1e-12);
    test::expect_relative(cost.backward.step_s / 70e-6, expected.backward.step_s / 60e-6, 1e-12);
    EXPECT_EQ(cost.forward.ring_bytes_per_token, expected.forward.ring_bytes_per_token);
    EXPECT_EQ(cost.backward.ring_bytes_per_token, expected.backward.ring_bytes_per_token);
    EXPECT_EQ(cost.forward.all_to_all_bytes_per_token, expected.forward.all_to_all_bytes_per_token);
    EXPECT_EQ(cost.backward.all_to_all_bytes_per_token, expected.backward.all_to_all_bytes_per_token);
    test::expect_relative(cost.state_bytes - report.memory.reserve - report.memory.loss, expected.state_bytes, 1e-3);
    // The reference holds the logits of all tokens, and rounds.
    const double logits = 0.87 * 1048576 - report.memory.token_live_layer;
    EXPECT_NEAR(cost.token_bytes + logits, expected.token_bytes, 0.1 * 1024 * 1024);
  }
}

}  // namespace
}  // namespace dhp::analytic_cost_test
