#pragma once

#include <optional>
#include <vector>

#include "plan/limits.h"
#include "plan/scenarios.h"

namespace dhp::plan {

inline constexpr double kRounding = 1e-9;  // of seconds: no gain

/// A copy sorted by id, for planners that must not depend on the order of the batch.
Batch by_id(const Batch& batch);

/// The errors to plan for.
ErrorSizes errors_of(const PlanOptions& options, const Limits& limits);

/// Plans by their makespan, exact and expected.
class Candidates {
 public:
  struct Candidate {
    Plan plan;
    double makespan_s = 0.0;
    double expected_s = 0.0;
  };

  /// The batch, sorted by id, and the limits must outlive it.
  Candidates(const Batch& batch, const Limits& limits, const PlanOptions& options);

  void offer(std::optional<Plan>&& plan);
  /// Of those that are short enough, the one of the least expected makespan; the first of equals. There must be one.
  Candidate& best();
  /// Those that were short enough when they were offered, in that order.
  const std::vector<Candidate>& all() const { return candidates_; }

  double least_s() const { return least_s_; }
  /// The longest makespan that is still taken.
  double longest_s() const { return least_s_ * (1.0 + most_loss_) * (1.0 + kRounding); }
  bool has_errors() const { return !scenarios_.empty(); }
  /// Whether errors are so large that more plans and scenarios are worth their time.
  bool has_large_errors() const { return scenarios_.size() > 1; }

 private:
  const Batch& batch_;
  const Limits& limits_;
  double most_loss_;
  std::vector<Scenarios> scenarios_;
  std::vector<Candidate> candidates_;
  double least_s_ = 0.0;
};

}  // namespace dhp::plan
