// Fits of made-up measurements whose coefficients are known.
#include "dhp/fit.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "cost/fit/least_squares.h"

namespace dhp::fit_test {
namespace {

const TermSeconds kTrue = {
    .task_s = 3e-3, .patch_s = 8e-6, .token_s = 5e-5, .pair_s = 4e-8, .step_s = 1e-3, .sequence_step_s = 2e-4};
const std::vector<Term> kAll = {Term::task, Term::patch, Term::token, Term::pair, Term::step, Term::sequence_step};

/// Tasks of every kind: 1 to 4 sequences of 30 to 3,000 tokens, some with vision, on 1 to 6 ranks.
std::vector<TimeSample> exact_samples(int count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto uniform = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  std::vector<TimeSample> samples;
  for (int i = 0; i < count; ++i) {
    std::vector<Sequence> sequences(static_cast<std::size_t>(uniform(1, 4)));
    for (Sequence& sequence : sequences) {
      const int tokens = static_cast<int>(30 * std::pow(100.0, uniform(0, 1000) / 1000.0));
      sequence = {0, tokens, uniform(0, 1) * uniform(0, 4 * tokens)};
    }
    TimeSample sample{load_of(sequences), uniform(1, 6), 0.0};
    sample.seconds = estimate_s(kTrue, sample.load, sample.degree);
    samples.push_back(sample);
  }
  return samples;
}

TimeFit fitted(const std::vector<TimeSample>& samples, const FitOptions& options) {
  const auto result = fit_times(samples, options);
  if (const auto* none = std::get_if<NoFit>(&result)) {
    ADD_FAILURE() << none->reason;
    return {};
  }
  return std::get<TimeFit>(result);
}

std::string reason_of(const std::vector<TimeSample>& samples, const FitOptions& options) {
  const auto result = fit_times(samples, options);
  const auto* none = std::get_if<NoFit>(&result);
  return none ? none->reason : "a fit";
}

void expect_near(const TermSeconds& found, const TermSeconds& expected, double relative) {
  for (const Term term : kAll) {
    EXPECT_NEAR(found.of(term), expected.of(term), relative * expected.of(term)) << to_string(term);
  }
}

TEST(Fit, EstimateIsTaskTimeWithoutTransfers) {
  // 2 sequences, 30 + 50 tokens, 40 patches on 2 ranks, by hand:
  // 0.5 + 3*40/2 + 2*80/2 + 0.1*(900+2500)/4 + 2*(7 + 2*0.25) = 0.5 + 60 + 80 + 85 + 15
  const std::vector<Sequence> sequences = {{0, 30, 0}, {1, 50, 40}};
  const TermSeconds terms = {
      .task_s = 0.5, .patch_s = 3, .token_s = 2, .pair_s = 0.1, .step_s = 7, .sequence_step_s = 0.25};
  EXPECT_DOUBLE_EQ(estimate_s(terms, load_of(sequences), 2), 240.5);

  CostModel cost{.name = "x", .layers = 2, .task_s = 0.5, .patch_s = 3};
  cost.forward = {.token_s = 0.5, .pair_s = 0.025, .step_s = 3, .sequence_step_s = 0.25};
  cost.backward = {.token_s = 1.5, .pair_s = 0.075, .step_s = 4, .sequence_step_s = 0};
  EXPECT_EQ(terms_of(cost), terms);
  const Link link{1e30, 0.0, 1};
  const Cluster cluster{1, 2, 1e9, link, link, {}};
  EXPECT_DOUBLE_EQ(task_seconds(cost, cluster, load_of(sequences), consecutive_shape(cluster, 0, 2), Exchange::ring),
                   240.5);
}

TEST(Fit, FindsKnownCoefficientsExactly) {
  const TimeFit fit = fitted(exact_samples(40, 1), {.terms = kAll});
  expect_near(fit.seconds, kTrue, 1e-6);
  EXPECT_LT(fit.error.worst, 1e-8);
  EXPECT_EQ(fit.error.samples, 40);
}

TEST(Fit, NoiseAveragesOut) {
  auto samples = exact_samples(400, 2);
  std::mt19937_64 random(3);
  std::normal_distribution<double> noise(0.0, 0.05);
  for (TimeSample& sample : samples) sample.seconds *= std::exp(noise(random));
  const TimeFit fit = fitted(samples, {.terms = kAll});
  expect_near(fit.seconds, kTrue, 0.12);
  // The mean of |normal| is 0.8 of its deviation.
  EXPECT_NEAR(fit.error.mean, 0.04, 0.006);
  EXPECT_LT(estimate_error(fit.seconds, exact_samples(200, 4)).mean, 0.01);
}

TEST(Fit, ShrugsOffOutliers) {
  auto samples = exact_samples(100, 5);
  std::mt19937_64 random(6);
  std::normal_distribution<double> noise(0.0, 0.01);
  for (TimeSample& sample : samples) sample.seconds *= std::exp(noise(random));
  for (std::size_t i = 0; i < samples.size(); i += 5) samples[i].seconds *= i % 2 == 0 ? 5.0 : 1.7;  // 20 of 100
  const TimeFit fit = fitted(samples, {.terms = kAll});
  EXPECT_EQ(fit.set_aside, 20);
  EXPECT_LT(estimate_error(fit.seconds, exact_samples(200, 7)).mean, 0.01);
}

TEST(Fit, CoefficientsAreNeverNegative) {
  // Seconds fall with length: the best line has a negative slope, the best one allowed is a constant.
  std::vector<TimeSample> samples;
  for (int tokens = 100; tokens <= 1000; tokens += 100) {
    samples.push_back({load_of(std::vector<Sequence>{{0, tokens, 0}}), 1, 1.1 - 1e-4 * tokens});
  }
  const TimeFit fit = fitted(samples, {.terms = {Term::task, Term::token, Term::pair}});
  EXPECT_EQ(fit.seconds.token_s, 0.0);
  EXPECT_EQ(fit.seconds.pair_s, 0.0);
  EXPECT_GT(fit.seconds.task_s, 1.0);
  EXPECT_LT(fit.seconds.task_s, 1.1);
}

TEST(Fit, ScalesWithTheUnitOfTime) {
  auto samples = exact_samples(40, 8);
  const TimeFit fit = fitted(samples, {.terms = kAll});
  for (TimeSample& sample : samples) sample.seconds *= 1024;
  const TimeFit scaled = fitted(samples, {.terms = kAll});
  for (const Term term : kAll) EXPECT_DOUBLE_EQ(scaled.seconds.of(term), 1024 * fit.seconds.of(term));
}

TEST(Fit, SaysWhatIsMissing) {
  const std::vector<Term> linear = {Term::task, Term::token, Term::pair};
  std::vector<TimeSample> samples;
  for (int i = 0; i < 10; ++i) {
    samples.push_back({load_of(std::vector<Sequence>{{0, i % 2 == 0 ? 100 : 900, 0}}), 1, 0.1});
  }
  EXPECT_NE(reason_of(samples, {.terms = linear}).find("measure more lengths"), std::string::npos);
  EXPECT_NE(reason_of({samples[0], samples[1]}, {.terms = linear}).find("2 samples for 3 coefficients"),
            std::string::npos);
  EXPECT_NE(reason_of({}, {.terms = linear}).find("0 samples"), std::string::npos);

  auto one_degree = exact_samples(40, 9);
  for (TimeSample& sample : one_degree) sample.degree = 2;
  EXPECT_NE(reason_of(one_degree, {.terms = {Term::task, Term::token, Term::step}}).find("step_s cannot be told"),
            std::string::npos);
  EXPECT_NE(reason_of(one_degree, {.terms = {Term::task, Term::token, Term::step}}).find("more degrees"),
            std::string::npos);
  std::vector<TimeSample> alone;
  for (int i = 1; i < 12; ++i) alone.push_back({load_of(std::vector<Sequence>{{0, 100 * i, 0}}), 1 + i % 3, 0.1 * i});
  EXPECT_NE(reason_of(alone, {.terms = {Term::token, Term::step, Term::sequence_step}}).find("pack more and fewer"),
            std::string::npos);
  EXPECT_NE(reason_of(alone, {.terms = {Term::token, Term::patch}}).find("patch_s cannot be told"), std::string::npos);
}

TEST(Fit, APriorStandsInForWhatSamplesDoNotTell) {
  // All on 1 rank: task_s and step_s show as their sum alone, and the prior, twice too slow, says how it divides.
  auto samples = exact_samples(60, 10);
  for (TimeSample& sample : samples) {
    sample.degree = 1;
    sample.seconds = estimate_s(kTrue, sample.load, 1);
  }
  TermSeconds prior = kTrue;
  for (const Term term : kAll) prior.of(term) *= 2;
  const TimeFit fit = fitted(samples, {.terms = kAll, .prior = prior});
  EXPECT_NEAR(fit.seconds.task_s + fit.seconds.step_s, kTrue.task_s + kTrue.step_s, 1e-5);
  expect_near(fit.seconds, kTrue, 0.02);
  EXPECT_LT(fit.error.worst, 1e-3);

  // Without any sample that tells, the prior in the right unit of time.
  const TimeFit one =
      fitted({{samples[0].load, 3, 2 * estimate_s(kTrue, samples[0].load, 3)}}, {.terms = kAll, .prior = kTrue});
  for (const Term term : kAll)
    EXPECT_NEAR(one.seconds.of(term), 2 * kTrue.of(term), 1e-6 * kTrue.of(term)) << to_string(term);
}

TEST(Fit, APriorYieldsToWhatSamplesTell) {
  const TermSeconds wrong = {
      .task_s = 1e-3, .patch_s = 0, .token_s = 1e-4, .pair_s = 1e-8, .step_s = 4e-3, .sequence_step_s = 0};
  const TimeFit fit = fitted(exact_samples(200, 11), {.terms = kAll, .prior = wrong});
  EXPECT_LT(estimate_error(fit.seconds, exact_samples(200, 12)).mean, 0.01);
}

TEST(Fit, RefusesNonsense) {
  const auto samples = exact_samples(20, 13);
  EXPECT_THROW(fit_times(samples, {}), std::invalid_argument);
  EXPECT_THROW(fit_times(samples, {.terms = {Term::task, Term::task}}), std::invalid_argument);
  for (const double seconds :
       {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    auto bad = samples;
    bad[7].seconds = seconds;
    EXPECT_THROW(fit_times(bad, {.terms = kAll}), std::invalid_argument) << seconds;
  }
  auto bad = samples;
  bad[7].degree = 0;
  EXPECT_THROW(fit_times(bad, {.terms = kAll}), std::invalid_argument);
}

TEST(Fit, ErrorsAreRelativeAndRanked) {
  std::vector<double> measured(20, 2.0);
  std::vector<double> estimated(20, 2.0);
  estimated[0] = 3.0;   // 50 % off
  estimated[1] = 1.5;   // 25 %
  estimated[2] = 2.25;  // 12.5 %
  const EstimateError error = error_of(estimated, measured);
  EXPECT_DOUBLE_EQ(error.mean, 0.875 / 20);
  EXPECT_DOUBLE_EQ(error.p95, 0.25);  // the 19th of 20
  EXPECT_DOUBLE_EQ(error.worst, 0.5);
  EXPECT_EQ(error.samples, 20);
  EXPECT_EQ(error_of({}, {}).samples, 0);
}

// Against projected gradient descent, which knows nothing of sets of columns.
TEST(LeastSquares, NonNegativeSolutionHasNoBetterNeighbour) {
  std::mt19937_64 random(14);
  std::normal_distribution<double> normal;
  int at_zero = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const std::size_t columns = 1 + static_cast<std::size_t>(trial % 6);
    Rows rows(12);
    for (Row& row : rows) {
      for (std::size_t j = 0; j < columns; ++j)
        row.x[j] = std::abs(normal(random)) * std::pow(10.0, static_cast<double>(j));
      row.y = normal(random) + 0.5;
      row.weight = std::abs(normal(random)) + 0.1;
    }
    const auto found = non_negative_least_squares(rows, columns);
    // The conditions of Karush, Kuhn and Tucker: the gradient is 0 where a coefficient is positive, not negative at 0.
    for (std::size_t j = 0; j < columns; ++j) {
      double gradient = 0.0;
      double size = 0.0;
      for (const Row& row : rows) {
        gradient += row.weight * row.x[j] * (value_of(row, found) - row.y);
        size += row.weight * row.x[j] * std::abs(row.y);
      }
      EXPECT_GE(found[j], 0.0);
      EXPECT_GE(gradient, -1e-9 * size) << "trial " << trial << ", column " << j;
      if (found[j] > 0.0) {
        EXPECT_LE(gradient, 1e-9 * size) << "trial " << trial << ", column " << j;
      }
      at_zero += found[j] == 0.0 ? 1 : 0;
    }
  }
  EXPECT_GT(at_zero, 50);  // else the trials tested nothing
}

TEST(LeastSquares, OwnShares) {
  // Columns (1, 1, 1, 1), (0, 0, 1, 1), and their sum: each is given by the others; without the third, half of the
  // second (its part beyond its mean) and half of the first are its own.
  Rows rows(4);
  for (std::size_t i = 0; i < 4; ++i) rows[i].x = {1.0, i < 2 ? 0.0 : 1.0, i < 2 ? 1.0 : 2.0};
  const auto two = own_shares(rows, 2);
  EXPECT_NEAR(two[0], 0.5, 1e-12);
  EXPECT_NEAR(two[1], 0.5, 1e-12);
  EXPECT_EQ(own_shares(rows, 3), (std::vector<double>{0.0, 0.0, 0.0}));
  for (Row& row : rows) row.x[1] = 0.0;
  EXPECT_EQ(own_shares(rows, 2)[1], 0.0);
}

const TermSeconds kFrames = {.task_s = 3e-3, .patch_s = 8e-6, .patch_pair_s = 2e-8};
const std::vector<Term> kVision = {Term::task, Term::patch, Term::patch_pair};

/// Pictures and clips whose frames have 16 to 4,096 patches, on 1 to 8 ranks; about half last as long as one frame.
std::vector<TimeSample> frame_samples(int count, std::uint64_t seed, double noise) {
  std::mt19937_64 random(seed);
  const auto uniform = [&](int least, int most) { return std::uniform_int_distribution<int>(least, most)(random); };
  std::vector<TimeSample> samples;
  for (int i = 0; i < count; ++i) {
    std::vector<Sequence> sequences(static_cast<std::size_t>(uniform(1, 3)));
    for (Sequence& sequence : sequences) {
      const int frame = 1 << uniform(4, 12);
      sequence = {0, 100, frame * uniform(1, 6), frame};
    }
    TimeSample sample{load_of(sequences), uniform(1, 8), 0.0};
    // By hand: the formula once more.
    const Load& load = sample.load;
    const double all = kFrames.patch_s * load.patches + kFrames.patch_pair_s * load.patch_pairs;
    const double frame = kFrames.patch_s * load.largest_frame + kFrames.patch_pair_s * std::pow(load.largest_frame, 2);
    sample.seconds = kFrames.task_s + std::max(all / sample.degree, frame);
    sample.seconds *= 1.0 + noise * uniform(-100, 100) / 100.0;
    samples.push_back(sample);
  }
  return samples;
}

TEST(Fit, FindsVisionThatFramesLimit) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const TimeFit fit = fitted(frame_samples(40, seed, 0.0), {.terms = kVision});
    for (const Term term : kVision) {
      EXPECT_NEAR(fit.seconds.of(term), kFrames.of(term), 1e-6 * kFrames.of(term)) << to_string(term);
    }
    EXPECT_LT(fit.error.worst, 1e-8);
    const TimeFit noisy = fitted(frame_samples(200, seed, 0.05), {.terms = kVision});
    EXPECT_NEAR(noisy.seconds.patch_s, kFrames.patch_s, 0.1 * kFrames.patch_s);
    EXPECT_NEAR(noisy.seconds.patch_pair_s, kFrames.patch_pair_s, 0.1 * kFrames.patch_pair_s);
    EXPECT_EQ(fitted(frame_samples(200, seed, 0.05), {.terms = kVision}).seconds, noisy.seconds);
  }
}

TEST(Fit, FramesOfOneSizeDoNotTellPairsFromPatches) {
  std::vector<TimeSample> samples;
  for (int i = 1; i <= 20; ++i) {
    const std::vector<Sequence> sequences = {{0, 100, 256 * i, 256}};
    samples.push_back({load_of(sequences), 1 + i % 3, 0.0});
    samples.back().seconds = 2 * estimate_s(kFrames, samples.back().load, samples.back().degree);
  }
  const std::string reason = reason_of(samples, {.terms = kVision});
  EXPECT_NE(reason.find("patch_pair_s cannot be told"), std::string::npos) << reason;
  EXPECT_NE(reason.find("frames of different sizes"), std::string::npos) << reason;
  // What is believed divides the two, and the samples say how quick the machine is.
  const TimeFit fit = fitted(samples, {.terms = kVision, .prior = kFrames});
  EXPECT_NEAR(fit.seconds.patch_s, 2 * kFrames.patch_s, 1e-3 * kFrames.patch_s);
  EXPECT_NEAR(fit.seconds.patch_pair_s, 2 * kFrames.patch_pair_s, 1e-3 * kFrames.patch_pair_s);
}

}  // namespace
}  // namespace dhp::fit_test
