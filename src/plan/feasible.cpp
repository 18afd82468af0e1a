#include "plan/feasible.h"

#include <array>
#include <cstdio>
#include <utility>

namespace dhp {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

std::string gib(double bytes, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f GiB", digits, bytes / kGiB);
  return text.data();
}

/// Two amounts with as many digits as it takes to tell them apart, one at least.
std::pair<std::string, std::string> gib_apart(double a, double b) {
  constexpr int kMostDigits = 9;  // bytes
  int digits = 1;
  while (digits < kMostDigits && gib(a, digits) == gib(b, digits)) ++digits;
  return {gib(a, digits), gib(b, digits)};
}

Infeasible no_room(const Cluster& cluster, const CostModel& cost) {
  const auto [state, memory] = gib_apart(cost.state_bytes, cluster.memory_bytes);
  Infeasible answer;
  answer.reason = "the model's state (parameters, gradients, optimizer, reserve) needs " + state +
                  " a rank; a rank has " + memory + ", which leaves nothing for activations";
  answer.needed_bytes = cost.state_bytes;
  answer.offered_bytes = cluster.memory_bytes;
  return answer;
}

std::string ranks_text(int ranks) { return std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks"); }

}  // namespace

std::optional<Infeasible> find_infeasible(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                          int widest) {
  if (batch.sequences.empty()) return std::nullopt;
  const double budget_bytes = activation_budget_bytes(cost, cluster);
  if (budget_bytes <= 0.0) return no_room(cluster, cost);

  const Sequence* worst = nullptr;
  double worst_bytes = 0.0;
  for (const Sequence& sequence : batch.sequences) {
    if (min_degree(cost, cluster, sequence) <= widest) continue;
    const double bytes = task_memory_bytes(cost, load_of(std::span(&sequence, 1)), 1);
    if (worst != nullptr && (bytes < worst_bytes || (bytes == worst_bytes && sequence.id > worst->id))) continue;
    worst = &sequence;
    worst_bytes = bytes;
  }
  if (worst == nullptr) return std::nullopt;

  Infeasible answer;
  answer.sequence = worst->id;
  answer.needed_bytes = worst_bytes;
  answer.offered_bytes = widest * budget_bytes;
  answer.needed_ranks = min_degree(cost, cluster, *worst);
  const auto [needed, offered] = gib_apart(answer.needed_bytes, answer.offered_bytes);
  answer.reason = "sequence " + std::to_string(worst->id) + " needs " + needed + "; " + ranks_text(widest) +
                  (widest == 1 ? " offers " : " offer ") + offered + " (the smallest degree that holds it is " +
                  std::to_string(answer.needed_ranks) + ")";
  return answer;
}

}  // namespace dhp
