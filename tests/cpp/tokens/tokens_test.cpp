// What media become in a sequence: families, markers, timestamps, checkpoint folders.
#include "dhp/tokens.h"

#include <gtest/gtest.h>

#include "support.h"
#include "temporary_folder.h"

namespace dhp::tokens_test {
namespace {

TEST(Tokens, MarkersStandApart) {
  const TokenRules qwen3 = token_rules(Family::qwen3_vl, MediaSampling::hugging_face);
  const MediumTokens image = image_tokens(qwen3, 720, 1280);
  EXPECT_EQ(image.tokens, 880);
  EXPECT_EQ(image.patches, 3520);
  EXPECT_EQ(image.marker_tokens, 2);
  EXPECT_EQ(image.timestamp_tokens, 0);
  EXPECT_EQ(image.all(), 882);
  EXPECT_EQ(image_tokens(token_rules(Family::internvl, MediaSampling::internvl_chat), 720, 1280).all(), 2306);
  EXPECT_EQ(image_tokens(token_rules(Family::qwen2_5_vl, MediaSampling::qwen_vl_utils), 720, 1280).all(), 1198);
}

TEST(Tokens, TimesOfQwen3Clips) {
  // 30 s of 30 frames a second sampled at 2: 60 of the frames 0, 15.24 … 899 in pairs. Means of pairs are below 10 s
  // (three digits and ".": 6 tokens) for 10 of them, and above (7 tokens) for 20.
  const Video video = {720, 1280, 900, 30.0};
  for (const MediaSampling sampling : {MediaSampling::hugging_face, MediaSampling::qwen_vl_utils}) {
    const MediumTokens clip = video_tokens(token_rules(Family::qwen3_vl, sampling), video);
    EXPECT_EQ(clip.frames, 60);
    EXPECT_EQ(clip.marker_tokens, 60);
    EXPECT_EQ(clip.timestamp_tokens, 10 * 6 + 20 * 7);
  }
  EXPECT_EQ(video_tokens(token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils), video).tokens, 21'600);
  for (const Family family : {Family::qwen2_vl, Family::qwen2_5_vl}) {
    const MediumTokens clip = video_tokens(token_rules(family, MediaSampling::qwen_vl_utils), video);
    EXPECT_EQ(clip.tokens, 21'600);
    EXPECT_EQ(clip.marker_tokens, 2);
    EXPECT_EQ(clip.timestamp_tokens, 0);
  }
}

TEST(Tokens, FramesOfInternVl) {
  const Video video = {240, 320, 900, 30.0};
  const MediumTokens clip =
      video_tokens(token_rules(Family::internvl, MediaSampling::internvl_chat), video, {.frames = 12});
  EXPECT_EQ(clip.tokens, 12 * 256);
  EXPECT_EQ(clip.patches, 12 * 1024);
  EXPECT_EQ(clip.marker_tokens, 24);
  EXPECT_EQ(clip.timestamp_tokens, 9 * 6 + 3 * 7);  // "Frame-1: " and the line's end, "Frame-10: "
}

TEST(Tokens, NamesOfFamilies) {
  EXPECT_EQ(parse_family("qwen2-vl", "--model"), Family::qwen2_vl);
  EXPECT_EQ(parse_family("Qwen2.5-VL-7B-Instruct", "--model"), Family::qwen2_5_vl);
  EXPECT_EQ(parse_family("qwen3-vl-8b", "--model"), Family::qwen3_vl);
  EXPECT_EQ(parse_family("Qwen/Qwen3-VL-8B-Instruct", "--model"), Family::qwen3_vl);
  EXPECT_EQ(parse_family("OpenGVLab/InternVL3-8B-hf", "--model"), Family::internvl);
  for (const char* path : {"/models/qwen3-vl-8b", "./qwen3-vl-8b", "a/b/qwen3-vl-8b"}) {
    EXPECT_THROW(parse_family(path, "--model"), InputError) << path;
  }
  EXPECT_EQ(parse_family("InternVL3-8B", "--model"), Family::internvl);
  EXPECT_EQ(parse_family("internvl2.5-4b", "--model"), Family::internvl);
  EXPECT_EQ(test::input_error([] {
              parse_family("qwen4-vl", "--model");
            }).rfind("--model: found \"qwen4-vl\", expected qwen2-vl, qwen2.5-vl, qwen3-vl, internvl", 0),
            0U);
  EXPECT_THROW(parse_family("qwen3-vlx", "--model"), InputError);
  EXPECT_EQ(test::input_error([] { token_rules(Family::internvl, MediaSampling::qwen_vl_utils); }),
            "--sampling: found qwen-vl-utils, which knows no internvl; expected hf or internvl-chat");
  EXPECT_THROW(token_rules(Family::qwen3_vl, MediaSampling::internvl_chat), InputError);
  for (const Family family : {Family::qwen2_vl, Family::qwen2_5_vl, Family::qwen3_vl, Family::internvl}) {
    EXPECT_EQ(parse_family(to_string(family), "f"), family);
    for (const MediaSampling sampling : {MediaSampling::hugging_face, own_sampling(family)}) {
      EXPECT_EQ(token_rules(family, sampling).sampling(), sampling);
      EXPECT_EQ(parse_media_sampling(to_string(sampling), "s"), sampling);
    }
  }
}

TEST(Tokens, OptionsOfOtherFamiliesAreRefused) {
  const TokenRules qwen = token_rules(Family::qwen3_vl, MediaSampling::hugging_face);
  const TokenRules intern = token_rules(Family::internvl, MediaSampling::internvl_chat);
  EXPECT_EQ(test::input_error([&] { image_tokens(qwen, 9, 9, {.max_tiles = 2}); }),
            "image: max_tiles: is not for Qwen-VL; leave it out");
  EXPECT_THROW(video_tokens(qwen, {9, 9, 90, 30.0}, {.max_tiles = 2}), InputError);
  EXPECT_THROW(image_tokens(intern, 9, 9, {.max_pixels = 2}), InputError);
  EXPECT_THROW(video_tokens(intern, {9, 9, 90, 30.0}, {.max_pixels = 2}), InputError);
}

TEST(TokenRulesOfFolders, Families) {
  const test::TemporaryFolder folder;
  EXPECT_THROW(read_token_rules(folder.path()), InputError);  // no config.json
  folder.write("config.json", R"({"model_type": "llama"})");
  EXPECT_EQ(test::input_error([&] {
              read_token_rules(folder.path());
            }).rfind(folder.path() + "/config.json: model_type: found \"llama\", expected one of qwen2_vl", 0),
            0U);
  folder.write("preprocessor_config.json", R"({"patch_size": 16, "merge_size": 2, "min_pixels": 1, "max_pixels": 9})");
  folder.write("config.json", R"({"model_type": "qwen3_vl_moe"})");
  const TokenRules qwen3 = read_token_rules(folder.path());
  EXPECT_EQ(qwen3.family, Family::qwen3_vl);
  EXPECT_EQ(std::get<qwen_vl::Rules>(qwen3.rules).image_max_pixels, 9);
  EXPECT_EQ(qwen3.sampling(), MediaSampling::hugging_face);
  EXPECT_EQ(read_token_rules(folder.path(), MediaSampling::qwen_vl_utils),
            token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils));
  folder.write("config.json", R"({"model_type": "qwen2_5_vl"})");
  EXPECT_EQ(std::get<qwen_vl::Rules>(read_token_rules(folder.path()).rules).processor, qwen_vl::Processor::qwen2_vl);
}

TEST(TokenRulesOfFolders, InternVl) {
  const test::TemporaryFolder folder;
  folder.write("config.json", R"({"model_type": "internvl"})");
  EXPECT_EQ(read_token_rules(folder.path()), token_rules(Family::internvl, MediaSampling::hugging_face));
  folder.write("preprocessor_config.json", R"({"size": {"height": 224, "width": 224}, "max_patches": 6})");
  const auto rules = std::get<internvl::Rules>(read_token_rules(folder.path()).rules);
  EXPECT_EQ(rules.tile_size, 224);
  EXPECT_EQ(rules.max_tiles, 6);
  EXPECT_EQ(internvl::tokens_per_tile(rules), 64);
  folder.write("config.json",
               R"({"model_type": "internvl", "vision_config": {"patch_size": [16, 16]}, "downsample_ratio": 0.25})");
  folder.write("preprocessor_config.json", R"({"size": {"height": 448, "width": 448}})");
  const auto coarse = std::get<internvl::Rules>(read_token_rules(folder.path()).rules);
  EXPECT_EQ(internvl::tokens_per_tile(coarse), 49);
  EXPECT_EQ(internvl::patches_per_tile(coarse), 784);
  folder.write("config.json", R"({"model_type": "internvl_chat", "force_image_size": 448, "max_dynamic_patch": 8,
                                  "use_thumbnail": false, "downsample_ratio": 0.5})");
  const TokenRules chat = read_token_rules(folder.path(), MediaSampling::internvl_chat);
  EXPECT_EQ(std::get<internvl::Rules>(chat.rules).max_tiles, 8);
  EXPECT_FALSE(std::get<internvl::Rules>(chat.rules).thumbnail);
  EXPECT_EQ(test::input_error([] { parse_internvl_rules(R"({"size": {"height": 448, "width": 9}})", "p"); }),
            "p: size.width: found 9, expected the height, 448: tiles are square");
  EXPECT_EQ(test::input_error([] {
              parse_internvl_rules(R"({"size": {"height": 449, "width": 449}})", "p");
            }).rfind("p: ", 0),
            0U);
  EXPECT_EQ(test::input_error([] { parse_internvl_chat_config(R"({"downsample_ratio": 0.3})", "c"); }),
            "c: downsample_ratio: found 0.3, expected 1 divided by a whole number up to 16");
}

}  // namespace
}  // namespace dhp::tokens_test
