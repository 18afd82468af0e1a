// What `dhp index` writes, as a batch and as samples to draw from.

#include "formats/index_file.h"

#include <cstdint>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

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

/// Checksums are of Python's zlib.crc32.
struct Columns {
  std::string header = R"({"format": "dhp.index/2", "samples": 3, "columns": {)"
                       R"("id": {"at": 0, "bytes": 4, "crc32": 366355164}, )"
                       R"("tokens": {"at": 64, "bytes": 4, "crc32": 2222737899}, )"
                       R"("patches": {"at": 128, "bytes": 8, "crc32": 3729533208}, )"
                       R"("frame_patches": {"at": 192, "bytes": 4, "crc32": 2179638732}}, )"
                       R"("records": {"at": 256, "bytes": 5}, "processor": "x"})";
  std::vector<std::int64_t> ids = {3, 4, 7};
  std::vector<std::int64_t> tokens = {220, 31, 512};
  std::vector<std::int64_t> patches = {24, 0, 96};
  std::vector<std::int64_t> frame_patches = {24, 0, 48};
};

std::string padded(std::string text) {
  text.resize((text.size() + 63) / 64 * 64);
  return text;
}

std::string bytes_of(const std::vector<std::int64_t>& values, int width) {
  std::string text;
  for (const std::int64_t value : values) {
    for (int i = 0; i < width; ++i) text += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xffU);
  }
  return padded(text);
}

/// Header and columns.
std::string columns_of(const Columns& parts = {}) {
  return padded(parts.header + "\n") + bytes_of(parts.ids, 4) + bytes_of(parts.tokens, 4) + bytes_of(parts.patches, 8) +
         bytes_of(parts.frame_patches, 4);
}

const std::vector<Sequence> kSequences = {{3, 220, 24, 24}, {4, 31, 0, 0}, {7, 512, 96, 48}};

TEST(IndexFile, IsABatch) {
  EXPECT_TRUE(is_index(columns_of()));
  EXPECT_FALSE(is_index(R"({"format": "dhp.batch/1", "sequences": []})"));
  EXPECT_EQ(parse_batch_index(columns_of(), "x.idx").sequences, kSequences);
  EXPECT_EQ(parse_batch_index(columns_of() + "{...}", "x.idx").sequences, kSequences);
}

TEST(IndexFile, IsSamplesToDrawFrom) {
  const std::vector<MediaSample> samples = parse_sample_index(columns_of(), "x.idx");
  ASSERT_EQ(samples.size(), 3U);
  EXPECT_EQ(samples[2].location, "sample 7");
  const Batch batch = make_batch({}, samples, {}, 0, "x.idx");
  const std::vector<Sequence> expected = {{0, 220, 24, 24}, {1, 31, 0, 0}, {2, 512, 96, 48}};
  EXPECT_EQ(batch.sequences, expected);
}

TEST(IndexFile, IsKnownByItsBeginWhateverItsName) {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() + "/train.csv";
  std::ofstream(file, std::ios::binary) << columns_of() << "{...}";
  EXPECT_EQ(read_batch(file).sequences, kSequences);
  EXPECT_EQ(read_sample_file(file).size(), 3U);
}

TEST(IndexFile, NoMoreOfTheRecordsIsReadThanComesWithTheHeader) {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() + "/train.index";
  Columns parts;
  parts.header.replace(parts.header.find("\"bytes\": 5"), 10, "\"bytes\": 50000");
  std::ofstream(file, std::ios::binary) << columns_of(parts) << std::string(50'000, 'x');
  const std::optional<std::string> read = read_index_columns(file);
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->size(), 4096U);
  EXPECT_EQ(parse_batch_index(*read, "x").sequences, kSequences);
}

TEST(IndexFile, AHeaderMayBeLong) {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() + "/long.index";
  Columns parts;
  parts.header.insert(parts.header.size() - 1, R"(, "ignored": ")" + std::string(100'000, 'x') + '"');
  std::ofstream(file, std::ios::binary) << columns_of(parts) << "{...}";
  EXPECT_EQ(read_batch(file).sequences, kSequences);
}

TEST(IndexFile, ComplaintsSayWhatIsWrong) {
  const auto message = [](const std::string& from, const std::string& to, Columns parts = {}) {
    parts.header.replace(parts.header.find(from), from.size(), to);
    return input_error([&] { parse_batch_index(columns_of(parts), "x.idx"); });
  };
  EXPECT_EQ(message("dhp.index/2", "dhp.batch/1"),
            "x.idx: format: found \"dhp.batch/1\", expected \"dhp.index/2\"; is this the right kind of file?");
  EXPECT_EQ(message("dhp.index/2", "dhp.index/1"),
            "x.idx: is of an older version of dhp (format dhp.index/1); build it again with dhp index");
  EXPECT_EQ(message("\"bytes\": 8", "\"bytes\": 6"), "x.idx: columns.patches.bytes: found 6, expected 4 or 8");
  EXPECT_TRUE(message("\"samples\": 3", "\"samples\": -3").starts_with("x.idx: samples: found -3, expected"));
  EXPECT_TRUE(message("\"at\": 192", "\"at\": 9e18").starts_with("x.idx: columns.frame_patches.at: found"));
  EXPECT_TRUE(message("\"id\"", "\"ids\"").starts_with("x.idx: columns.id: missing"));
  EXPECT_NE(message("\"samples\": 3", "\"samples\": ").find("not valid JSON"), std::string::npos);
  const std::string damaged = "; build it again with dhp index";
  EXPECT_EQ(message("366355164", "366355165"), "x.idx: is damaged (column id: its checksum is another)" + damaged);
  EXPECT_EQ(message("", "", {.tokens = {220, 32, 512}}),
            "x.idx: is damaged (column tokens: its checksum is another)" + damaged);
  EXPECT_EQ(message("2222737899", "568814188", {.tokens = {220, 0, 512}}),
            "x.idx: sequences[1].tokens: found 0, expected a whole number from 1 to 1099511627776");
  EXPECT_EQ(message("2179638732", "3793653708", {.frame_patches = {24, 25, 48}}),
            "x.idx: sequences[1].frame_patches: found 25, expected a whole number from 0 to 0, the patches of the "
            "sequence");
  EXPECT_EQ(message("366355164", "521350085", {.ids = {3, 3, 7}}),
            "x.idx: sequences[1].id: found 3, which sequences[0] has already; ids must be unique in a batch");
}

/// Nothing is allocated for what a header says and the file does not have.
TEST(IndexFile, SaysWhatIsCutOff) {
  const test::TemporaryFolder folder;
  const std::string file = folder.path() + "/cut.index";
  const std::string whole = columns_of() + "{...}";
  const std::string size = std::to_string(whole.size());
  for (const std::size_t left : {whole.size() - 1, whole.size() - 70, whole.size() - 250}) {
    std::ofstream(file, std::ios::binary) << whole.substr(0, left);
    const std::string said =
        "is cut off: " + std::to_string(left) + " of " + size + " bytes; build it again with dhp index";
    EXPECT_EQ(input_error([&] { read_batch(file); }), file + ": " + said);
    EXPECT_EQ(input_error([&] { read_sample_file(file); }), file + ": " + said);
  }
  EXPECT_TRUE(
      input_error([&] { parse_batch_index(whole.substr(0, whole.size() - 70), "x"); }).starts_with("x: is cut off"));
  Columns many;
  many.header.replace(many.header.find("\"samples\": 3"), 12, "\"samples\": 1125899906842624");
  EXPECT_TRUE(input_error([&] { parse_batch_index(columns_of(many), "x"); }).starts_with("x: is cut off"));
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
