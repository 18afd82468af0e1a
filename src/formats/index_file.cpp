// What `dhp index` writes (python/dhp/data/indexing/index_file.py), as far as planning needs it: header and columns.

#include "formats/index_file.h"

#include <algorithm>
#include <array>
#include <functional>
#include <limits>

#include "base/json_reader.h"
#include "dhp/batch.h"
#include "dhp/error.h"
#include "dhp/workload.h"

namespace dhp {
namespace {

constexpr std::size_t kAlign = 64;
constexpr std::size_t kMostHeaderBytes = std::size_t{64} << 20;
constexpr const char* kAgain = "; build it again with dhp index";
constexpr std::array<const char*, 4> kColumns = {"id", "tokens", "patches", "frame_patches"};

/// Whole numbers of `width` bytes each, little-endian.
struct Column {
  std::size_t begin = 0;
  std::size_t width = 8;
  std::int64_t check = 0;  ///< CRC-32 of its bytes
};

/// Where things are in an index; counted from the text's begin.
struct Head {
  std::size_t samples = 0;
  std::array<Column, kColumns.size()> columns = {};
  std::size_t columns_end = 0;
  std::size_t size = 0;  ///< of the whole file
};

std::size_t header_size(std::string_view text) { return std::min(text.find('\n'), text.size()); }

[[noreturn]] void fail_as_damaged(const std::string& source, const std::string& what) {
  throw InputError(source, "", what + kAgain);
}

/// Places are limited so that no sum of them can overflow.
Head parse_head(std::string_view text, const std::string& source) {
  constexpr std::int64_t kMost = std::int64_t{1} << 50;
  const std::string_view line = text.substr(0, header_size(text));
  if (line.find("\"dhp.index/1\"") != std::string_view::npos) {
    fail_as_damaged(source, "is of an older version of dhp (format dhp.index/1)");
  }
  const JsonDocument document(line, source, {"format", "samples", "columns", "records"});
  const JsonObject root = document.root();
  root.expect_format("dhp.index/2");
  const auto place = [](const JsonObject& part, const char* key) {
    return static_cast<std::size_t>(part.whole(key, 0, kMost));
  };
  Head head{.samples = place(root, "samples")};
  const std::size_t body = (line.size() + kAlign) / kAlign * kAlign;  // of the line and its end
  const JsonObject columns = root.object("columns");
  for (std::size_t i = 0; i < kColumns.size(); ++i) {
    const JsonObject about = columns.object(kColumns[i]);
    const std::size_t width = place(about, "bytes");
    if (width != 4 && width != 8) about.fail("bytes", "found " + std::to_string(width) + ", expected 4 or 8");
    Column& column = head.columns[i];
    column = {.begin = body + place(about, "at"),
              .width = width,
              .check = about.whole("crc32", 0, std::numeric_limits<std::uint32_t>::max())};
    head.columns_end = std::max(head.columns_end, column.begin + head.samples * column.width);
  }
  const JsonObject records = root.object("records");
  head.size = body + place(records, "at") + place(records, "bytes");
  return head;
}

[[noreturn]] void fail_as_cut_off(const std::string& source, std::size_t found, std::size_t written) {
  fail_as_damaged(source, "is cut off: " + std::to_string(found) + " of " + std::to_string(written) + " bytes");
}

std::uint32_t crc32(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t i = 0; i < made.size(); ++i) {
      std::uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value & 1U) != 0 ? 0xedb88320U ^ (value >> 1U) : value >> 1U;
      made[i] = value;
    }
    return made;
  }();
  std::uint32_t sum = 0xffffffffU;
  for (const char byte : bytes) sum = table[(sum ^ static_cast<unsigned char>(byte)) & 0xffU] ^ (sum >> 8U);
  return sum ^ 0xffffffffU;
}

std::int64_t number_at(std::string_view text, const Column& column, std::size_t row) {
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < column.width; ++i) {
    bits |= std::uint64_t{static_cast<unsigned char>(text[column.begin + row * column.width + i])} << (8 * i);
  }
  return column.width == 4 ? static_cast<std::int32_t>(static_cast<std::uint32_t>(bits))
                           : static_cast<std::int64_t>(bits);
}

/// The samples of an index, or of its begin up to where its columns end.
std::vector<Sequence> read_samples(std::string_view text, const std::string& source) {
  const Head head = parse_head(text, source);
  if (text.size() < head.columns_end) fail_as_cut_off(source, text.size(), head.size);
  for (std::size_t i = 0; i < kColumns.size(); ++i) {
    const Column& column = head.columns[i];
    if (crc32(text.substr(column.begin, head.samples * column.width)) != column.check) {
      fail_as_damaged(source, "is damaged (column " + std::string(kColumns[i]) + ": its checksum is another)");
    }
  }
  std::vector<Sequence> samples;
  samples.reserve(head.samples);
  const auto& [ids, tokens, patches, frame_patches] = head.columns;
  for (std::size_t row = 0; row < head.samples; ++row) {
    samples.push_back({number_at(text, ids, row), number_at(text, tokens, row), number_at(text, patches, row),
                       number_at(text, frame_patches, row)});
  }
  return samples;
}

}  // namespace

bool is_index(std::string_view text) { return text.starts_with(R"({"format": "dhp.index/)"); }

std::optional<std::string> read_index_columns(const std::string& file) {
  const std::optional<std::size_t> size = size_of_file(file);
  if (!size) return std::nullopt;
  std::ifstream stream = open_text_file(file, std::numeric_limits<std::size_t>::max());
  std::string text;
  const auto read_to = [&](std::size_t end) {
    const std::size_t known = text.size();
    text.resize(std::max(known, std::min(end, *size)));
    stream.read(text.data() + known, static_cast<std::streamsize>(text.size() - known));
    text.resize(known + static_cast<std::size_t>(stream.gcount()));
  };
  for (std::size_t piece = 4096; piece <= kMostHeaderBytes; piece *= 4) {
    read_to(piece);
    if (!is_index(text)) return std::nullopt;
    if (header_size(text) < text.size()) break;
  }
  const Head head = parse_head(text, file);
  if (*size < head.size) fail_as_cut_off(file, *size, head.size);
  if (head.columns_end > kMostDataBytes) throw InputError(file, "", "has too many samples to plan as one batch");
  read_to(head.columns_end);
  return text;
}

Batch parse_batch_index(std::string_view text, const std::string& source) {
  Batch batch{read_samples(text, source)};
  validate(batch, source);
  return batch;
}

std::vector<MediaSample> parse_sample_index(std::string_view text, const std::string& source) {
  const Batch batch = parse_batch_index(text, source);
  std::vector<MediaSample> samples;
  samples.reserve(batch.sequences.size());
  for (const Sequence& sample : batch.sequences) {
    MediaSample& added = samples.emplace_back();
    added.tokens = sample.tokens;
    added.patches = sample.patches;
    added.frame_patches = sample.frame_patches;
    added.location = "sample " + std::to_string(sample.id);
  }
  return samples;
}

std::vector<MediaSample> read_sample_file(const std::string& file, std::int64_t prompt_tokens) {
  if (const auto index = read_index_columns(file)) return parse_sample_index(*index, file);
  const std::string text = read_text_file(file, kMostDataBytes);
  return is_index(text) ? parse_sample_index(text, file) : parse_sample_csv(text, file, prompt_tokens);
}

}  // namespace dhp
