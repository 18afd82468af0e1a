// InternVL's tiles and frames against published figures and values worked by hand.
#include "dhp/internvl.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "support.h"

namespace dhp::internvl::internvl_test {
namespace {

std::int64_t tokens(std::int64_t width, std::int64_t height, int max_tiles) {
  return image_tiles({}, height, width, max_tiles).count() * tokens_per_tile({});
}

TEST(InternVl, PublishedPictures) {
  // vLLM, tests of internvl.
  EXPECT_EQ(image_tiles({}, 896, 896, 4), (Tiles{2, 2, true}));
  EXPECT_EQ(tokens(896, 896, 4), 1280);
  EXPECT_EQ(image_tiles({}, 896, 896, 1), (Tiles{1, 1, false}));
  // transformers, tests of got_ocr2: 400 x 400 in tiles of 20, six at most.
  Rules small;
  small.tile_size = 20;
  EXPECT_EQ(image_tiles(small, 400, 400, 6).count(), 5);
}

TEST(InternVl, TablesOfTheReference) {
  struct Row {
    std::int64_t width, height;
    int tiles;
    std::int64_t with_markers, with_six;
  };
  const std::vector<Row> table = {{320, 240, 13, 3330, 1794}, {512, 512, 1, 258, 258},    {640, 480, 13, 3330, 1794},
                                  {1280, 720, 9, 2306, 770},  {1920, 1080, 9, 2306, 770}, {3840, 2160, 9, 2306, 770},
                                  {448, 448, 1, 258, 258},    {1024, 768, 13, 3330, 1794}};
  for (const Row& row : table) {
    EXPECT_EQ(image_tiles({}, row.height, row.width).count(), row.tiles) << row.width << " x " << row.height;
    EXPECT_EQ(tokens(row.width, row.height, 12) + 2, row.with_markers) << row.width << " x " << row.height;
    EXPECT_EQ(tokens(row.width, row.height, 6) + 2, row.with_six) << row.width << " x " << row.height;
  }
  EXPECT_EQ(image_tiles({}, 768, 1024), (Tiles{4, 3, true}));
  EXPECT_EQ(image_tiles({}, 400, 1200), (Tiles{3, 1, true}));
  EXPECT_EQ(image_tiles({}, 500, 2000), (Tiles{4, 1, true}));
}

TEST(InternVl, EquallyNearRatiosGoByArea) {
  // 1:1 is also 2:2 and 3:3, which need more than 0.5 x 448^2 x 4 = 401,408 and 903,168 pixels.
  EXPECT_EQ(image_tiles({}, 633, 633), (Tiles{1, 1, false}));  // 400,689
  EXPECT_EQ(image_tiles({}, 634, 634), (Tiles{2, 2, true}));   // 401,956
  EXPECT_EQ(image_tiles({}, 950, 950), (Tiles{2, 2, true}));   // 902,500
  EXPECT_EQ(image_tiles({}, 951, 951), (Tiles{3, 3, true}));   // 904,401
}

TEST(InternVl, TilesAreWithinLimits) {
  Rules rules;
  rules.thumbnail = false;
  EXPECT_EQ(image_tiles(rules, 720, 1280).count(), 8);
  rules.min_tiles = 5;
  EXPECT_EQ(image_tiles(rules, 100, 100), (Tiles{3, 3, false}));
  EXPECT_EQ(patches_per_tile(rules), 1024);
  EXPECT_EQ(test::input_error([&] { image_tiles(rules, 100, 100, 4); }),
            "image: max_tiles: found 4, expected 5 to 4096");
  EXPECT_EQ(test::input_error([] { image_tiles({}, 0, 5); }), "image: height: found 0, expected 1 to 1048576 pixels");
  for (const std::int64_t width : {1, 10, 1 << 20}) {
    const Tiles tiles = image_tiles({}, 10, width);
    EXPECT_LE(tiles.columns * tiles.rows, 12);
  }
}

TEST(InternVl, FramesOfClips) {
  const Rules chat;
  EXPECT_EQ(clip_frames(chat, 900, 30.0), 32);
  EXPECT_EQ(clip_frames(chat, 900, 30.0, {.frames = 8}), 8);
  EXPECT_EQ(clip_frames(chat, 5, 30.0, {.frames = 8}), 8);  // the last frame repeats
  // One a second: the middles 0.5, 1.5 … of 10.0 s and of 10.3 s; at 10.6 s frame 315 of 318 is a middle too.
  EXPECT_EQ(clip_frames(chat, 300, 30.0, {.fps = 1.0}), 10);
  EXPECT_EQ(clip_frames(chat, 309, 30.0, {.fps = 1.0}), 10);
  EXPECT_EQ(clip_frames(chat, 318, 30.0, {.fps = 1.0}), 11);
  // numpy.around(0.5) is 0, numpy.around(1.5) is 2: half to even.
  EXPECT_EQ(clip_frames(chat, 2, 1.0, {.fps = 1.0}), 1);
  Rules transformers;
  transformers.processor = Processor::internvl;
  EXPECT_EQ(clip_frames(transformers, 318, 30.0, {.fps = 1.0}), 10);
  EXPECT_EQ(
      test::input_error([&] { clip_frames(transformers, 5, 30.0, {.frames = 8}); }).rfind("video: frames: found 8", 0),
      0U);
  EXPECT_EQ(test::input_error([&] { clip_frames(chat, 5, 30.0, {.fps = 0.01}); }).rfind("video: frames: found 0", 0),
            0U);
  EXPECT_THROW(clip_frames(chat, 5, 30.0, {.fps = 1e9}), InputError);
  EXPECT_THROW(clip_frames(chat, 5, 30.0, {.fps = 1.0, .frames = 2}), InputError);
  EXPECT_THROW(clip_frames(chat, 0, 30.0), InputError);
  EXPECT_THROW(clip_frames(chat, 5, 0.0), InputError);
}

TEST(InternVl, LabelsOfTheVocabulary) {
  std::ifstream stream(test::golden_file("qwen_text_tokens.json"));
  const auto cases = nlohmann::json::parse(stream)["labels"];
  ASSERT_GT(cases.size(), 10U);
  Rules transformers;
  transformers.processor = Processor::internvl;
  for (const auto& entry : cases) {
    EXPECT_EQ(frame_label_tokens({}, entry[0]), entry[1].get<int>()) << entry;
    EXPECT_EQ(frame_label_tokens(transformers, entry[0]), entry[2].get<int>()) << entry;
  }
}

}  // namespace
}  // namespace dhp::internvl::internvl_test
