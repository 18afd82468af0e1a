#include "plan/search/candidates.h"

#include <algorithm>

namespace dhp::plan {

Batch by_id(const Batch& batch) {
  Batch sorted = batch;
  const auto less = [](const Sequence& a, const Sequence& b) { return a.id < b.id; };
  if (!std::is_sorted(sorted.sequences.begin(), sorted.sequences.end(), less)) {
    std::sort(sorted.sequences.begin(), sorted.sequences.end(), less);
  }
  return sorted;
}

ErrorSizes errors_of(const PlanOptions& options, const Limits& limits) {
  return options.expect_error.value_or(expected_errors(limits.cost()));
}

Candidates::Candidates(const Batch& batch, const Limits& limits, const PlanOptions& options)
    : batch_(batch), limits_(limits), most_loss_(options.most_loss) {
  constexpr double kLarge = 0.05;
  const ErrorSizes errors = errors_of(options, limits);
  const bool are_large = std::max({errors.sequence, errors.task, errors.rank}) > kLarge;
  const std::size_t sets = are_large ? 4 : errors.any() ? 1 : 0;
  for (std::size_t i = 0; i < sets; ++i) {
    scenarios_.emplace_back(errors, batch, limits.cluster(), limits.cost(), i * (Scenarios::kRows / sets));
  }
}

void Candidates::offer(std::optional<Plan>&& plan) {
  if (!plan) return;
  const std::vector<double> task_s = predict_task_seconds(*plan, batch_, limits_.cluster(), limits_.cost());
  Candidate made;
  made.makespan_s = made.expected_s = replay(*plan, task_s).makespan_s;
  made.plan = std::move(*plan);
  least_s_ = candidates_.empty() ? made.makespan_s : std::min(least_s_, made.makespan_s);
  if (made.makespan_s > longest_s()) return;
  if (has_errors()) made.expected_s = 0.0;
  for (const Scenarios& set : scenarios_) {
    made.expected_s += set.expected_s(made.plan, task_s, made.makespan_s) / static_cast<double>(scenarios_.size());
  }
  candidates_.push_back(std::move(made));
}

Candidates::Candidate& Candidates::best() {
  Candidate* best = nullptr;
  for (Candidate& candidate : candidates_) {
    if (candidate.makespan_s > longest_s()) continue;
    if (best == nullptr || candidate.expected_s < best->expected_s * (1.0 - kRounding)) best = &candidate;
  }
  return *best;
}

}  // namespace dhp::plan
