// The token rule of Qwen3-VL against transformers and published figures.
#include "dhp/qwen_vl.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support.h"
#include "temporary_folder.h"

namespace dhp::qwen_vl::qwen_vl_test {
namespace {

nlohmann::json golden() {
  std::ifstream stream(test::golden_file("qwen3_vl_sizes.json"));
  return nlohmann::json::parse(stream);
}

Rules image_rules(int patch, std::int64_t least, std::int64_t most) {
  Rules rules;
  rules.patch_size = patch;
  rules.image_min_pixels = least;
  rules.image_max_pixels = most;
  return rules;
}

Rules video_rules(std::int64_t least, std::int64_t most) {
  Rules rules;
  rules.video_min_pixels = least;
  rules.video_max_pixels = most;
  return rules;
}

TEST(Qwen3VlGolden, Images) {
  const auto cases = golden()["images"];
  ASSERT_GT(cases.size(), 300U);
  for (const auto& entry : cases) {
    const Rules rules = image_rules(entry[2], entry[3], entry[4]);
    const Grid expected{1, entry[5], entry[6]};
    EXPECT_EQ(image_grid(rules, entry[0], entry[1]), expected) << entry;
    // The limit of one picture does what the limit of the rules does.
    EXPECT_EQ(image_grid(image_rules(entry[2], entry[3], 1), entry[0], entry[1], entry[4].get<std::int64_t>()),
              expected)
        << entry;
  }
}

TEST(Qwen3VlGolden, Videos) {
  const auto cases = golden()["videos"];
  ASSERT_GT(cases.size(), 100U);
  for (const auto& entry : cases) {
    Sampling sampling;
    if (!entry["fps"].is_null()) sampling.fps = entry["fps"];
    if (!entry["frames"].is_null()) sampling.frames = entry["frames"];
    const Clip clip = sample_clip(video_rules(entry["min_pixels"], entry["max_pixels"]), entry["height"],
                                  entry["width"], entry["total_frames"], entry["source_fps"], sampling);
    EXPECT_EQ(clip.grid, (Grid{entry["grid"][0], entry["grid"][1], entry["grid"][2]})) << entry;
    EXPECT_EQ(clip.frame_indices, entry["indices"].get<std::vector<std::int64_t>>()) << entry;
    EXPECT_EQ(clip.timestamps_s, entry["timestamps"].get<std::vector<double>>()) << entry;
  }
}

TEST(Qwen3Vl, PublishedPictures) {
  // transformers, tests of qwen2_vl: smart_resize(561, 278, 28) and a 1024 x 1024 picture.
  EXPECT_EQ(image_grid(image_rules(14, 3136, 1003520), 561, 278), (Grid{1, 560 / 14, 280 / 14}));
  EXPECT_EQ(image_grid(image_rules(14, 3136, 1003520), 1024, 1024), (Grid{1, 70, 70}));
  // vLLM, tests of qwen2_vl: tokens and patches of a 1300 x 876 picture, with the hub limits and with smaller ones.
  const Rules hub = image_rules(14, 3136, 12845056);
  EXPECT_EQ(image_grid(hub, 876, 1300).patches(), 5704);
  EXPECT_EQ(visual_tokens(hub, image_grid(hub, 876, 1300)), 1426);
  EXPECT_EQ(image_grid(image_rules(14, 64 * 64, 512 * 512), 876, 1300).patches(), 1320);
  // Tokens at the limits of the Qwen3-VL hub files.
  const Rules rules;
  const std::vector<std::array<std::int64_t, 3>> table = {{320, 240, 80},   {512, 512, 256},    {640, 480, 300},
                                                          {1280, 720, 880}, {1920, 1080, 2040}, {3840, 2160, 8160}};
  for (const auto& [width, height, tokens] : table) {
    EXPECT_EQ(visual_tokens(rules, image_grid(rules, height, width)), tokens) << width << " x " << height;
  }
}

TEST(Qwen3Vl, PublishedClips) {
  // transformers, tests of qwen3_vl.
  Rules three = video_rules(1024, 5120);
  three.temporal_patch_size = 3;
  EXPECT_EQ(sample_clip(three, 32, 32, 5, 24.0, {.frames = 5}).grid, (Grid{2, 2, 2}));
  const Rules small = video_rules(4096, 131072);
  EXPECT_EQ(sample_clip(small, 240, 320, 3, 24.0, {.frames = 3}).grid, (Grid{2, 10, 14}));
  EXPECT_EQ(sample_clip(small, 240, 320, 4, 24.0, {.frames = 4}).grid, (Grid{2, 8, 12}));
  EXPECT_EQ(sample_clip(video_rules(2'500'000, 73'728'000), 720, 1280, 46, 24.0, {.frames = 46}).grid,
            (Grid{23, 704 / 16, 1280 / 16}));
  // Tokens of clips of 30 frames a second at the limits of the hub files.
  const Rules rules;
  const std::vector<std::array<std::int64_t, 4>> table = {{2, 160, 1760, 4080},     {8, 640, 7040, 12064},
                                                          {15, 1200, 11970, 11970}, {30, 2400, 11700, 11700},
                                                          {64, 5120, 11520, 11520}, {120, 9600, 10920, 10920}};
  for (const auto& [seconds, small_tokens, hd_tokens, full_tokens] : table) {
    const auto tokens = [&, length = seconds](std::int64_t width, std::int64_t height) {
      return visual_tokens(rules, sample_clip(rules, height, width, length * 30, 30.0).grid);
    };
    EXPECT_EQ(tokens(320, 240), small_tokens) << seconds;
    EXPECT_EQ(tokens(1280, 720), hd_tokens) << seconds;
    EXPECT_EQ(tokens(1920, 1080), full_tokens) << seconds;
  }
}

TEST(Qwen3Vl, OddCountsRepeatTheLastFrame) {
  const Clip clip = sample_clip({}, 64, 64, 100, 10.0, {.frames = 5});
  EXPECT_EQ(clip.grid.frames, 3);
  EXPECT_EQ(clip.frame_indices, (std::vector<std::int64_t>{0, 25, 50, 74, 99}));  // 24.75, 49.5 (to even), 74.25
  ASSERT_EQ(clip.timestamps_s.size(), 3U);
  EXPECT_DOUBLE_EQ(clip.timestamps_s[0], 1.25);
  EXPECT_DOUBLE_EQ(clip.timestamps_s[1], 6.2);
  EXPECT_DOUBLE_EQ(clip.timestamps_s[2], 9.9);
}

TEST(Qwen3Vl, MorePicturesThanTheClipHasRepeat) {
  EXPECT_EQ(sample_clip({}, 64, 64, 2, 10.0, {.frames = 4}).frame_indices, (std::vector<std::int64_t>{0, 0, 1, 1}));
  EXPECT_EQ(sample_clip({}, 64, 64, 1, 10.0, {.frames = 2}).frame_indices, (std::vector<std::int64_t>{0, 0}));
}

TEST(Qwen3Vl, MaxPixelsOfAFrameLowersTheLimitOnly) {
  const Rules rules;
  for (const int frames : {2, 3, 8, 31, 768}) {
    const Clip clip = sample_clip(rules, 1080, 1920, 3000, 30.0, {.frames = frames, .max_pixels = 100'000});
    EXPECT_LE(clip.grid.height * clip.grid.width * 256, 100'000) << frames;
    const Clip wide = sample_clip(rules, 1080, 1920, 3000, 30.0, {.frames = frames, .max_pixels = 1'000'000'000});
    EXPECT_EQ(wide.grid, sample_clip(rules, 1080, 1920, 3000, 30.0, {.frames = frames}).grid);
  }
}

TEST(Qwen3Vl, BadSizes) {
  const Rules rules;
  const auto image = [&](std::int64_t height, std::int64_t width) {
    return test::input_error([&] { image_grid(rules, height, width); });
  };
  EXPECT_EQ(image(0, 5), "image: height: found 0, expected 1 to 1048576 pixels");
  EXPECT_EQ(image(5, -5), "image: width: found -5, expected 1 to 1048576 pixels");
  EXPECT_EQ(image(std::int64_t{1} << 40, 5).rfind("image: height: found", 0), 0U);
  EXPECT_EQ(image(201, 1).rfind("image: size: found 1 x 201 pixels (width x height)", 0), 0U);
  EXPECT_NO_THROW(image_grid(rules, 200, 1));
  EXPECT_EQ(test::input_error([&] { image_grid(rules, 5, 5, 0); }).rfind("image: max_pixels: found 0", 0), 0U);
}

TEST(Qwen3Vl, BadClips) {
  const Rules rules;
  const auto clip = [&](std::int64_t height, std::int64_t width, std::int64_t frames, double fps,
                        const Sampling& sampling) {
    return test::input_error([&] { sample_clip(rules, height, width, frames, fps, sampling); });
  };
  EXPECT_EQ(clip(64, 64, 1, 30.0, {}), "video: frames: found 1 of 1, expected at least 2 (temporal_patch_size)");
  EXPECT_EQ(clip(64, 64, 9, 30.0, {.frames = 1}).rfind("video: frames: found 1 of 9", 0), 0U);
  EXPECT_EQ(clip(64, 64, 0, 30.0, {}).rfind("video: frames: found 0", 0), 0U);
  EXPECT_EQ(clip(64, 64, 9, 0.0, {}).rfind("video: fps of the file: found 0", 0), 0U);
  EXPECT_EQ(clip(64, 64, 9, std::nan(""), {}).rfind("video: fps of the file: found nan", 0), 0U);
  EXPECT_EQ(clip(64, 64, 9, 30.0, {.fps = -1.0}).rfind("video: fps: found -1", 0), 0U);
  EXPECT_EQ(clip(64, 64, 9, 30.0, {.frames = 0}).rfind("video: nframes: found 0", 0), 0U);
  EXPECT_EQ(clip(64, 64, 9, 30.0, {.fps = 1.0, .frames = 4}).rfind("video: sampling: found both", 0), 0U);
  EXPECT_EQ(clip(64, 64, 9, 30.0, {.max_pixels = -4}).rfind("video: max_pixels: found -4", 0), 0U);
  EXPECT_EQ(clip(0, 64, 9, 30.0, {}).rfind("video: height: found 0", 0), 0U);
  EXPECT_EQ(clip(10, 2010, 9, 30.0, {}).rfind("video: size: found", 0), 0U);
}

constexpr const char* kImageFile = R"({"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
    "size": {"shortest_edge": 65536, "longest_edge": 16777216}, "image_processor_type": "Qwen2VLImageProcessorFast"})";
constexpr const char* kVideoFile = R"({"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2,
    "size": {"shortest_edge": 5000, "longest_edge": 6000}, "fps": 3, "min_frames": 6, "max_frames": 100})";

TEST(Qwen3VlRules, HubFilesGiveTheDefaults) {
  EXPECT_EQ(parse_rules(kImageFile, "i", std::nullopt, "v"), Rules{});
  const Rules rules = parse_rules(kImageFile, "i", kVideoFile, "v");
  EXPECT_EQ(rules.video_min_pixels, 5000);
  EXPECT_EQ(rules.video_max_pixels, 6000);
  EXPECT_EQ(rules.fps, 3.0);
  EXPECT_EQ(rules.min_frames, 6);
  EXPECT_EQ(rules.max_frames, 100);
}

TEST(Qwen3VlRules, PixelsComeInTwoSpellings) {
  const Rules old = parse_rules(R"({"patch_size": 16, "min_pixels": 300, "max_pixels": 4000})", "i", std::nullopt, "v");
  EXPECT_EQ(old.image_min_pixels, 300);
  EXPECT_EQ(old.image_max_pixels, 4000);
  const Rules both =
      parse_rules(R"({"size": {"shortest_edge": 1, "longest_edge": 9}, "min_pixels": null, "max_pixels": 4000})", "i",
                  std::nullopt, "v");
  EXPECT_EQ(both.image_min_pixels, 1);
  EXPECT_EQ(both.image_max_pixels, 4000);
}

TEST(Qwen3VlRules, BadFiles) {
  const auto image = [](const std::string& text) {
    return test::input_error([&] { parse_rules(text, "i.json", std::nullopt, "v.json"); });
  };
  EXPECT_EQ(
      image(R"({"size": {"shortest_edge": 0, "longest_edge": 9}})").rfind("i.json: size.shortest_edge: found 0", 0),
      0U);
  EXPECT_EQ(image(R"({"size": {"shortest_edge": 5}})").rfind("i.json: size.longest_edge: missing", 0), 0U);
  EXPECT_EQ(image(R"({"size": {"shortest_edge": 10, "longest_edge": 9}})").rfind("i.json: size: found at least 10", 0),
            0U);
  EXPECT_EQ(image(R"({"patch_size": "16"})").rfind("i.json: patch_size: found \"16\"", 0), 0U);
  const auto video = [](const std::string& text) {
    return test::input_error([&] { parse_rules(kImageFile, "i.json", text, "v.json"); });
  };
  EXPECT_EQ(video(R"({"patch_size": 14})").rfind("v.json: patch_size: found 14", 0), 0U);
  EXPECT_EQ(video(R"({"fps": 0})").rfind("v.json: fps: found 0", 0), 0U);
  EXPECT_EQ(video(R"({"cap_pixels_per_frame": true})").rfind("v.json: cap_pixels_per_frame: found true", 0), 0U);
}

TEST(Qwen3VlRules, CheckpointFolders) {
  const test::TemporaryFolder folder;
  EXPECT_EQ(test::input_error([&] { read_rules(folder.path() + "/none"); }),
            folder.path() + "/none: is not a folder, expected a Hugging Face checkpoint folder");
  EXPECT_EQ(test::input_error([&] {
              read_rules(folder.path());
            }).rfind(folder.path() + "/preprocessor_config.json: is missing", 0),
            0U);
  folder.write("preprocessor_config.json", kImageFile);
  EXPECT_EQ(read_rules(folder.path()), Rules{});
  folder.write("video_preprocessor_config.json", kVideoFile);
  EXPECT_EQ(read_rules(folder.path()), parse_rules(kImageFile, "i", kVideoFile, "v"));
  // The nested file of newer releases comes first.
  folder.write("processor_config.json",
               R"({"image_processor": {"patch_size": 16, "size": {"shortest_edge": 7, "longest_edge": 8}},
                   "video_processor": {"fps": -1}})");
  EXPECT_EQ(test::input_error([&] {
              read_rules(folder.path());
            }).rfind(folder.path() + "/processor_config.json: video_processor.fps: found -1", 0),
            0U);
  folder.write("processor_config.json",
               R"({"image_processor": {"patch_size": 16, "size": {"shortest_edge": 7, "longest_edge": 8}}})");
  EXPECT_EQ(read_rules(folder.path()).image_max_pixels, 8);
  EXPECT_EQ(read_rules(folder.path()).fps, 3.0);
}

}  // namespace
}  // namespace dhp::qwen_vl::qwen_vl_test
