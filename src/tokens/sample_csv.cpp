#include <optional>

#include "base/csv_reader.h"
#include "dhp/error.h"
#include "dhp/workload.h"
#include "tokens/media_limits.h"

namespace dhp {
namespace {

constexpr double kMostSeconds = 1e8;
constexpr double kLeastFps = 1e-3;
constexpr double kMostFps = 1e5;
constexpr double kUsualFps = 30.0;

struct Columns {
  std::optional<std::size_t> duration_s, width, height, fps, text_tokens, tokens, patches, frame_patches;

  bool have_media() const { return duration_s && width && height; }
  bool have_counts() const { return tokens && patches; }
};

Columns columns_of(const CsvReader& csv, const std::string& source) {
  const Columns columns = {csv.column("duration_s"), csv.column("width"),        csv.column("height"),
                           csv.column("fps"),        csv.column("text_tokens"),  csv.column("tokens"),
                           csv.column("patches"),    csv.column("frame_patches")};
  if (columns.have_media() == columns.have_counts()) {
    throw InputError(source, "header",
                     "found \"" + csv.header().substr(0, 120) +
                         "\", expected the columns duration_s,width,height (and fps, text_tokens), or tokens,patches "
                         "(and frame_patches)");
  }
  return columns;
}

MediaSample counted_sample(const CsvReader& csv, const Columns& columns) {
  MediaSample sample;
  sample.tokens = csv.whole(*columns.tokens, 1, kMaxTokens);
  sample.patches = csv.whole(*columns.patches, 0, kMaxTokens);
  if (columns.frame_patches) sample.frame_patches = csv.whole(*columns.frame_patches, 0, sample.patches);
  return sample;
}

MediaSample media_sample(const CsvReader& csv, const Columns& columns, std::int64_t prompt_tokens) {
  MediaSample sample;
  sample.duration_s = csv.number(*columns.duration_s, 0.0, kMostSeconds);
  sample.width = csv.whole(*columns.width, 1, kMaxSide);
  sample.height = csv.whole(*columns.height, 1, kMaxSide);
  sample.fps = columns.fps ? csv.number(*columns.fps, kLeastFps, kMostFps) : kUsualFps;
  sample.text_tokens = columns.text_tokens ? csv.whole(*columns.text_tokens, 0, kMaxTokens) : prompt_tokens;
  return sample;
}

}  // namespace

std::vector<MediaSample> parse_sample_csv(std::string_view text, const std::string& source,
                                          std::int64_t prompt_tokens) {
  CsvReader csv(text, source);
  const Columns columns = columns_of(csv, source);
  std::vector<MediaSample> samples;
  while (csv.next()) {
    MediaSample sample =
        columns.have_counts() ? counted_sample(csv, columns) : media_sample(csv, columns, prompt_tokens);
    sample.location = csv.location();
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace dhp
