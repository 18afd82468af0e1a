#include "dhp/workload.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/csv_reader.h"
#include "base/listing.h"
#include "base/random.h"
#include "dhp/error.h"
#include "dhp/presets.h"
#include "tokens/media_limits.h"

namespace dhp {
namespace {

// Streams of random numbers, one for each use.
constexpr std::uint64_t kSampleStream = 1;
constexpr std::uint64_t kOrderStream = 2;
constexpr std::uint64_t kFramesStream = 3;

constexpr double kSourceFps = 30.0;

/// Tokens of Qwen's tokenizer for each word of an English caption: 9.810 / 9.316, measured on MSR-VTT's captions.
constexpr double kTokensPerWord = 1.053;

struct Resolution {
  std::int64_t width;
  std::int64_t height;
};

MediaSample clip_of(double duration_s, Resolution resolution, std::int64_t text_tokens) {
  MediaSample sample;
  sample.duration_s = duration_s;
  sample.width = resolution.width;
  sample.height = resolution.height;
  sample.fps = kSourceFps;
  sample.text_tokens = text_tokens;
  return sample;
}

MediaSample length_of(std::int64_t tokens) {
  MediaSample sample;
  sample.tokens = tokens;
  return sample;
}

/// 2 s and a log-normal length, drawn again until it is below the cut.
double cut_duration(Random& random, double mu, double sigma, double most_s) {
  constexpr double kLeast = 2.0;
  for (;;) {
    const double duration_s = kLeast + random.log_normal(mu, sigma);
    if (duration_s <= most_s) return duration_s;
  }
}

/// A file of data/datasets.
std::string_view embedded(std::string_view name) {
  const std::vector<Preset>& all = dataset_presets();
  return std::find_if(all.begin(), all.end(), [&](const Preset& one) { return one.name == name; })->text;
}

/// Captions of MSR-VTT: a token count with the frequency it has among the real ones.
class CaptionTokens {
 public:
  CaptionTokens() {
    CsvReader csv(embedded("msrvtt_caption_tokens"), "msrvtt_caption_tokens");
    while (csv.next()) {
      tokens_.push_back(csv.whole(0, 1, kMaxTokens));
      total_ += csv.whole(1, 1, kMaxTokens);
      up_to_.push_back(total_);
    }
  }
  std::int64_t draw(Random& random) const {
    const std::int64_t caption = random.whole(1, total_);
    const auto found = std::lower_bound(up_to_.begin(), up_to_.end(), caption);
    return tokens_[static_cast<std::size_t>(found - up_to_.begin())];
  }

 private:
  std::vector<std::int64_t> tokens_;
  std::vector<std::int64_t> up_to_;
  std::int64_t total_ = 0;
};

std::vector<double> msrvtt_durations() {
  constexpr double kLongest = 60.0;
  CsvReader csv(embedded("msrvtt_durations"), "msrvtt_durations");
  const std::size_t column = csv.column("duration_s").value();
  std::vector<double> durations;
  while (csv.next()) durations.push_back(csv.number(column, 1.0, kLongest));
  return durations;
}

/// Sample i of an endless sequence of epochs: each holds every one of `size` once, in an order of its own.
class Epochs {
 public:
  Epochs(std::size_t size, std::uint64_t seed) : order_(size), seed_(seed) {}
  std::size_t next() {
    if (position_ == 0) shuffle();
    const std::size_t chosen = order_[position_];
    position_ = (position_ + 1) % order_.size();
    return chosen;
  }

 private:
  void shuffle() {
    Random random(seed_, kOrderStream, epoch_++);
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    for (std::size_t i = order_.size(); i > 1; --i) {
      std::swap(order_[i - 1], order_[static_cast<std::size_t>(random.whole(0, static_cast<std::int64_t>(i) - 1))]);
    }
  }

  std::vector<std::size_t> order_;
  std::uint64_t seed_;
  std::uint64_t epoch_ = 0;
  std::size_t position_ = 0;
};

std::vector<MediaSample> draw_msrvtt(std::int64_t count, std::uint64_t seed, std::int64_t prompt_tokens) {
  constexpr Resolution kMsrvtt = {320, 240};
  const std::vector<double> durations = msrvtt_durations();
  const CaptionTokens captions;
  Epochs epochs(durations.size(), seed);
  std::vector<MediaSample> samples;
  for (std::int64_t i = 0; i < count; ++i) {
    Random random(seed, kSampleStream, static_cast<std::uint64_t>(i));
    samples.push_back(clip_of(durations[epochs.next()], kMsrvtt, prompt_tokens + captions.draw(random)));
  }
  return samples;
}

/// Words of an InternVid caption: a third below 10, a half 10 to 20, 11 % above, as published (they add up to 0.943 and
/// are scaled); even inside each range, and such a tail that the mean is the published 17.6.
std::int64_t internvid_words(Random& random) {
  constexpr double kBelowTen = 0.353;
  constexpr double kToTwenty = 0.883;
  constexpr double kTail = 1.0 / 43.0;
  const double part = random.unit();
  if (part < kBelowTen) return random.whole(3, 9);
  if (part < kToTwenty) return random.whole(10, 20);
  return 21 + random.geometric(kTail);
}

MediaSample draw_internvid(Random& random, std::int64_t prompt_tokens) {
  constexpr std::array<Resolution, 3> kSmaller = {{{640, 360}, {854, 480}, {960, 540}}};
  constexpr Resolution kUsual = {1280, 720};
  constexpr double kUsualShare = 0.85;
  const double duration_s = cut_duration(random, -0.499, 2.498, 1200.0);
  const bool usual = random.unit() < kUsualShare;
  const auto smaller = static_cast<std::size_t>(random.whole(0, std::ssize(kSmaller) - 1));
  const double words = static_cast<double>(internvid_words(random));
  return clip_of(duration_s, usual ? kUsual : kSmaller.at(smaller),
                 prompt_tokens + static_cast<std::int64_t>(std::nearbyint(words * kTokensPerWord)));
}

MediaSample draw_openvid(Random& random, std::int64_t prompt_tokens) {
  constexpr Resolution kFullHd = {1920, 1080};
  constexpr std::int64_t kShortest = 80;
  constexpr std::int64_t kLongest = 200;
  const double duration_s = cut_duration(random, 1.2, 0.95, 120.0);
  return clip_of(duration_s, kFullHd, prompt_tokens + random.whole(kShortest, kLongest));
}

constexpr std::int64_t kGiant = 131'072;

MediaSample draw_lognormal(Random& random) {
  constexpr double kMedian = 2500.0;
  constexpr double kSigma = 1.3;
  constexpr double kLeast = 64.0;
  const double tokens = std::nearbyint(kMedian * random.log_normal(0.0, kSigma));
  return length_of(static_cast<std::int64_t>(std::min(std::max(tokens, kLeast), static_cast<double>(kGiant))));
}

MediaSample draw_uniform(Random& random) { return length_of(random.whole(1024, 8192)); }

template <typename Draw>
std::vector<MediaSample> draw_each(std::int64_t count, std::uint64_t seed, const Draw& draw) {
  std::vector<MediaSample> samples;
  for (std::int64_t i = 0; i < count; ++i) {
    Random random(seed, kSampleStream, static_cast<std::uint64_t>(i));
    samples.push_back(draw(random));
  }
  return samples;
}

/// One giant in every 128 samples, at a drawn position.
std::vector<MediaSample> draw_burst(std::int64_t count, std::uint64_t seed) {
  constexpr std::int64_t kOneIn = 128;
  std::vector<MediaSample> samples =
      draw_each(count, seed, [](Random& random) { return length_of(random.whole(500, 4000)); });
  for (std::int64_t first = 0; first < count; first += kOneIn) {
    Random random(seed, kOrderStream, static_cast<std::uint64_t>(first));
    const std::int64_t giant = first + random.whole(0, kOneIn - 1);
    if (giant < count) samples[static_cast<std::size_t>(giant)] = length_of(kGiant);
  }
  return samples;
}

void check_count(std::int64_t count) { check_range(count, 0, kMaxSamples, "--count", ""); }

/// Training draws InternVL's number of frames for each clip.
MediumOptions options_of_clip(const TokenRules& rules, MediumOptions options, std::uint64_t seed, std::int64_t id) {
  const auto* tiles = std::get_if<internvl::Rules>(&rules.rules);
  if (tiles == nullptr || options.fps || options.frames) return options;
  Random random(seed, kFramesStream, static_cast<std::uint64_t>(id));
  options.frames = static_cast<int>(random.whole(tiles->min_frames, tiles->max_frames));
  return options;
}

Sequence count_sample(const TokenRules& rules, const MediaSample& sample, const MediumOptions& options,
                      std::uint64_t seed, std::int64_t id) {
  if (sample.tokens > 0) return {id, sample.tokens, sample.patches, sample.frame_patches};
  MediumTokens medium;
  if (sample.width != 0 || sample.height != 0) {
    if (sample.duration_s > 0.0) {
      const double frames = std::max(1.0, std::nearbyint(sample.duration_s * sample.fps));
      check_range(static_cast<std::int64_t>(std::min(frames, 0x1p62)), 1, kMaxTotalFrames, "video", "frames");
      const Video video = {sample.height, sample.width, static_cast<std::int64_t>(frames), sample.fps};
      medium = video_tokens(rules, video, options_of_clip(rules, options, seed, id));
    } else {
      MediumOptions picture = options;
      picture.fps.reset();
      picture.frames.reset();
      medium = image_tokens(rules, sample.height, sample.width, picture);
    }
  }
  return {id, std::max<std::int64_t>(1, medium.all() + sample.text_tokens), medium.patches,
          medium.grid.height * medium.grid.width};
}

}  // namespace

const std::vector<WorkloadInfo>& workloads() {
  static const std::vector<WorkloadInfo> kWorkloads = {
      {"msrvtt", true, "the 10,000 real durations of MSR-VTT, 320x240, real caption lengths"},
      {"internvid", true, "2 s + log-normal up to 1,200 s (median 2.6 s, mean 11.7 s), 360p to 720p"},
      {"openvid", true, "2 s + log-normal up to 120 s (median 5.3 s), 1920x1080, long captions"},
      {"lognormal", false, "tokens: median 2,500, sigma 1.3, 64 to 131,072"},
      {"burst", false, "tokens: one in 128 of 131,072 among 500 to 4,000"},
      {"uniform", false, "tokens: 1,024 to 8,192"}};
  return kWorkloads;
}

std::vector<MediaSample> draw_samples(const std::string& name, std::int64_t count, std::uint64_t seed,
                                      std::int64_t prompt_tokens) {
  check_count(count);
  check_range(prompt_tokens, 0, kMaxTokens, "--prompt-tokens", "");
  if (name == "msrvtt") return draw_msrvtt(count, seed, prompt_tokens);
  if (name == "internvid") {
    return draw_each(count, seed, [&](Random& random) { return draw_internvid(random, prompt_tokens); });
  }
  if (name == "openvid") {
    return draw_each(count, seed, [&](Random& random) { return draw_openvid(random, prompt_tokens); });
  }
  if (name == "lognormal") return draw_each(count, seed, draw_lognormal);
  if (name == "burst") return draw_burst(count, seed);
  if (name == "uniform") return draw_each(count, seed, draw_uniform);
  throw InputError("--data", "",
                   "found \"" + name + "\", expected " + listed(workloads(), [](const WorkloadInfo& info) {
                     return info.name;
                   }) + ", or a file, CSV or what dhp index has written");
}

std::vector<MediaSample> draw_from(const std::vector<MediaSample>& samples, std::int64_t count, std::uint64_t seed) {
  check_count(count);
  if (samples.empty() && count > 0) throw InputError("--count", "", "asks for samples of an index that has none");
  Epochs epochs(samples.size(), seed);
  std::vector<MediaSample> drawn;
  for (std::int64_t i = 0; i < count; ++i) drawn.push_back(samples[epochs.next()]);
  return drawn;
}

Batch make_batch(const TokenRules& rules, const std::vector<MediaSample>& samples, const MediumOptions& options,
                 std::uint64_t seed, const std::string& source) {
  Batch batch;
  for (std::int64_t id = 0; id < std::ssize(samples); ++id) {
    const MediaSample& sample = samples[static_cast<std::size_t>(id)];
    try {
      batch.sequences.push_back(count_sample(rules, sample, options, seed, id));
    } catch (const InputError& error) {
      throw InputError(source, sample.location.empty() ? "sample " + std::to_string(id) : sample.location,
                       error.what());
    }
  }
  return batch;
}

}  // namespace dhp
