#include "dhp/batch.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/json_reader.h"
#include "dhp/error.h"
#include "formats/index_file.h"

namespace dhp {
namespace {

std::string number_range(std::int64_t min, std::int64_t max) {
  return "a whole number from " + std::to_string(min) + " to " + std::to_string(max);
}

std::string path_of(std::size_t i) { return "sequences[" + std::to_string(i) + "]"; }

bool is_length(std::int64_t value, std::int64_t min) { return value >= min && value <= kMaxTokens; }

void check_length(std::int64_t value, std::int64_t min, const std::string& source, const std::string& location) {
  if (!is_length(value, min)) {
    throw InputError(source, location,
                     "found " + std::to_string(value) + ", expected " + number_range(min, kMaxTokens));
  }
}

bool is_frame(const Sequence& sequence) {
  return sequence.frame_patches >= 0 && sequence.frame_patches <= sequence.patches;
}

/// The patches must have been checked.
void check_frame(const Sequence& sequence, const std::string& source, const std::string& location) {
  if (is_frame(sequence)) return;
  throw InputError(source, location,
                   "found " + std::to_string(sequence.frame_patches) + ", expected " +
                       number_range(0, sequence.patches) + ", the patches of the sequence");
}

/// Duplicates in O(n log n) without hashing: the earliest repeated one is named.
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
    throw InputError(source, path_of(first->first) + ".id",
                     "found " + std::to_string(sequences[first->first].id) + ", which " + path_of(first->second) +
                         " has already; ids must be unique in a batch");
  }
}

}  // namespace

Batch read_batch(const std::string& file) {
  if (const auto index = read_index_columns(file)) return parse_batch_index(*index, file);
  const std::string text = read_text_file(file, kMostDataBytes);
  if (is_index(text)) return parse_batch_index(text, file);
  if (file.ends_with(".csv")) {
    throw InputError(file, "",
                     "is CSV, expected dhp.batch/1 JSON; dhp dataset --data " + file + " -o batch.json makes it");
  }
  return parse_batch_json(text, file);
}

Batch parse_batch_json(std::string_view text, const std::string& source) {
  constexpr std::size_t kShortest = 20;  // {"id":1,"tokens":1},
  Batch batch;
  const auto read = [&](const JsonObject& entry) {
    batch.sequences.push_back(
        {entry.whole("id", std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()),
         entry.whole("tokens", 1, kMaxTokens), entry.whole_or("patches", 0, 0, kMaxTokens),
         entry.whole_or("frame_patches", 0, 0, kMaxTokens)});
  };
  const auto entries = static_cast<std::size_t>(std::count(text.begin(), text.end(), '{'));
  const auto begin = [&] {
    batch.sequences.clear();
    batch.sequences.reserve(std::min(entries, text.size() / kShortest + 1));
  };
  const JsonDocument document(text, source, {"format"}, {"sequences", begin, read});
  document.root().expect_format("dhp.batch/1");
  document.expect_entries("sequences");
  validate(batch, source);
  return batch;
}

void validate(const Batch& batch, const std::string& source) {
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    const Sequence& sequence = batch.sequences[i];
    if (is_length(sequence.tokens, 1) && is_length(sequence.patches, 0) && is_frame(sequence)) continue;
    const std::string location = path_of(i);
    check_length(sequence.tokens, 1, source, location + ".tokens");
    check_length(sequence.patches, 0, source, location + ".patches");
    check_frame(sequence, source, location + ".frame_patches");
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
