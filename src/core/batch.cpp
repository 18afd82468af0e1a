#include "dhp/batch.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "core/json_reader.h"
#include "dhp/error.h"

namespace dhp {
namespace {

constexpr std::string_view kCsvHeader = "id,tokens,patches";
constexpr std::string_view kFramesHeader = "id,tokens,patches,frame_patches";

std::string number_range(std::int64_t min, std::int64_t max) {
  return "a whole number from " + std::to_string(min) + " to " + std::to_string(max);
}

bool is_length(std::int64_t value, std::int64_t min) { return value >= min && value <= kMaxTokens; }

void check_length(std::int64_t value, std::int64_t min, const std::string& source, const std::string& place) {
  if (!is_length(value, min)) {
    throw InputError(source, place, "found " + std::to_string(value) + ", expected " + number_range(min, kMaxTokens));
  }
}

bool is_frame(const Sequence& sequence) {
  return sequence.frame_patches >= 0 && sequence.frame_patches <= sequence.patches;
}

/// The patches must have been checked.
void check_frame(const Sequence& sequence, const std::string& source, const std::string& place) {
  if (is_frame(sequence)) return;
  throw InputError(source, place,
                   "found " + std::to_string(sequence.frame_patches) + ", expected " +
                       number_range(0, sequence.patches) + ", the patches of the sequence");
}

/// Duplicates in O(n log n) without hashing: the earliest repeated position is named.
void check_unique(const std::vector<Sequence>& sequences, const std::string& source) {
  const auto not_rising = [](const Sequence& a, const Sequence& b) { return a.id >= b.id; };
  if (std::adjacent_find(sequences.begin(), sequences.end(), not_rising) == sequences.end()) return;  // the usual case
  std::vector<std::size_t> order(sequences.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return sequences[a].id != sequences[b].id ? sequences[a].id < sequences[b].id : a < b;
  });
  std::optional<std::pair<std::size_t, std::size_t>> first;  // (repeated, original)
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (sequences[order[i]].id != sequences[order[i - 1]].id) continue;
    if (!first || order[i] < first->first) first = {order[i], order[i - 1]};
  }
  if (first) {
    throw InputError(source, "sequences[" + std::to_string(first->first) + "].id",
                     "found " + std::to_string(sequences[first->first].id) + ", which sequences[" +
                         std::to_string(first->second) + "] has already; ids must be unique in a batch");
  }
}

std::string_view without_line_end(std::string_view line) {
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::int64_t parse_cell(std::string_view cell, const std::string& source, const std::string& place) {
  cell = trimmed(cell);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(cell.data(), cell.data() + cell.size(), value);
  if (error != std::errc() || end != cell.data() + cell.size()) {
    throw InputError(source, place, "found \"" + std::string(cell) + "\", expected a whole number");
  }
  return value;
}

/// `columns`: 3, or 4 with frame_patches.
Sequence parse_csv_line(std::string_view line, std::size_t columns, const std::string& source,
                        const std::string& place) {
  std::array<std::string_view, 4> cells;
  std::size_t count = 0;
  for (std::string_view rest = line;; ++count) {
    const std::size_t comma = rest.find(',');
    if (count < cells.size()) cells[count] = rest.substr(0, comma);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  if (++count != columns) {
    throw InputError(source, place,
                     "found " + std::to_string(count) + " cells, expected " + std::to_string(columns) + ": " +
                         std::string(columns == cells.size() ? kFramesHeader : kCsvHeader));
  }
  const Sequence sequence = {parse_cell(cells[0], source, place + ": id"),
                             parse_cell(cells[1], source, place + ": tokens"),
                             parse_cell(cells[2], source, place + ": patches"),
                             columns == cells.size() ? parse_cell(cells[3], source, place + ": frame_patches") : 0};
  check_length(sequence.tokens, 1, source, place + ": tokens");
  check_length(sequence.patches, 0, source, place + ": patches");
  check_frame(sequence, source, place + ": frame_patches");
  return sequence;
}

}  // namespace

Batch read_batch(const std::string& file) {
  const std::string text = read_text_file(file);
  return file.ends_with(".csv") ? parse_batch_csv(text, file) : parse_batch_json(text, file);
}

Batch parse_batch_json(std::string_view text, const std::string& source) {
  const JsonDocument document(text, source);
  const JsonObject root = document.root();
  root.expect_format("dhp.batch/1");
  Batch batch;
  for (const JsonObject& entry : root.objects("sequences")) {
    batch.sequences.push_back(
        {entry.whole("id", std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()),
         entry.whole("tokens", 1, kMaxTokens), entry.whole_or("patches", 0, 0, kMaxTokens),
         entry.whole_or("frame_patches", 0, 0, kMaxTokens)});
  }
  validate(batch, source);
  return batch;
}

Batch parse_batch_csv(std::string_view text, const std::string& source) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  Batch batch;
  std::size_t columns = 0;  // as many as the header has
  for (std::int64_t line_number = 1; !text.empty(); ++line_number) {
    const std::size_t end = text.find('\n');
    const std::string_view line = trimmed(without_line_end(text.substr(0, end)));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty()) continue;
    const std::string place = "line " + std::to_string(line_number);
    if (columns == 0) {
      if (line != kCsvHeader && line != kFramesHeader) {
        throw InputError(source, place,
                         "found \"" + std::string(line.substr(0, 60)) + "\", expected the header \"" +
                             std::string(kCsvHeader) + "\" or \"" + std::string(kFramesHeader) + "\"");
      }
      columns = line == kCsvHeader ? 3 : 4;
      continue;
    }
    batch.sequences.push_back(parse_csv_line(line, columns, source, place));
  }
  if (columns == 0) throw InputError(source, "", "is empty, expected the header \"" + std::string(kCsvHeader) + "\"");
  check_unique(batch.sequences, source);
  return batch;
}

void validate(const Batch& batch, const std::string& source) {
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    const Sequence& sequence = batch.sequences[i];
    if (is_length(sequence.tokens, 1) && is_length(sequence.patches, 0) && is_frame(sequence)) continue;
    const std::string place = "sequences[" + std::to_string(i) + "]";
    check_length(sequence.tokens, 1, source, place + ".tokens");
    check_length(sequence.patches, 0, source, place + ".patches");
    check_frame(sequence, source, place + ".frame_patches");
  }
  check_unique(batch.sequences, source);
}

std::string to_json(const Batch& batch) {
  std::string text = "{\"format\": \"dhp.batch/1\", \"sequences\": [";
  const char* separator = "\n";
  for (const Sequence& sequence : batch.sequences) {
    text += separator;
    text += " {\"id\": " + std::to_string(sequence.id) + ", \"tokens\": " + std::to_string(sequence.tokens) +
            ", \"patches\": " + std::to_string(sequence.patches);
    if (sequence.frame_patches > 0) text += ", \"frame_patches\": " + std::to_string(sequence.frame_patches);
    text += "}";
    separator = ",\n";
  }
  return text + (batch.sequences.empty() ? "]}\n" : "\n]}\n");
}

}  // namespace dhp
