// Workloads: what is drawn against the documented distributions, the same everywhere; a user's index.
#include "dhp/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "base/random.h"
#include "support.h"

namespace dhp::workload_test {
namespace {

constexpr std::int64_t kMany = 40'000;

template <typename Value>
double share(const std::vector<MediaSample>& samples, const Value& holds) {
  const auto count = std::count_if(samples.begin(), samples.end(), holds);
  return static_cast<double>(count) / static_cast<double>(samples.size());
}

double mean_duration(const std::vector<MediaSample>& samples) {
  double sum = 0.0;
  for (const MediaSample& sample : samples) sum += sample.duration_s;
  return sum / static_cast<double>(samples.size());
}

double mean_text(const std::vector<MediaSample>& samples) {
  double sum = 0.0;
  for (const MediaSample& sample : samples) sum += static_cast<double>(sample.text_tokens);
  return sum / static_cast<double>(samples.size());
}

TEST(PortableMath, EqualsTheLibraryNearly) {
  test::Random random(5);
  for (int i = 0; i < 20'000; ++i) {
    const double x = (random.unit() - 0.5) * 1400.0;
    test::expect_relative(portable_exp(x), std::exp(x), 1e-13);
    const double y = std::exp((random.unit() - 0.5) * 1000.0);
    EXPECT_NEAR(portable_log(y), std::log(y), 1e-14 * std::max(1.0, std::abs(std::log(y)))) << y;
  }
  EXPECT_EQ(portable_exp(0.0), 1.0);
  EXPECT_EQ(portable_log(1.0), 0.0);
  EXPECT_EQ(portable_exp(-1e9), 0.0);
  EXPECT_TRUE(std::isfinite(portable_exp(1e9)));
}

TEST(RandomNumbers, HaveTheirMoments) {
  Random random(1, 2, 3);
  double sum = 0.0;
  double squares = 0.0;
  double beyond = 0.0;
  constexpr int kDraws = 200'000;
  for (int i = 0; i < kDraws; ++i) {
    const double z = random.normal();
    sum += z;
    squares += z * z;
    beyond += z > 3.0 ? 1.0 : 0.0;
  }
  // Four standard errors: 4 / sqrt(n), 4 sqrt(2 / n), and of the tail's 0.00135 n.
  EXPECT_NEAR(sum / kDraws, 0.0, 0.0090);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.0127);
  EXPECT_NEAR(beyond, 0.001350 * kDraws, 4.0 * std::sqrt(0.001350 * kDraws));
  double failures = 0.0;
  for (int i = 0; i < kDraws; ++i) failures += static_cast<double>(random.geometric(0.2));
  EXPECT_NEAR(failures / kDraws, 4.0, 4.0 * std::sqrt(20.0 / kDraws));
}

TEST(RandomNumbers, AreTheSameEverywhere) {
  // By Python's own arithmetic: tests/golden/make_random_draws.py.
  EXPECT_EQ(Random(7, 1, 0).bits(), 0x782d0404b1f0c861U);
  EXPECT_EQ(Random(0, 0, 1).bits(), 0x62a4ed4055d278dbU);
  EXPECT_EQ(Random(~std::uint64_t{0}, 2, 5).bits(), 0x24a488a33bb4b07dU);
  const std::vector<std::int64_t> lognormal = {2334, 5533, 6418, 2753, 10696, 5099, 1259, 1059};
  const std::vector<std::int64_t> uniform = {4389, 6502, 6122, 6173, 7077, 5851, 6966, 3049};
  for (std::size_t i = 0; i < lognormal.size(); ++i) {
    EXPECT_EQ(draw_samples("lognormal", 8, 7)[i].tokens, lognormal[i]);
    EXPECT_EQ(draw_samples("uniform", 8, 7)[i].tokens, uniform[i]);
  }
}

TEST(Workloads, SamplesDependOnSeedAndPositionAlone) {
  for (const WorkloadInfo& info : workloads()) {
    const auto few = draw_samples(info.name, 100, 7);
    const auto many = draw_samples(info.name, 300, 7);
    EXPECT_TRUE(std::equal(few.begin(), few.end(), many.begin())) << info.name;
    EXPECT_NE(few, draw_samples(info.name, 100, 8)) << info.name;
    for (const MediaSample& sample : few) EXPECT_EQ(sample.tokens > 0, !info.has_media) << info.name;
  }
  EXPECT_TRUE(draw_samples("msrvtt", 0, 7).empty());
  EXPECT_EQ(test::input_error([] { draw_samples("msvd", 1, 7); }),
            "--data: found \"msvd\", expected msrvtt, internvid, openvid, lognormal, burst, uniform, or a file, CSV or "
            "what dhp index has written");
  EXPECT_EQ(test::input_error([] { draw_samples("msrvtt", -1, 7); }).rfind("--count: found -1", 0), 0U);
}

TEST(Workloads, AnEpochOfMsrvttIsMsrvtt) {
  auto samples = draw_samples("msrvtt", 10'000, 3);
  std::sort(samples.begin(), samples.end(),
            [](const MediaSample& a, const MediaSample& b) { return a.duration_s < b.duration_s; });
  EXPECT_NEAR(mean_duration(samples), 15.0, 0.05);
  EXPECT_EQ(samples.front().duration_s, 10.0);
  EXPECT_EQ(samples.back().duration_s, 30.0);
  EXPECT_NEAR(samples[5000].duration_s, 13.0, 0.05);
  EXPECT_NEAR(samples[9000].duration_s, 23.3, 0.1);
  // Another seed, the same clips.
  auto others = draw_samples("msrvtt", 10'000, 4);
  double difference = 0.0;
  for (const MediaSample& sample : others) difference += sample.duration_s;
  EXPECT_NEAR(difference / 10'000, mean_duration(samples), 1e-9);
  // Captions: 9.810 tokens on average, sd 4.5, from 3 to 68.
  const auto captions = draw_samples("msrvtt", kMany, 3, 0);
  EXPECT_NEAR(mean_text(captions), 9.810, 4.0 * 4.5 / std::sqrt(kMany));
  EXPECT_EQ(share(captions, [](const MediaSample& s) { return s.text_tokens < 3 || s.text_tokens > 68; }), 0.0);
  EXPECT_EQ(draw_samples("msrvtt", 1, 3)[0].text_tokens, captions[0].text_tokens + kPromptTokens);
}

TEST(Workloads, InternVidAsPublished) {
  const auto samples = draw_samples("internvid", kMany, 11, 0);
  const auto shorter = [&](double seconds) {
    return share(samples, [&](const MediaSample& s) { return s.duration_s < seconds; });
  };
  // The table of the log-normal cut at 1,200 s: four standard errors of a share are at most 0.01.
  EXPECT_NEAR(shorter(4.0), 0.684, 0.010);
  EXPECT_NEAR(shorter(8.0), 0.821, 0.008);
  EXPECT_NEAR(shorter(10.0), 0.85, 0.008);
  EXPECT_NEAR(shorter(32.0), 0.942, 0.005);
  EXPECT_NEAR(1.0 - shorter(64.0), 0.031, 0.0035);
  // Mean 11.7 s; a clip's standard deviation is 53 s.
  EXPECT_NEAR(mean_duration(samples), 11.7, 4.0 * 55.0 / std::sqrt(kMany));
  EXPECT_NEAR(share(samples, [](const MediaSample& s) { return s.height == 720; }), 0.85, 0.008);
  // 17.6 words at 1.053 tokens.
  EXPECT_NEAR(mean_text(samples), 17.6 * 1.053, 0.6);
}

TEST(Workloads, OpenVidIsWithinItsLimits) {
  const auto samples = draw_samples("openvid", kMany, 11, 0);
  EXPECT_EQ(share(samples, [](const MediaSample& s) { return s.duration_s <= 2.0 || s.duration_s > 120.0; }), 0.0);
  // Half below 2 + e^1.2 = 5.32 s.
  EXPECT_NEAR(share(samples, [](const MediaSample& s) { return s.duration_s < 2.0 + std::exp(1.2); }), 0.5, 0.010);
  EXPECT_NEAR(mean_text(samples), 140.0, 0.8);
}

TEST(Workloads, TokenLengths) {
  const auto lognormal = draw_samples("lognormal", kMany, 5);
  EXPECT_NEAR(share(lognormal, [](const MediaSample& s) { return s.tokens < 2500; }), 0.5, 0.010);
  // One sigma: 2500 e^1.3 = 9173.
  EXPECT_NEAR(share(lognormal, [](const MediaSample& s) { return s.tokens < 9173; }), 0.8413, 0.0075);
  const auto burst = draw_samples("burst", 128 * 100, 5);
  EXPECT_EQ(share(burst, [](const MediaSample& s) { return s.tokens == 131'072; }), 1.0 / 128);
  EXPECT_NEAR(share(burst, [](const MediaSample& s) { return s.tokens < 2250; }), 0.5, 0.018);
  const auto uniform = draw_samples("uniform", kMany, 5);
  EXPECT_EQ(share(uniform, [](const MediaSample& s) { return s.tokens < 1024 || s.tokens > 8192; }), 0.0);
  EXPECT_NEAR(share(uniform, [](const MediaSample& s) { return s.tokens < 4608; }), 0.5, 0.010);
}

std::vector<std::int64_t> sorted_values(const Batch& batch, std::int64_t Sequence::*member) {
  std::vector<std::int64_t> values;
  for (const Sequence& sequence : batch.sequences) values.push_back(sequence.*member);
  std::sort(values.begin(), values.end());
  return values;
}

/// Greatest difference of two empirical distributions (Kolmogorov-Smirnov).
double distance(const std::vector<std::int64_t>& a, const std::vector<std::int64_t>& b) {
  const auto below = [](const std::vector<std::int64_t>& values, std::int64_t limit) {
    const auto end = std::upper_bound(values.begin(), values.end(), limit);
    return static_cast<double>(end - values.begin()) / static_cast<double>(values.size());
  };
  double most = 0.0;
  for (const auto& values : {a, b}) {
    for (const std::int64_t value : values) most = std::max(most, std::abs(below(a, value) - below(b, value)));
  }
  return most;
}

TEST(Workloads, AreSpreadAsTheSharedCases) {
  // Batches of 512 made apart from the project. Two samples of one distribution, of 512 and of 4,096, are further apart
  // than 1.95 sqrt(1/512 + 1/4096) = 0.091 once in a thousand.
  constexpr double kLimit = 0.091;
  const TokenRules rules = token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils);
  for (const std::string name : {"msrvtt", "internvid", "openvid"}) {
    auto samples = draw_samples(name, 4096, 7, 0);
    if (name == "internvid") {  // the shared one knows 720p alone
      for (MediaSample& sample : samples) std::tie(sample.width, sample.height) = std::pair(1280, 720);
    }
    const Batch shared = read_batch(test::case_file("batch_" + name + "_512.json"));
    EXPECT_LT(distance(sorted_values(make_batch(rules, samples), &Sequence::patches),
                       sorted_values(shared, &Sequence::patches)),
              kLimit)
        << name;
  }
  for (const std::string name : {"lognormal", "burst", "uniform"}) {
    const Batch batch = make_batch(rules, draw_samples(name, 4096, 7, 0));
    const Batch shared = read_batch(test::case_file("batch_" + name + "_512.json"));
    EXPECT_LT(distance(sorted_values(batch, &Sequence::tokens), sorted_values(shared, &Sequence::tokens)), kLimit)
        << name;
  }
}

TEST(Batches, CountWhatSamplesAre) {
  const TokenRules rules = token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils);
  const std::vector<MediaSample> samples =
      parse_sample_csv("duration_s,width,height,text_tokens\n30,1280,720,5\n0,1280,720,7\n", "clips.csv");
  const Batch batch = make_batch(rules, samples);
  ASSERT_EQ(batch.sequences.size(), 2U);
  EXPECT_EQ(batch.sequences[0], (Sequence{0, 21'600 + 60 + 200 + 5, 86'400, 72 * 40}));
  EXPECT_EQ(batch.sequences[1], (Sequence{1, 880 + 2 + 7, 3'520, 3'520}));
  EXPECT_EQ(make_batch(rules, {samples[1]}, {.fps = 1.0}).sequences[0].tokens, 889);  // of clips alone
  MediaSample text;
  text.text_tokens = 0;
  EXPECT_EQ(make_batch(rules, {text}).sequences[0].tokens, 1);
}

TEST(Batches, InternVlDrawsFrames) {
  const TokenRules rules = token_rules(Family::internvl, MediaSampling::internvl_chat);
  const std::vector<MediaSample> samples = draw_samples("openvid", 2000, 7);
  const Batch batch = make_batch(rules, samples, {}, 7);
  std::set<std::int64_t> frames;
  for (const Sequence& sequence : batch.sequences) frames.insert(sequence.patches / 1024);
  EXPECT_EQ(batch.sequences[5].frame_patches, 1024);
  EXPECT_EQ(*frames.begin(), 8);
  EXPECT_EQ(*frames.rbegin(), 32);
  EXPECT_EQ(frames.size(), 25U);
  EXPECT_EQ(make_batch(rules, samples, {.frames = 8}).sequences[5].patches, 8192);
  EXPECT_EQ(batch, make_batch(rules, samples, {}, 7));
}

TEST(SampleCsv, ColumnsByName) {
  const auto samples = parse_sample_csv(
      "\xef\xbb\xbfpath, height ,width,fps,duration_s\r\na.mp4,240,320,25, 1.5\r\n \r\nc.mp4,1,2,10,0", "i.csv");
  ASSERT_EQ(samples.size(), 2U);
  EXPECT_EQ(samples[0].duration_s, 1.5);
  EXPECT_EQ(samples[0].width, 320);
  EXPECT_EQ(samples[0].height, 240);
  EXPECT_EQ(samples[0].fps, 25.0);
  EXPECT_EQ(samples[0].text_tokens, kPromptTokens);
  EXPECT_EQ(samples[1].location, "line 4");
  const auto counted = parse_sample_csv("id,tokens,patches\n9,100,400\n", "i.csv");
  EXPECT_EQ(counted[0].tokens, 100);
  EXPECT_EQ(counted[0].patches, 400);
  EXPECT_EQ(counted[0].frame_patches, 0);
  const auto frames = parse_sample_csv("tokens,patches,frame_patches\n100,400,40\n", "i.csv");
  EXPECT_EQ(make_batch({}, frames).sequences[0], (Sequence{0, 100, 400, 40}));
  // Half of what counted samples need is a column like any other.
  const auto media = parse_sample_csv("duration_s,width,height,tokens\n1.5,320,240,40\n", "i.csv");
  EXPECT_EQ(media[0].duration_s, 1.5);
  EXPECT_EQ(media[0].tokens, 0);
}

TEST(SampleCsv, ErrorsNameLineAndColumn) {
  const auto error = [](const std::string& text) {
    return test::input_error([&] { parse_sample_csv(text, "i.csv"); });
  };
  EXPECT_EQ(error(""), "i.csv: is empty, expected a line that names the columns");
  EXPECT_EQ(error("a,b\n"),
            "i.csv: header: found \"a,b\", expected the columns duration_s,width,height (and fps, text_tokens), or "
            "tokens,patches (and frame_patches)");
  EXPECT_EQ(error("duration_s,width,height\n1,2,3\n1,2\n"),
            "i.csv: line 3: found 2 cells, expected 3 as in the header");
  EXPECT_EQ(error("duration_s,width,height\nlong,2,3\n"),
            "i.csv: line 2: duration_s: found \"long\", expected a number from 0 to 1e+08");
  EXPECT_EQ(error("duration_s,width,height\nnan,2,3\n").rfind("i.csv: line 2: duration_s: found \"nan\"", 0), 0U);
  EXPECT_EQ(error("duration_s,width,height\n1,0,3\n"),
            "i.csv: line 2: width: found \"0\", expected a whole number from 1 to 1048576");
  EXPECT_EQ(error("tokens,patches\n5,-1\n").rfind("i.csv: line 2: patches: found \"-1\"", 0), 0U);
  const std::string quoted =
      "has a quoted cell, expected bare cells between commas; leave out columns of text, and the quotes around numbers "
      "and names of columns";
  EXPECT_EQ(error("tokens,patches\n\n\"5\",1\n"), "i.csv: line 3: " + quoted);
  EXPECT_EQ(error("\"tokens\",patches\n"), "i.csv: line 1: " + quoted);
  EXPECT_EQ(error("tokens,patches,text\n5,1,\"a, b\"\n"), "i.csv: line 2: " + quoted);
  EXPECT_EQ(error("tokens,patches,tokens\n"), "i.csv: line 1: names the column \"tokens\" twice");
  // What a rule refuses names the line, too.
  const TokenRules rules = token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils);
  const auto samples = parse_sample_csv("duration_s,width,height\n9,320,240\n0.01,320,240\n", "i.csv");
  EXPECT_EQ(test::input_error([&] { make_batch(rules, samples, {}, 0, "i.csv"); }),
            "i.csv: line 3: video: frames: found 0 sampled of 1, expected at least 2");
}

TEST(SampleCsv, RowsAreDrawnOnceAnEpoch) {
  std::vector<MediaSample> samples(50);
  for (std::size_t i = 0; i < samples.size(); ++i) samples[i].tokens = static_cast<std::int64_t>(i) + 1;
  const auto drawn = draw_from(samples, 120, 9);
  for (std::size_t epoch = 0; epoch < 2; ++epoch) {
    std::set<std::int64_t> seen;
    for (std::size_t i = 0; i < 50; ++i) seen.insert(drawn[epoch * 50 + i].tokens);
    EXPECT_EQ(seen.size(), 50U);
  }
  EXPECT_THROW(draw_from({}, 1, 9), InputError);
  EXPECT_TRUE(draw_from({}, 0, 9).empty());
}

}  // namespace
}  // namespace dhp::workload_test
