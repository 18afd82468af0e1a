// What `dhp index` writes, as a batch and as samples to draw from.

#include "formats/index_file.h"

#include <fstream>
#include <functional>

#include "base/json_reader.h"
#include "dhp/batch.h"
#include "dhp/cluster.h"
#include "dhp/cost_model.h"
#include "dhp/device.h"
#include "dhp/plan.h"
#include "dhp/presets.h"
#include "dhp/workload.h"
#include "support.h"
#include "temporary_folder.h"

namespace dhp::index_file_test {
namespace {

using test::input_error;

const std::string kIndex = R"({"format": "dhp.index/1", "data": "plain.jsonl"}
{"id": 3, "tokens": 220, "patches": 24, "label_tokens": 9, "messages": [{"content": "{"}], "media": [{"grid": [1, 4, 6]}]}
{"id": 1, "tokens": 31, "label_tokens": 4, "messages": []}

{"id": 7, "tokens": 512, "patches": 96, "media": [{"grid": [2, 4, 6]}, {"grid": [1, 6, 8]}]}
)";

TEST(IndexFile, IsABatch) {
  EXPECT_TRUE(is_index(kIndex));
  EXPECT_FALSE(is_index(R"({"format": "dhp.batch/1", "sequences": []})"));
  const Batch batch = parse_batch_index(kIndex, "x.idx");
  const std::vector<Sequence> expected = {{3, 220, 24, 24}, {1, 31, 0, 0}, {7, 512, 96, 48}};
  EXPECT_EQ(batch.sequences, expected);
}

TEST(IndexFile, IsSamplesToDrawFrom) {
  const std::vector<MediaSample> samples = parse_sample_index(kIndex, "x.idx");
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_EQ(samples[2].location, "line 5");
  const Batch batch = make_batch({}, samples, {}, 0, "x.idx");
  const std::vector<Sequence> expected = {{0, 220, 24, 24}, {1, 31, 0, 0}, {2, 512, 96, 48}};
  EXPECT_EQ(batch.sequences, expected);
}

TEST(IndexFile, IsKnownByItsHeaderWhateverItsName) {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() + "/train.csv";
  std::ofstream(file) << kIndex;
  EXPECT_EQ(read_batch(file).sequences.size(), 3U);
  EXPECT_EQ(read_sample_file(file).size(), 3U);
}

TEST(IndexFile, ComplaintsNameTheLine) {
  const auto message = [](const std::string& from, const std::string& to) {
    std::string text = kIndex;
    text.replace(text.find(from), from.size(), to);
    return input_error([&] { parse_batch_index(text, "x.idx"); });
  };
  EXPECT_EQ(message("dhp.index/1", "dhp.batch/1"),
            "x.idx: line 1: format: found \"dhp.batch/1\", expected \"dhp.index/1\"; is this the right kind of file?");
  EXPECT_EQ(message("31", "0"), "x.idx: line 3: tokens: found 0, expected a whole number from 1 to 1099511627776");
  EXPECT_EQ(message("[1, 4, 6]", "[1, 4]"),
            "x.idx: line 2: media[0].grid: found 2 numbers, expected frames, rows and columns");
  EXPECT_EQ(message("[1, 6, 8]", "[1, 60, 8]"),
            "x.idx: line 5: media[1].grid: found 60 x 8 patches a frame, expected at most the 96 of the sample");
  EXPECT_EQ(message("\"id\": 1", "\"id\": 3"),
            "x.idx: sequences[1].id: found 3, which sequences[0] has already; ids must be unique in a batch");
  const std::string syntax = message("\"id\": 7,", "\"id\": 7 ");
  EXPECT_TRUE(syntax.starts_with("x.idx: line 5: line 1, column ")) << syntax;
  EXPECT_NE(syntax.find("not valid JSON"), std::string::npos) << syntax;
}

TEST(IndexFile, SaysWhatIsCutOff) {
  const auto with = [](const std::string& samples) {
    std::string text = kIndex;
    return text.insert(1, "\"samples\": " + samples + ", ");
  };
  EXPECT_EQ(parse_batch_index(with("3"), "x.idx").sequences.size(), 3U);
  const std::string cut = with("4");
  for (const auto& parse : {std::function<void()>([&] { parse_batch_index(cut, "x.idx"); }),
                            std::function<void()>([&] { parse_sample_index(cut, "x.idx"); })}) {
    EXPECT_EQ(input_error(parse), "x.idx: is cut off: 3 of 4 samples; build it again with dhp index");
  }
  EXPECT_EQ(input_error([&] { parse_batch_index(with("2"), "x.idx"); }),
            "x.idx: has too many lines: 3 of 2 samples; build it again with dhp index");
  EXPECT_TRUE(
      input_error([&] { parse_batch_index(with("-1"), "x.idx"); }).starts_with("x.idx: line 1: samples: found"));
}

/// Some devices have no end.
TEST(TextFile, IsNoDevice) {
  using Read = std::function<void(const std::string&)>;
  const Read readers[] = {
      [](const std::string& file) { read_batch(file); },   [](const std::string& file) { read_plan(file); },
      [](const std::string& file) { read_cluster(file); }, [](const std::string& file) { read_cost_model(file); },
      [](const std::string& file) { read_device(file); },  [](const std::string& file) { read_model_config(file); }};
  for (const std::string device : {"/dev/zero", "/dev/null"}) {
    for (const Read& read : readers) {
      EXPECT_EQ(input_error([&] { read(device); }), device + ": is a device, expected a file or a pipe");
    }
  }
}

/// Entries are read one by one: the document keeps none of them, and complaints stay what they were.
TEST(JsonEntries, AreReadInPassing) {
  std::vector<std::int64_t> seen;
  const JsonEntries entries{"all", [&] { seen.clear(); },
                            [&](const JsonObject& one) { seen.push_back(one.whole("n", 0, 9)); }};
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/f";
  const auto asked = [](const JsonDocument& document) {
    document.expect_entries("all");
    EXPECT_FALSE(document.root().has("junk"));
    return document.root().whole_or("kept", -1, 0, 9);
  };
  const auto read = [&](const std::string& text) { return asked({text, "f", {"kept"}, entries}); };
  const auto read_file = [&](const std::string& text) {
    std::ofstream(path) << text;
    std::ifstream file = open_text_file(path, text.size());
    return asked({file, "f", {"kept"}, entries});
  };
  EXPECT_EQ(read(R"({"all": [{"n": 1, "all": [{"n": 5}]}, {"n": 2}], "junk": {"all": [{"n": 7}]}, "kept": 3})"), 3);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(read(R"({"all": [{"n": 1}], "all": []})"), -1);
  EXPECT_TRUE(seen.empty());
  EXPECT_EQ(read(R"({"all": [{"n": 99}], "all": [{"n": 4}]})"), -1);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{4}));
  const auto wrong = [&](const std::string& text) {
    const std::string error = input_error([&] { read(text); });
    EXPECT_EQ(input_error([&] { read_file(text); }), error);
    return error;
  };
  EXPECT_EQ(read_file(R"({"all": [{"n": 1, "x": "y"}, {"x": 5, "n": 2}], "kept": 3})"), 3);
  EXPECT_EQ(seen, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(wrong(R"({"all": [{"n": 1}, {"n": 10}, {"n": 11}]})"),
            "f: all[1].n: found 10, expected a whole number from 0 to 9");
  EXPECT_EQ(wrong(R"({"all": [{"n": 1}, [1, [2], 3]]})"), "f: all[1]: found an array of 3, expected an object");
  EXPECT_EQ(wrong(R"({"all": ["x"]})"), "f: all[0]: found \"x\", expected an object");
  EXPECT_EQ(wrong(R"({"all": {"n": [{"n": 1}]}})"), "f: all: found an object, expected an array of objects");
  EXPECT_EQ(wrong(R"({"kept": 1})"), "f: all: missing, expected an array of objects");
  EXPECT_EQ(wrong(R"([{"n": 1}])"), "f: found an array of 1, expected an object");
  // An entry has nothing of the one before.
  EXPECT_EQ(wrong(R"({"all": [{"n": 1}, {"m": 1}]})"), "f: all[1].n: missing, expected a whole number from 0 to 9");
  EXPECT_EQ(wrong(R"({"all": [{"n": [1, 2, 3]}]})"),
            "f: all[0].n: found an array of 3, expected a whole number from 0 to 9");
  EXPECT_EQ(wrong("{\"all\": [{\"n\": 1},\n  {\"n\": oops}]}"),
            "f: line 2, column 9: not valid JSON: syntax error while parsing value - invalid literal; last read: "
            "'\"n\": o'");
  EXPECT_EQ(wrong("{\n\n\"all\": [{\"n\": 1}"),
            "f: line 3, column 17: not valid JSON: the text ends too early; is the file cut off?");
  EXPECT_EQ(wrong(" \n"), "f: is empty, expected a JSON object");
  EXPECT_EQ(wrong(std::string(10'000, ' ')), "f: is empty, expected a JSON object");
  EXPECT_EQ(wrong(R"({"all": [{"n": 1e999}]})"), "f: not valid JSON: number overflow parsing '1e999'");
}

TEST(JsonEntries, SettingsHaveALimitOfSize) {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() + "/large.json";
  std::ofstream(file) << std::string(1 << 20, ' ') << "{}";
  EXPECT_EQ(read_text_file(file).size(), (1U << 20) + 2);
  EXPECT_EQ(input_error([&] { read_text_file(file, 1 << 20); }),
            file + ": has more than 1 MiB, too much for a file of this kind; is it the right one?");
}

}  // namespace
}  // namespace dhp::index_file_test
