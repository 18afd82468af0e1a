// Reading config.json of the model families, and what is refused.
#include "cost/count/model_shape.h"

#include <gtest/gtest.h>

#include "cost/count/modules.h"
#include "dhp/cluster.h"
#include "dhp/device.h"
#include "dhp/presets.h"
#include "support.h"
#include "temporary_folder.h"

namespace dhp::model_shape_test {
namespace {

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

constexpr const char* kQwen3 = R"({"model_type": "qwen3_vl", "tie_word_embeddings": true,
  "text_config": {"hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "head_dim": 6, "vocab_size": 50},
  "vision_config": {"depth": 1, "hidden_size": 4, "intermediate_size": 6, "out_hidden_size": 8, "patch_size": 2,
                    "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 9,
                    "deepstack_visual_indexes": [0]}})";

constexpr const char* kExperts = R"({"model_type": "qwen3_vl_moe",
  "text_config": {"hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 4, "num_attention_heads": 4,
                  "num_key_value_heads": 2, "vocab_size": 50, "num_experts": 5, "num_experts_per_tok": 2,
                  "moe_intermediate_size": 3, "decoder_sparse_step": 1, "mlp_only_layers": [2]},
  "vision_config": {"depth": 1, "hidden_size": 4, "intermediate_size": 6, "out_hidden_size": 8, "patch_size": 2,
                    "temporal_patch_size": 2, "spatial_merge_size": 2, "num_position_embeddings": 9,
                    "deepstack_visual_indexes": []}})";

// As on the hub: the language model's fields stand beside vision_config.
constexpr const char* kFlatQwen25 = R"({"model_type": "qwen2_5_vl", "tie_word_embeddings": true,
  "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 50, "use_sliding_window": false,
  "vision_config": {"depth": 3, "hidden_size": 4, "intermediate_size": 6, "out_hidden_size": 8, "in_chans": 3,
                    "patch_size": 2, "temporal_patch_size": 2, "spatial_merge_size": 2, "window_size": 8,
                    "fullatt_block_indexes": [2], "num_heads": 2}})";

constexpr const char* kInternVl = R"({"model_type": "internvl", "tie_word_embeddings": false, "downsample_ratio": 0.5,
  "text_config": {"model_type": "qwen2", "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2,
                  "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50},
  "vision_config": {"num_hidden_layers": 3, "hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 2,
                    "attention_bias": true, "image_size": [8, 8], "patch_size": [2, 2]}})";

constexpr const char* kInternVlChat = R"({"model_type": "internvl_chat", "downsample_ratio": 0.5,
  "llm_config": {"model_type": "qwen2", "hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50},
  "vision_config": {"num_hidden_layers": 3, "hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 2,
                    "qkv_bias": true, "qk_normalization": false, "norm_type": "layer_norm", "image_size": 8,
                    "patch_size": 2}})";

ModuleParameters count(const std::string& config) { return count_modules(parse_model_shape(config, "config.json")); }

TEST(ModelShape, ExpertsAreCountedUnderTheNameThatTransformersSaves) {
  const ModelShape released = parse_model_shape(kExperts, "released");
  const ModelShape saved = parse_model_shape(replaced(kExperts, "num_experts\"", "num_local_experts\""), "saved");
  EXPECT_EQ(saved.language.experts, 5);
  EXPECT_EQ(saved.language.experts, released.language.experts);
}

TEST(ModelShape, Qwen25ByHand) {
  const ModuleParameters counts = count(kFlatQwen25);
  // Heads of 8/4 = 2: queries 8, keys and values 4 wide. Biases on these three; two RMSNorms.
  const std::int64_t layer = 8 * 8 + 8 + 2 * (8 * 4 + 4) + 8 * 8 + 3 * 8 * 20 + 2 * 8;
  EXPECT_EQ(counts.layers, 2 * layer + 8);
  EXPECT_EQ(counts.embedding, 400);
  EXPECT_EQ(counts.head, 0);
  // No bias on patches; SwiGLU with three biases; two RMSNorms.
  const std::int64_t block = (4 * 12 + 12) + (4 * 4 + 4) + 3 * 4 * 6 + 2 * 6 + 4 + 2 * 4;
  EXPECT_EQ(counts.vision, 24 * 4 + 3 * block);
  EXPECT_EQ(counts.projector, 4 + (16 * 16 + 16) + (16 * 8 + 8));
  // Windows of 8 pixels hold 4 x 4 patches; one block of three sees the whole frame. 4*4 FLOP a pair and block.
  const ForwardWork work = count_forward(parse_model_shape(kFlatQwen25, ""));
  EXPECT_EQ(work.vision_blocks.attention, 16 * 2 * 16);
  EXPECT_EQ(work.vision_pair_flop, 16);
  EXPECT_EQ(work.vision_key_flop, 16 * 3);
  EXPECT_EQ(work.vision_calls, 2 / 16.0 + 1 / 1024.0);

  // The same, nested as transformers writes it.
  std::string nested = replaced(kFlatQwen25, R"("hidden_size": 8)", R"("text_config": {"hidden_size": 8)");
  nested = replaced(nested, R"("use_sliding_window": false,)", R"("use_sliding_window": false},)");
  EXPECT_EQ(count(nested).layers, counts.layers);
  EXPECT_EQ(count(nested).vision, counts.vision);
}

TEST(ModelShape, InternVlByHand) {
  for (const char* config : {kInternVl, kInternVlChat}) {
    const ModuleParameters counts = count(config);
    EXPECT_EQ(counts.layers, count(kFlatQwen25).layers);
    EXPECT_EQ(counts.embedding, 400);
    EXPECT_EQ(counts.head, 400);
    // LayerNorms and layer scale; 16 patches of 3*2*2 values, a class vector, 17 positions.
    const std::int64_t block = (4 * 12 + 12) + (4 * 4 + 4) + (4 * 6 + 6) + (6 * 4 + 4) + 2 * 8 + 2 * 4;
    EXPECT_EQ(counts.vision, 12 * 4 + 4 + 4 + 17 * 4 + 3 * block);
    EXPECT_EQ(counts.projector, 2 * 16 + (16 * 8 + 8) + (8 * 8 + 8));
    const ModelShape shape = parse_model_shape(config, "");
    EXPECT_EQ(tokens_per_patch(shape.vision), 17 / 16.0);
    const ForwardWork work = count_forward(shape);  // 17 tokens see 17, for 16 patches, whatever the picture
    EXPECT_EQ(work.vision_blocks.attention, 4 * 4 * 3 * 17 * 17 / 16.0);
    EXPECT_EQ(work.vision_pair_flop, 0);
    EXPECT_EQ(work.vision_key_flop, 4 * 4 * 3 * 17 / 16.0);
    EXPECT_EQ(work.vision_calls, 3 / 16.0);
  }
  // transformers ties what nothing is said about.
  EXPECT_EQ(count(replaced(kInternVl, R"("tie_word_embeddings": false, )", "")).head, 0);
  const ModuleParameters rms = count(replaced(kInternVlChat, "layer_norm", "rms_norm"));
  EXPECT_EQ(rms.vision, count(kInternVlChat).vision - 3 * 8);
  const ModuleParameters normed =
      count(replaced(kInternVlChat, R"("qk_normalization": false)", R"("qk_normalization": true)"));
  EXPECT_EQ(normed.vision, count(kInternVlChat).vision + 3 * 2 * 4);
}

TEST(ModelShape, ExpertsByHand) {
  const ModelShape shape = parse_model_shape(kExperts, "");
  EXPECT_EQ(shape.language.sparse_layers, 3);
  EXPECT_EQ(shape.language.head_dim, 2);
  const std::int64_t attention = 8 * 8 * 2 + 8 * 4 * 2 + 2 * 8 + 2 * 2;
  EXPECT_EQ(count_modules(shape).layers, 4 * attention + 3 * (5 * 8 + 5 * 3 * 8 * 3) + 3 * 8 * 20 + 8);
  // A token meets the router and two experts.
  EXPECT_EQ(count_forward(shape).layers.linear,
            2.0 * (4 * (8 * 8 * 2 + 8 * 4 * 2) + 3 * (5 * 8 + 2 * 3 * 8 * 3) + 3 * 8 * 20));
  const ModelShape second =
      parse_model_shape(replaced(kExperts, "\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 2"), "");
  EXPECT_EQ(second.language.sparse_layers, 2);  // layers 1 and 3
}

TEST(ModelShape, BadInput) {
  const auto message = [](const std::string& config, const std::string& from, const std::string& to) {
    return test::input_error([&] { parse_model_shape(replaced(config, from, to), "config.json"); });
  };
  EXPECT_EQ(message(kQwen3, "qwen3_vl", "mamba"),
            "config.json: model_type: found \"mamba\", expected one of qwen3_vl, qwen3_vl_moe, qwen2_5_vl, qwen2_vl, "
            "internvl, internvl_chat, qwen3, qwen3_moe, qwen2, llama");
  EXPECT_EQ(
      message(kQwen3, "\"num_hidden_layers\": 2, ", "").rfind("config.json: text_config.num_hidden_layers: missing", 0),
      0U);
  EXPECT_EQ(message(kQwen3, "\"depth\": 1", "\"depth\": 1.5").rfind("config.json: vision_config.depth: found 1.5", 0),
            0U);
  EXPECT_EQ(message(kQwen3, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3"),
            "config.json: text_config.num_key_value_heads: found 3, expected a divisor of the 4 attention heads");
  EXPECT_EQ(message(kQwen3, "\"text_config\"", "\"text\"").rfind("config.json: text_config: missing", 0), 0U);
  EXPECT_EQ(
      message(kQwen3, "[0]", "[0, 0]"),
      "config.json: vision_config.deepstack_visual_indexes: found 2 of them, expected at most the 1 blocks of the "
      "tower");
  EXPECT_EQ(message(kFlatQwen25, "\"use_sliding_window\": false", "\"use_sliding_window\": true"),
            "config.json: use_sliding_window: found true, expected false: attention of the language model is counted "
            "over whole sequences");
  EXPECT_EQ(message(kFlatQwen25, "\"num_attention_heads\": 4", "\"num_attention_heads\": 6"),
            "config.json: num_attention_heads: found 6, expected a divisor of the 8 of hidden_size");
  EXPECT_EQ(message(kInternVl, "0.5", "0.3"),
            "config.json: downsample_ratio: found 0.3, expected 1 divided by a whole number up to 16");
  EXPECT_EQ(message(kInternVl, "qwen2", "internlm2"),
            "config.json: text_config.model_type: found \"internlm2\", expected \"qwen2\" or \"qwen3\"");
  EXPECT_EQ(message(kInternVl, "[8, 8]", "[8]"),
            "config.json: vision_config.image_size: found 1 numbers, expected height and width");
  EXPECT_EQ(message(kInternVl, "[8, 8]", "[1, 1]"),
            "config.json: vision_config.image_size: found less than patch_size, expected at least one patch");
  EXPECT_EQ(message(kInternVlChat, "layer_norm", "group_norm"),
            "config.json: vision_config.norm_type: found \"group_norm\", expected \"layer_norm\" or \"rms_norm\"");
  EXPECT_EQ(message(kExperts, "\"num_experts_per_tok\": 2", "\"num_experts_per_tok\": 6"),
            "config.json: text_config.num_experts_per_tok: found 6, expected a whole number from 1 to 5");
}

TEST(CostOptions, BadInput) {
  const auto message = [](const CostOptions& options) {
    return test::input_error([&] { analytic_cost(kQwen3, "config.json", options); });
  };
  EXPECT_EQ(message({.device = "tpu"}),
            "tpu: is neither a file nor a preset; presets: a100, ascend-910b, b200, h100, h200, local-cpu");
  EXPECT_EQ(message({.ranks = 0}), "--ranks: found 0, expected at least 1");
  EXPECT_EQ(message({.zero = 4}), "--zero: found 4, expected 0, 1, 2 or 3");
  EXPECT_EQ(message({.freeze = {true, true, true}}), "--freeze: vit, aligner and llm together leave nothing to train");
  EXPECT_EQ(parse_freeze("llm,vit", ""), (Freeze{.vit = true, .llm = true}));
  EXPECT_EQ(parse_freeze("", ""), Freeze{});
  EXPECT_EQ(test::input_error([] { parse_freeze("vit,head", "--freeze"); }),
            "--freeze: found \"head\", expected vit, aligner and llm, apart by commas");
  EXPECT_EQ(test::input_error([] { parse_recompute("some", "--recompute"); }),
            "--recompute: found \"some\", expected full, keep_attention or none");
}

TEST(Presets, NamesFilesAndFolders) {
  EXPECT_EQ(test::input_error([] {
              read_model_config("qwen3-vl-9b");
            }).rfind("qwen3-vl-9b: is neither a file nor a preset; presets: internvl2.5-4b, internvl3-14b", 0),
            0U);
  const test::TemporaryFolder folder;
  const std::string config = folder.write("config.json", kInternVl);
  EXPECT_EQ(read_model_config(folder.path()).text, kInternVl);
  EXPECT_EQ(read_model_config(config).source, config);
  for (const Preset& preset : model_presets()) {
    EXPECT_EQ(read_model_config(std::string(preset.name)).text, preset.text);
  }
}

TEST(Presets, ClustersOfAnySize) {
  for (const Preset& preset : cluster_presets()) {
    const Cluster cluster = read_cluster(std::string(preset.name));
    EXPECT_EQ(cluster.ranks(), preset.name == "local-cpu-1x8" ? 8 : 64) << preset.name;
    EXPECT_EQ(cluster, parse_cluster(preset.text, "preset"));
  }
  EXPECT_EQ(cluster_presets().size(), 6U);
  EXPECT_EQ(read_cluster("local-cpu-1x4").ranks(), 4);
  EXPECT_EQ(read_cluster("local-cpu-1x4").memory_bytes, read_device("local-cpu").memory_bytes);
  EXPECT_EQ(read_cluster("ascend-910b-8x8"), read_cluster(test::case_file("cluster_910b_8x8.json")));
  EXPECT_EQ(read_cluster("h100-8x8"), read_cluster(test::case_file("cluster_h100_8x8.json")));
  Cluster expected = read_cluster("ascend-910b-8x8");
  expected.nodes = 128;
  expected.ranks_per_node = 6;
  EXPECT_EQ(read_cluster("ascend-910b-128x6"), expected);
  EXPECT_EQ(test::input_error([] { read_cluster("h100-2x16"); }),
            "h100-2x16: expected h100-NODESxRANKS of at most 8 ranks a node, 1048576 in all");
  EXPECT_EQ(test::input_error([] { read_cluster("h100-0x8"); }),
            "h100-0x8: expected h100-NODESxRANKS of at most 8 ranks a node, 1048576 in all");
  EXPECT_EQ(test::input_error([] { read_cluster("h100-8x"); }),
            "h100-8x: expected h100-NODESxRANKS of at most 8 ranks a node, 1048576 in all");
  EXPECT_EQ(
      test::input_error([] { read_cluster("tpu-8x8"); }),
      "tpu-8x8: is neither a file nor a preset; presets: a100-8x8, ascend-910b-8x8, b200-8x8, h100-8x8, h200-8x8, "
      "local-cpu-1x8");
  EXPECT_EQ(test::input_error([] { read_cluster("h100-1048576x8"); }).rfind("h100-1048576x8: nodes: ", 0), 0U);
}

}  // namespace
}  // namespace dhp::model_shape_test
