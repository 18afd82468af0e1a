// What `dhp index` writes, as far as planning needs it.

#include "formats/index_file.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "base/json_reader.h"
#include "dhp/batch.h"
#include "dhp/error.h"
#include "dhp/workload.h"

namespace dhp {
namespace {

std::string_view take_line(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

/// Patches of the largest picture, or pair of frames, which no two ranks share.
std::int64_t frame_patches_of(const JsonObject& sample, std::int64_t patches) {
  std::int64_t most = 0;
  if (!sample.has_value("media")) return most;
  for (const JsonObject& medium : sample.objects("media")) {
    const std::vector<std::int64_t> grid = medium.wholes("grid", 1, kMaxTokens);
    if (grid.size() != 3) {
      medium.fail("grid", "found " + std::to_string(grid.size()) + " numbers, expected frames, rows and columns");
    }
    if (grid[1] > patches || grid[2] > patches / grid[1]) {
      medium.fail("grid", "found " + std::to_string(grid[1]) + " x " + std::to_string(grid[2]) +
                              " patches a frame, expected at most the " + std::to_string(patches) + " of the sample");
    }
    most = std::max(most, grid[1] * grid[2]);
  }
  return most;
}

/// Calls `add` with every sample and the number of its line.
void read_samples(std::string_view text, const std::string& source,
                  const std::function<void(const Sequence& sample, std::size_t line)>& add) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  const JsonDocument header(take_line(text), source + ": line 1", {"format", "samples"});
  header.root().expect_format("dhp.index/1");
  std::size_t number = 1;
  std::int64_t found = 0;
  while (!text.empty()) {
    ++number;
    const std::string_view line = take_line(text);
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const JsonDocument document(line, source + ": line " + std::to_string(number),
                                {"id", "tokens", "patches", "media"});
    const JsonObject entry = document.root();
    Sequence sample{.id = entry.whole("id", -kMost - 1, kMost),
                    .tokens = entry.whole("tokens", 1, kMaxTokens),
                    .patches = entry.whole_or("patches", 0, 0, kMaxTokens)};
    sample.frame_patches = frame_patches_of(entry, sample.patches);
    add(sample, number);
    ++found;
  }
  const std::int64_t written = header.root().has_value("samples") ? header.root().whole("samples", 0, kMost) : found;
  if (found == written) return;
  throw InputError(source, "",
                   (found < written ? "is cut off: " : "has too many lines: ") + std::to_string(found) + " of " +
                       std::to_string(written) + " samples; build it again with dhp index");
}

}  // namespace

bool is_index(std::string_view text) {
  const std::string_view header = take_line(text);
  return header.starts_with('{') && header.find("\"dhp.index/1\"") != std::string_view::npos;
}

Batch parse_batch_index(std::string_view text, const std::string& source) {
  Batch batch;
  read_samples(text, source, [&](const Sequence& sample, std::size_t) { batch.sequences.push_back(sample); });
  validate(batch, source);
  return batch;
}

std::vector<MediaSample> parse_sample_index(std::string_view text, const std::string& source) {
  std::vector<MediaSample> samples;
  read_samples(text, source, [&](const Sequence& sample, std::size_t line) {
    MediaSample& added = samples.emplace_back();
    added.tokens = sample.tokens;
    added.patches = sample.patches;
    added.frame_patches = sample.frame_patches;
    added.location = "line " + std::to_string(line);
  });
  return samples;
}

std::vector<MediaSample> read_sample_file(const std::string& file, std::int64_t prompt_tokens) {
  const std::string text = read_text_file(file, kMostDataBytes);
  return is_index(text) ? parse_sample_index(text, file) : parse_sample_csv(text, file, prompt_tokens);
}

}  // namespace dhp
