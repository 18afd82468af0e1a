#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dhp/cost_model.h"

namespace dhp {

/// Measured seconds -> the coefficients of a cost model.
///
///     const std::vector<TimeSample> samples = ...;           // backward of the language layers, say
///     const auto result = fit_times(samples, {.terms = {Term::task, Term::token, Term::pair}});
///     if (const auto* fit = std::get_if<TimeFit>(&result)) cost.backward.token_s += fit->seconds.token_s;
///
/// Compute time of one pass (or of both) of a task, transfers apart; docs/design.md, "Task time":
///
///     seconds = task_s + vision + token_s S1/d + pair_s S2/(2d) + d (step_s + n sequence_step_s)
///     vision  = max((patch_s V + patch_pair_s sum v u)/d, patch_s u_max + patch_pair_s u_max^2)
///
/// It is linear in its coefficients but for the choice between an even share of vision and the largest frame.

/// The terms of that sum, by the name of their coefficient.
enum class Term { task, patch, token, pair, step, sequence_step, patch_pair };
inline constexpr int kTerms = 7;
std::string_view to_string(Term term);

struct TermSeconds {
  double task_s = 0.0;
  double patch_s = 0.0;
  double token_s = 0.0;
  double pair_s = 0.0;
  double step_s = 0.0;
  double sequence_step_s = 0.0;
  double patch_pair_s = 0.0;

  double& of(Term term);
  double of(Term term) const;
  bool operator==(const TermSeconds&) const = default;
};

/// Both passes of a cost model together.
TermSeconds terms_of(const CostModel& cost);

/// One measurement: a load on a group of `degree` ranks took this long.
struct TimeSample {
  Load load = {};
  int degree = 1;
  double seconds = 0.0;
};

double estimate_s(const TermSeconds& terms, const Load& load, int degree);

/// |estimate - measured| / measured over samples: mean, 95th percentile (nearest rank), worst. All 0 without samples.
struct EstimateError {
  double mean = 0.0;
  double p95 = 0.0;
  double worst = 0.0;
  int samples = 0;
};
EstimateError error_of(std::span<const double> estimated_s, std::span<const double> measured_s);
EstimateError estimate_error(const TermSeconds& terms, std::span<const TimeSample> samples);

struct FitOptions {
  std::vector<Term> terms = {};  ///< to fit; the others are 0
  /// Believed before: stands in where samples do not tell terms apart, scaled by the median of measured over believed
  /// first. Counts as much as `prior_weight` samples. Without it such samples give no fit.
  std::optional<TermSeconds> prior = {};
  double prior_weight = 1e-3;
};

struct TimeFit {
  TermSeconds seconds = {};  ///< all >= 0
  EstimateError error = {};  ///< on the samples of the fit
  int set_aside = 0;         ///< samples so far off that they count nothing
};

/// The samples do not determine the terms.
struct NoFit {
  std::string reason;  ///< a sentence: what cannot be told from what, and what to measure
};

/// Fits the terms to the samples: least squares of *relative* residuals, so that short tasks count as much as long
/// ones, coefficients >= 0 (all sets of terms that are not zero are tried: the best one is exact), and robust: samples
/// that are far off by the spread of the others count less (Huber), then nothing (Tukey's biweight). Which samples last
/// as long as their largest frame follows from the coefficients: fitted again, as often as some change sides.
///
/// A pure function of the samples and their order: the same on every rank. Throws std::invalid_argument for samples
/// that are not positive and finite, degrees below 1, or terms that repeat or are none.
std::variant<TimeFit, NoFit> fit_times(std::span<const TimeSample> samples, const FitOptions& options);

}  // namespace dhp
