// Qwen-VL's other regimes: qwen-vl-utils against the package itself, Qwen2-VL's video processor, published tables.
#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "dhp/qwen_vl.h"
#include "support.h"

namespace dhp::qwen_vl::qwen_vl_regimes_test {
namespace {

nlohmann::json golden(const std::string& name) {
  std::ifstream stream(test::golden_file(name));
  return nlohmann::json::parse(stream);
}

template <typename Value>
std::optional<Value> optional_of(const nlohmann::json& value) {
  if (value.is_null()) return std::nullopt;
  return value.get<Value>();
}

Rules utils_rules(int patch) { return default_rules(Processor::qwen_vl_utils, patch); }

TEST(QwenVlUtils, PicturesOfThePackage) {
  const auto cases = golden("qwen_vl_utils_sizes.json")["images"];
  ASSERT_GT(cases.size(), 400U);
  int refused = 0;
  for (const auto& entry : cases) {
    const auto resize = [&, e = &entry] {
      return image_grid(utils_rules((*e)[2]), (*e)[0], (*e)[1], optional_of<std::int64_t>((*e)[3]));
    };
    if (entry[4].is_null()) {
      EXPECT_THROW(resize(), InputError) << entry;
      ++refused;
    } else {
      EXPECT_EQ(resize(), (Grid{1, entry[4][0], entry[4][1]})) << entry;
    }
  }
  EXPECT_GT(refused, 50);
}

/// The package computes indices in single precision: a tie may round to the frame beside.
void expect_indices(const std::vector<std::int64_t>& found, const nlohmann::json& entry) {
  const auto expected = entry[11].get<std::vector<std::int64_t>>();
  const std::int64_t total = entry[2];
  constexpr std::size_t kShown = 12;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const std::size_t at = i < kShown || found.size() == expected.size() ? i : i + found.size() - expected.size();
    if (found[at] == expected[i]) continue;
    const double exact =
        static_cast<double>(at) * static_cast<double>(total - 1) / static_cast<double>(found.size() - 1);
    EXPECT_NEAR(exact - std::floor(exact), 0.5, static_cast<double>(total) * 0x1p-22) << entry << " at " << at;
    EXPECT_EQ(std::abs(found[at] - expected[i]), 1) << entry << " at " << at;
  }
}

TEST(QwenVlUtils, ClipsOfThePackage) {
  const auto cases = golden("qwen_vl_utils_sizes.json")["videos"];
  ASSERT_GT(cases.size(), 400U);
  int refused = 0;
  for (const auto& entry : cases) {
    const Sampling sampling{optional_of<double>(entry[4]), optional_of<int>(entry[5]),
                            optional_of<std::int64_t>(entry[6])};
    const auto sample = [&, e = &entry] {
      return sample_clip(utils_rules((*e)[7]), (*e)[0], (*e)[1], (*e)[2], (*e)[3], sampling);
    };
    if (entry[8].is_null()) {
      EXPECT_THROW(sample(), InputError) << entry;
      ++refused;
      continue;
    }
    const Clip clip = sample();
    ASSERT_EQ(clip.frame_indices.size(), entry[8].get<std::size_t>()) << entry;
    EXPECT_EQ(clip.grid, (Grid{entry[8].get<std::int64_t>() / 2, entry[9], entry[10]})) << entry;
    expect_indices(clip.frame_indices, entry);
  }
  EXPECT_GT(refused, 20);
}

TEST(QwenVlUtils, RefusalsSayWhatToDo) {
  const Rules rules = utils_rules(16);
  EXPECT_EQ(test::input_error([&] { image_grid(rules, 720, 1280, 3000); }),
            "image: max_pixels: found 3000, expected at least 4096 (min_pixels)");
  // 134 tokens at most over a clip of 768 frames: at 200 to 1 the short side vanishes.
  EXPECT_EQ(test::input_error([&] { sample_clip(rules, 50, 10'000, 10'000, 10.0, {.max_pixels = 131'072}); }),
            "video: size: found 10000 x 50 pixels (width x height), of which qwen-vl-utils leaves 5120 x 0; raise "
            "max_pixels");
  EXPECT_EQ(test::input_error([&] { sample_clip(rules, 64, 64, 1, 30.0); }),
            "video: frames: found 0 sampled of 1, expected at least 2");
}

TEST(QwenVlRegimes, PublishedPicturesOfQwen25) {
  const std::vector<std::array<std::int64_t, 3>> table = {{320, 240, 99},    {512, 512, 324},    {640, 480, 391},
                                                          {1280, 720, 1196}, {1920, 1080, 2691}, {3840, 2160, 10549},
                                                          {1300, 876, 1426}};
  for (const Processor processor : {Processor::qwen2_vl, Processor::qwen_vl_utils}) {
    const Rules rules = default_rules(processor, 14);
    for (const auto& [width, height, tokens] : table) {
      EXPECT_EQ(visual_tokens(rules, image_grid(rules, height, width)), tokens) << width << " x " << height;
    }
  }
}

TEST(QwenVlRegimes, PublishedClipsOfTheUtilities) {
  // Qwen3-VL, 30 frames a second sampled at 2.
  const Rules rules = utils_rules(16);
  const std::vector<std::array<std::int64_t, 3>> table = {{2, 280, 1440},    {8, 1120, 5760},   {15, 2100, 10800},
                                                          {30, 4200, 21600}, {64, 8960, 46080}, {120, 16800, 86400}};
  for (const auto& [seconds, small, large] : table) {
    const auto tokens = [&, length = seconds](std::int64_t width, std::int64_t height) {
      return visual_tokens(rules, sample_clip(rules, height, width, length * 30, 30.0).grid);
    };
    EXPECT_EQ(tokens(320, 240), small) << seconds;
    EXPECT_EQ(tokens(1280, 720), large) << seconds;
    EXPECT_EQ(tokens(1920, 1080), large) << seconds;
  }
}

TEST(QwenVlRegimes, Qwen2ClipsWorkedByHand) {
  const Rules rules = default_rules(Processor::qwen2_vl, 14);
  // 8 s at 2 frames a second: 16 frames; 720/28 = 25.7 and 1280/28 = 45.7 round to 26 and 46.
  const Clip clip = sample_clip(rules, 720, 1280, 240, 30.0);
  EXPECT_EQ(clip.grid, (Grid{8, 52, 92}));
  EXPECT_EQ(clip.frame_indices[1], 15);
  EXPECT_EQ(clip.frame_indices.back(), 225);
  // 17 frames at a step of 17/14 make 15 of them by torch.arange, and so eight pairs.
  EXPECT_EQ(sample_clip(rules, 64, 64, 17, 30.0, {.frames = 14}).grid.frames, 8);
  // Frames of the limit of 100,352 pixels: 1280 x 720 shrinks by sqrt(9.18), to 237.6 and 422.4.
  EXPECT_EQ(sample_clip(rules, 720, 1280, 240, 30.0, {.max_pixels = 100'352}).grid, (Grid{8, 16, 30}));
  EXPECT_EQ(test::input_error([&] { sample_clip(rules, 64, 64, 9, 30.0, {.frames = 12}); }),
            "video: frames: found 12 sampled of 9, expected no more than there are");
}

TEST(QwenVlRegimes, SettingsOfQwen2Checkpoints) {
  constexpr const char* kImage = R"({"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 3136,
      "max_pixels": 12845056})";
  EXPECT_EQ(parse_rules(kImage, "i", std::nullopt, "v", Processor::qwen2_vl), default_rules(Processor::qwen2_vl, 14));
  const Rules rules = parse_rules(kImage, "i", R"({"max_frames": 64})", "v", Processor::qwen2_vl);
  EXPECT_EQ(rules.video_min_pixels, 128 * 28 * 28);  // the class's own
  EXPECT_EQ(rules.video_max_pixels, 768 * 28 * 28);
  EXPECT_EQ(rules.max_frames, 64);
  EXPECT_EQ(default_rules(Processor::qwen3_vl, 16), Rules{});
  EXPECT_THROW(parse_rules(kImage, "i", std::nullopt, "v", Processor::qwen_vl_utils), std::invalid_argument);
}

TEST(QwenVlRegimes, AnAbsurdRateOfGlm4vIsRefused) {
  Rules rules;
  rules.processor = Processor::glm4v;
  constexpr std::int64_t kHour = 3600 * 30;
  for (const auto& [total, source_fps, fps] : {std::tuple{std::int64_t{300}, 30.0, 1e300},
                                               {std::int64_t{300}, 30.0, 1e7},
                                               {kHour, 30.0, 1e9},
                                               {std::int64_t{1} << 40, 30.0, 1e300},
                                               {std::int64_t{1} << 40, 30.0, 1e5}}) {
    if (total == kHour) {  // all frames that there are
      EXPECT_EQ(std::ssize(sample_clip(rules, 64, 64, total, source_fps, {.fps = fps}).frame_indices), kHour);
      continue;
    }
    try {
      sample_clip(rules, 64, 64, total, source_fps, {.fps = fps});
      ADD_FAILURE() << total << " " << fps;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find("expected at most 1048576"), std::string::npos) << error.what();
    }
  }
}

TEST(QwenVlTimestamps, TokensOfTheVocabulary) {
  const auto cases = golden("qwen_text_tokens.json")["timestamps"];
  ASSERT_GT(cases.size(), 100U);
  for (const auto& entry : cases) EXPECT_EQ(timestamp_tokens(entry[0]), entry[1].get<int>()) << entry;
}

}  // namespace
}  // namespace dhp::qwen_vl::qwen_vl_regimes_test
