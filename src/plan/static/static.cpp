#include <algorithm>
#include <functional>
#include <string>

#include "base/number_limits.h"
#include "plan/planners.h"
#include "plan/static/mesh.h"

namespace dhp::plan {
namespace {

using ExchangeOf = std::function<Exchange(const GroupShape& shape)>;

/// Packs go to the groups in turn; a group runs its packs one after the other.
double makespan(const std::vector<Pack>& packs, const Limits& limits, const Mesh& mesh, const ExchangeOf& exchange_of) {
  std::vector<Exchange> exchanges;
  for (const GroupShape& shape : mesh.shapes) exchanges.push_back(exchange_of(shape));
  std::vector<double> busy_s(mesh.groups(), 0.0);
  for (std::size_t i = 0; i < packs.size(); ++i) {
    const std::size_t group = i % busy_s.size();
    busy_s[group] += task_seconds(limits.cost(), limits.cluster(), packs[i].load, mesh.shapes[group], exchanges[group]);
  }
  return *std::max_element(busy_s.begin(), busy_s.end());
}

/// A mesh, and packs dealt to its groups in turn.
struct Dealt {
  const Mesh* mesh = nullptr;
  Packs packs;
  double seconds = kInfinity;
};

Plan to_plan(const Dealt& dealt, const Batch& batch, const Limits& limits, const ExchangeOf& exchange_of,
             const std::string& name) {
  Plan plan;
  plan.schedule = Schedule::free;
  plan.planner = name + ":" + std::to_string(dealt.mesh->degree);
  for (std::size_t i = 0; i < dealt.packs.packs.size(); ++i) {
    const std::size_t group = i % dealt.mesh->groups();
    const Exchange exchange = exchange_of(dealt.mesh->shapes[group]);
    plan.tasks.push_back(mesh_task(batch, limits, *dealt.mesh, dealt.packs, i, group, exchange));
    plan.tasks.back().id = static_cast<int>(i);
  }
  return plan;
}

/// The best mesh and pack size by prediction.
Plan deal_in_turn(const Batch& batch, const Limits& limits, const std::vector<Mesh>& meshes,
                  const ExchangeOf& exchange_of, const std::string& name) {
  Dealt best;
  for (const Mesh& mesh : meshes) {
    for (const double share : kPackShares) {
      Packs candidate = pack_next_fit(batch, limits, mesh.degree, share);
      const double seconds = makespan(candidate.packs, limits, mesh, exchange_of);
      if (best.mesh != nullptr && seconds >= best.seconds) continue;
      best = {&mesh, std::move(candidate), seconds};
    }
  }
  return to_plan(best, batch, limits, exchange_of, name);
}

/// What the least time of a dealing follows from.
struct Totals {
  double work_s = 0.0;           ///< rank time on single ranks, fixed costs apart
  double sequence_step_s = 0.0;  ///< of one attention step of all sequences
  std::vector<double> needs;     ///< memory in budgets of a rank
};

Totals totals_of(const Batch& batch, const Limits& limits) {
  const CostModel& cost = limits.cost();
  Totals totals;
  totals.needs.reserve(batch.sequences.size());
  for (const Sequence& sequence : batch.sequences) {
    const Load load = load_of(std::span(&sequence, 1));
    totals.needs.push_back(task_memory_bytes(cost, load, 1) / limits.budget_bytes());
    totals.work_s += vision_seconds(cost, load).work_s;
    for (const PassCost* pass : {&cost.forward, &cost.backward}) {
      totals.work_s += pass->token_s * load.tokens + pass->pair_s * load.tokens_squared / 2;
      totals.sequence_step_s += pass->sequence_step_s;
    }
  }
  return totals;
}

/// No dealing of packs of this size takes less: all rank time over all ranks of the mesh. Grows as packs get smaller.
double least_seconds(const Totals& totals, const Limits& limits, const Mesh& mesh, double share) {
  const CostModel& cost = limits.cost();
  const double degree = mesh.degree;
  double packs = 0.0;
  for (const double need : totals.needs) packs += std::min(need / (degree * share), 1.0);
  const double pack_s = degree * (cost.task_s + degree * (cost.forward.step_s + cost.backward.step_s));
  const double all_s = totals.work_s + degree * degree * totals.sequence_step_s + packs * pack_s;
  return least_residual_factor(cost) * all_s / (degree * static_cast<double>(mesh.groups()));
}

/// Seconds of the first group alone.
double first_group_s(const std::vector<Pack>& packs, const Limits& limits, const Mesh& mesh) {
  double seconds = 0.0;
  for (std::size_t i = 0; i < packs.size(); i += mesh.groups()) {
    seconds += task_seconds(limits.cost(), limits.cluster(), packs[i].load, mesh.shapes[0],
                            limits.exchange_for(mesh.shapes[0]));
  }
  return seconds;
}

/// Degrees that can exchange by all_to_all, and what the others lack.
struct Suited {
  std::function<bool(int degree)> suits;
  std::string unsuited;
};
Suited suited_to_all_to_all(const Limits& limits, const PlanOptions& options) {
  // A cost model without what all_to_all needs is bad input, whichever degree wins: task time says so.
  task_seconds(limits.cost(), limits.cluster(), Load{}, GroupShape{}, Exchange::all_to_all);
  const int heads = limits.cost().query_heads;
  const bool other_exchanges = !options.exchanges.empty();
  return {[=](int degree) { return degree == 1 || (heads % degree == 0 && !other_exchanges); },
          other_exchanges ? "need the exchange all_to_all, which is not among those allowed"
                          : "do not divide the model's " + std::to_string(heads) + " query heads, as all_to_all needs"};
}

}  // namespace

PlanResult plan_static(const Batch& batch, const Limits& limits, const PlanOptions& options,
                       std::optional<int> argument) {
  MeshChoice choice = choose_meshes(
      batch, limits, options, argument, [](int) { return true; }, "");
  if (choice.meshes.empty()) return std::move(choice.none);
  const auto exchange_of = [&](const GroupShape& shape) { return limits.exchange_for(shape); };
  return deal_in_turn(batch, limits, choice.meshes, exchange_of, "static");
}

std::optional<Plan> static_plan_below(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                      double limit_s) {
  int widest = limits.widest();
  for (const Sequence& sequence : batch.sequences) {
    widest = std::min(widest, limits.max_degree(sequence, limits.min_degree(sequence)));
  }
  const MeshChoice choice = choose_meshes(
      batch, limits, options, {}, [&](int degree) { return degree <= widest; }, "");
  const auto exchange_of = [&](const GroupShape& shape) { return limits.exchange_for(shape); };
  const Totals totals = totals_of(batch, limits);
  Dealt best;
  best.seconds = limit_s;
  for (const Mesh& mesh : choice.meshes) {
    for (const double share : kPackShares) {
      if (least_seconds(totals, limits, mesh, share) >= best.seconds) break;
      Packs candidate = pack_next_fit(batch, limits, mesh.degree, share);
      if (first_group_s(candidate.packs, limits, mesh) >= best.seconds) continue;
      const double seconds = makespan(candidate.packs, limits, mesh, exchange_of);
      if (seconds < best.seconds) best = {&mesh, std::move(candidate), seconds};
    }
  }
  if (best.mesh == nullptr) return std::nullopt;
  Plan plan = to_plan(best, batch, limits, exchange_of, "static");
  plan.ranks = limits.cluster().ranks();
  return plan;
}

PlanResult plan_ulysses(const Batch& batch, const Limits& limits, const PlanOptions& options,
                        std::optional<int> argument) {
  const Suited suited = suited_to_all_to_all(limits, options);
  MeshChoice choice = choose_meshes(batch, limits, options, argument, suited.suits, suited.unsuited);
  if (choice.meshes.empty()) return std::move(choice.none);
  // A single rank exchanges nothing; naming its exchange ring keeps the lower bound, which does not exist for
  // all_to_all.
  const auto exchange_of = [](const GroupShape& shape) {
    return shape.degree == 1 ? Exchange::ring : Exchange::all_to_all;
  };
  return deal_in_turn(batch, limits, choice.meshes, exchange_of, "ulysses");
}

SequenceCheck check_for_static(const Limits& limits, const PlanOptions& options, std::optional<int> argument) {
  return mesh_check(
      limits, options, argument, [](int) { return true; }, "");
}

SequenceCheck check_for_ulysses(const Limits& limits, const PlanOptions& options, std::optional<int> argument) {
  const Suited suited = suited_to_all_to_all(limits, options);
  return mesh_check(limits, options, argument, suited.suits, suited.unsuited);
}

}  // namespace dhp::plan
