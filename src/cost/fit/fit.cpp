#include "dhp/fit.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <stdexcept>

#include "cost/fit/least_squares.h"

namespace dhp {
namespace {

/// What decides how long the vision of a task takes.
enum class VisionLimit { work, frame };

VisionLimit vision_limit(const TermSeconds& terms, const Load& load, int degree) {
  const double work_s = terms.patch_s * load.patches + terms.patch_pair_s * load.patch_pairs;
  const double frame_s = (terms.patch_s + terms.patch_pair_s * load.largest_frame) * load.largest_frame;
  return work_s < frame_s * degree ? VisionLimit::frame : VisionLimit::work;
}

/// What the coefficient of a term is multiplied by.
double feature(Term term, const Load& load, int degree, VisionLimit limit) {
  const double d = degree;
  const bool frame = limit == VisionLimit::frame;
  switch (term) {
    case Term::task:
      return 1.0;
    case Term::patch:
      return frame ? load.largest_frame : load.patches / d;
    case Term::patch_pair:
      return frame ? load.largest_frame * load.largest_frame : load.patch_pairs / d;
    case Term::token:
      return load.tokens / d;
    case Term::pair:
      return load.tokens_squared / (2 * d);
    case Term::step:
      return d;
    case Term::sequence_step:
      return d * load.sequences;
  }
  throw std::logic_error("feature: unknown term");
}

/// What to measure so that a term stands out.
std::string_view advice(Term term) {
  switch (term) {
    case Term::task:
    case Term::token:
    case Term::pair:
      return "measure more lengths, further apart";
    case Term::patch:
      return "measure tasks with different shares of vision";
    case Term::patch_pair:
      return "measure pictures and frames of different sizes";
    case Term::step:
      return "measure more degrees";
    case Term::sequence_step:
      return "measure tasks that pack more and fewer sequences";
  }
  throw std::logic_error("advice: unknown term");
}

void check(std::span<const TimeSample> samples, const FitOptions& options) {
  if (options.terms.empty()) throw std::invalid_argument("fit_times: no terms");
  if (std::set<Term>(options.terms.begin(), options.terms.end()).size() != options.terms.size()) {
    throw std::invalid_argument("fit_times: a term stands twice");
  }
  for (const TimeSample& sample : samples) {
    if (!(sample.seconds > 0.0) || !std::isfinite(sample.seconds) || sample.degree < 1) {
      throw std::invalid_argument("fit_times: samples take a positive number of seconds on at least 1 rank, found " +
                                  std::to_string(sample.seconds) + " s on " + std::to_string(sample.degree));
    }
  }
}

using Limits = std::vector<VisionLimit>;  // one a sample

Limits limits_of(std::span<const TimeSample> samples, const TermSeconds& terms) {
  Limits limits;
  for (const TimeSample& sample : samples) limits.push_back(vision_limit(terms, sample.load, sample.degree));
  return limits;
}

/// One row a sample, relative: an estimate that is right gives 1.
Rows rows_of(std::span<const TimeSample> samples, const std::vector<Term>& terms, const Limits& limits) {
  Rows rows;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const TimeSample& sample = samples[i];
    Row row;
    for (std::size_t j = 0; j < terms.size(); ++j) {
      row.x[j] = feature(terms[j], sample.load, sample.degree, limits[i]) / sample.seconds;
    }
    row.y = 1.0;
    rows.push_back(row);
  }
  return rows;
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The prior as further rows: each says that a coefficient is what the prior has, give or take all of it.
void add_prior(Rows& rows, std::span<const TimeSample> samples, const FitOptions& options) {
  std::vector<double> ratios;
  for (const TimeSample& sample : samples) {
    const double believed = estimate_s(*options.prior, sample.load, sample.degree);
    if (believed > 0.0) ratios.push_back(sample.seconds / believed);
  }
  const double scale = ratios.empty() ? 1.0 : median(ratios);
  for (std::size_t j = 0; j < options.terms.size(); ++j) {
    const double believed = options.prior->of(options.terms[j]) * scale;
    double largest = 0.0;  // of the term's feature a second
    for (std::size_t i = 0; i < samples.size(); ++i) largest = std::max(largest, rows[i].x[j]);
    // A coefficient believed to be 0 is pulled there at the scale at which it would matter.
    const double unit = believed > 0.0 ? believed : (largest > 0.0 ? 1.0 / largest : 1.0);
    Row row;
    row.x[j] = 1.0 / unit;
    row.y = believed / unit;
    row.weight = options.prior_weight;
    rows.push_back(row);
  }
}

/// Coefficients, and the weights that the samples ended with.
struct Robust {
  Coefficients coefficients = {};
  std::vector<double> weights = {};
};

/// Least squares with weights that follow from the residuals, again and again. Huber's first, whose minimum is unique;
/// from there Tukey's, at the spread then known. The constants give 95 % efficiency for normal errors.
Robust fit_robustly(Rows rows, std::size_t samples, std::size_t terms) {
  constexpr int kRounds = 100;
  constexpr double kHuber = 1.345;
  constexpr double kTukey = 4.685;
  constexpr double kDeviationOfMedian = 1.4826;  // standard deviation over median of |residuals|, normal errors
  constexpr double kLeastSpread = 5e-3;          // relative: no measurement of time is better, so nothing closer is off
  Robust result{non_negative_least_squares(rows, terms), std::vector<double>(samples, 1.0)};
  double spread = 0.0;
  for (const bool rejects : {false, true}) {
    for (int round = 0; round < kRounds; ++round) {
      std::vector<double> off(samples);
      for (std::size_t i = 0; i < samples; ++i) off[i] = std::abs(value_of(rows[i], result.coefficients) - 1.0);
      if (!rejects) spread = std::max(kLeastSpread, kDeviationOfMedian * median(off));
      double change = 0.0;
      for (std::size_t i = 0; i < samples; ++i) {
        const double ratio = off[i] / (spread * (rejects ? kTukey : kHuber));
        const double inside = ratio < 1.0 ? 1.0 - ratio * ratio : 0.0;
        const double weight = rejects ? inside * inside : (ratio > 1.0 ? 1.0 / ratio : 1.0);
        change = std::max(change, std::abs(weight - rows[i].weight));
        rows[i].weight = weight;
      }
      if (change < 1e-9) break;
      result.coefficients = non_negative_least_squares(rows, terms);
    }
  }
  for (std::size_t i = 0; i < samples; ++i) result.weights[i] = rows[i].weight;
  return result;
}

std::string list_of(const std::vector<Term>& terms) {
  std::string text;
  for (const Term term : terms) text += (text.empty() ? "" : ", ") + std::string(to_string(term)) + "_s";
  return text;
}

std::optional<NoFit> why_undetermined(const Rows& rows, const std::vector<Term>& terms) {
  constexpr std::size_t kSpare = 2;   // samples beyond the terms, so that an error can show
  constexpr double kLeastOwn = 1e-5;  // 1 % of noise then is 3 of a coefficient, for few samples
  if (rows.size() < terms.size() + kSpare) {
    return NoFit{std::to_string(rows.size()) + " samples for " + std::to_string(terms.size()) + " coefficients (" +
                 list_of(terms) + "): measure at least " + std::to_string(terms.size() + kSpare)};
  }
  const auto own = own_shares(rows, terms.size());
  std::optional<std::size_t> worst;
  // Of equals the last: what a task is packed into and split over is more easily changed than its length.
  for (std::size_t j = 0; j < terms.size(); ++j) {
    if (own[j] < kLeastOwn && (!worst || own[j] <= own[*worst] + kLeastOwn / 10)) worst = j;
  }
  if (!worst) return std::nullopt;
  return NoFit{std::string(to_string(terms[*worst])) + "_s cannot be told from the other coefficients (" +
               list_of(terms) + ") by these " + std::to_string(rows.size()) +
               " samples: " + std::string(advice(terms[*worst]))};
}

}  // namespace

std::string_view to_string(Term term) {
  constexpr std::array<std::string_view, kTerms> kNames = {"task", "patch",         "token",     "pair",
                                                           "step", "sequence_step", "patch_pair"};
  return kNames.at(static_cast<std::size_t>(term));
}

double& TermSeconds::of(Term term) {
  constexpr std::array<double TermSeconds::*, kTerms> kMembers = {
      &TermSeconds::task_s, &TermSeconds::patch_s,         &TermSeconds::token_s,     &TermSeconds::pair_s,
      &TermSeconds::step_s, &TermSeconds::sequence_step_s, &TermSeconds::patch_pair_s};
  return this->*kMembers.at(static_cast<std::size_t>(term));
}

double TermSeconds::of(Term term) const {
  TermSeconds copy = *this;
  return copy.of(term);
}

TermSeconds terms_of(const CostModel& cost) {
  return {.task_s = cost.task_s,
          .patch_s = cost.patch_s,
          .token_s = cost.forward.token_s + cost.backward.token_s,
          .pair_s = cost.forward.pair_s + cost.backward.pair_s,
          .step_s = cost.forward.step_s + cost.backward.step_s,
          .sequence_step_s = cost.forward.sequence_step_s + cost.backward.sequence_step_s,
          .patch_pair_s = cost.patch_pair_s};
}

double estimate_s(const TermSeconds& terms, const Load& load, int degree) {
  double seconds = 0.0;
  const VisionLimit limit = vision_limit(terms, load, degree);
  for (int i = 0; i < kTerms; ++i) {
    const auto term = static_cast<Term>(i);
    seconds += terms.of(term) * feature(term, load, degree, limit);
  }
  return seconds;
}

EstimateError error_of(std::span<const double> estimated_s, std::span<const double> measured_s) {
  if (estimated_s.size() != measured_s.size()) throw std::invalid_argument("error_of: lists of different lengths");
  std::vector<double> errors;
  double sum = 0.0;
  for (std::size_t i = 0; i < measured_s.size(); ++i) {
    errors.push_back(std::abs(estimated_s[i] - measured_s[i]) / measured_s[i]);
    sum += errors.back();
  }
  if (errors.empty()) return {};
  std::sort(errors.begin(), errors.end());
  const auto count = static_cast<double>(errors.size());
  const auto rank = static_cast<std::size_t>(std::ceil(0.95 * count)) - 1;
  return {sum / count, errors[rank], errors.back(), static_cast<int>(errors.size())};
}

EstimateError estimate_error(const TermSeconds& terms, std::span<const TimeSample> samples) {
  std::vector<double> estimated;
  std::vector<double> measured;
  for (const TimeSample& sample : samples) {
    estimated.push_back(estimate_s(terms, sample.load, sample.degree));
    measured.push_back(sample.seconds);
  }
  return error_of(estimated, measured);
}

namespace {

/// The fit were these the limits of vision, whatever its coefficients say.
std::variant<TimeFit, NoFit> fit_within(std::span<const TimeSample> samples, const FitOptions& options,
                                        const Limits& limits) {
  Rows rows = rows_of(samples, options.terms, limits);
  if (options.prior) {
    add_prior(rows, samples, options);
  } else if (auto none = why_undetermined(rows, options.terms)) {
    return *none;
  }
  const Robust robust = fit_robustly(std::move(rows), samples.size(), options.terms.size());
  TimeFit fit;
  for (std::size_t j = 0; j < options.terms.size(); ++j) fit.seconds.of(options.terms[j]) = robust.coefficients[j];
  fit.error = estimate_error(fit.seconds, samples);
  fit.set_aside = static_cast<int>(std::count(robust.weights.begin(), robust.weights.end(), 0.0));
  return fit;
}

}  // namespace

std::variant<TimeFit, NoFit> fit_times(std::span<const TimeSample> samples, const FitOptions& options) {
  // Samples may change sides for ever where two fits each say the other's; the better one by mean error is kept.
  constexpr int kRounds = 16;
  check(samples, options);
  if (options.prior && samples.empty()) return NoFit{"there are no samples"};
  Limits limits = limits_of(samples, {.patch_s = 1.0});  // by numbers of patches, to begin with
  std::optional<TimeFit> best;
  for (int round = 0; round < kRounds; ++round) {
    auto answer = fit_within(samples, options, limits);
    const auto* fit = std::get_if<TimeFit>(&answer);
    if (fit == nullptr) return best ? std::variant<TimeFit, NoFit>(*best) : answer;
    if (!best || fit->error.mean < best->error.mean) best = *fit;
    Limits next = limits_of(samples, fit->seconds);
    if (next == limits) return *fit;
    limits = std::move(next);
  }
  return *best;
}

}  // namespace dhp
