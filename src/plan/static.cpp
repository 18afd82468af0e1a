#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "plan/mesh.h"
#include "plan/planners.h"

namespace dhp {
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

/// The best mesh and pack size by prediction.
Plan deal_in_turn(const Batch& batch, const Limits& limits, const std::vector<Mesh>& meshes,
                  const ExchangeOf& exchange_of, const std::string& name) {
  const Mesh* best_mesh = nullptr;
  Packs best;
  double best_s = std::numeric_limits<double>::infinity();
  for (const Mesh& mesh : meshes) {
    for (const double share : kPackShares) {
      Packs candidate = pack_next_fit(batch, limits, mesh.degree, share);
      const double seconds = makespan(candidate.packs, limits, mesh, exchange_of);
      if (best_mesh != nullptr && seconds >= best_s) continue;
      best_mesh = &mesh;
      best = std::move(candidate);
      best_s = seconds;
    }
  }
  Plan plan;
  plan.schedule = Schedule::free;
  plan.planner = name + ":" + std::to_string(best_mesh->degree);
  for (std::size_t i = 0; i < best.packs.size(); ++i) {
    const std::size_t group = i % best_mesh->groups();
    plan.tasks.push_back(mesh_task(batch, limits, *best_mesh, best, i, group, exchange_of(best_mesh->shapes[group])));
    plan.tasks.back().id = static_cast<int>(i);
  }
  return plan;
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

PlanResult plan_ulysses(const Batch& batch, const Limits& limits, const PlanOptions& options,
                        std::optional<int> argument) {
  // A cost model without what all_to_all needs is bad input, whichever degree wins: task time says so.
  task_seconds(limits.cost(), limits.cluster(), Load{}, GroupShape{}, Exchange::all_to_all);
  const int heads = limits.cost().query_heads;
  const bool other_exchanges = !options.exchanges.empty();
  const auto suits = [&](int degree) { return degree == 1 || (heads % degree == 0 && !other_exchanges); };
  const std::string unsuited =
      other_exchanges ? "need the exchange all_to_all, which is not among those allowed"
                      : "do not divide the model's " + std::to_string(heads) + " query heads, as all_to_all needs";
  MeshChoice choice = choose_meshes(batch, limits, options, argument, suits, unsuited);
  if (choice.meshes.empty()) return std::move(choice.none);
  // A single rank exchanges nothing; naming its exchange ring keeps the lower bound, which all_to_all has not.
  const auto exchange_of = [](const GroupShape& shape) {
    return shape.degree == 1 ? Exchange::ring : Exchange::all_to_all;
  };
  return deal_in_turn(batch, limits, choice.meshes, exchange_of, "ulysses");
}

}  // namespace dhp
