#include "plan/static/mesh.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "plan/planners.h"

namespace dhp::plan {
namespace {

/// Begins of the runs of positions that a group of a mesh must not leave, and the number of positions at the end.
std::vector<int> mesh_runs(const Limits& limits, const PlanOptions& options) {
  std::vector<int> begins = {0};
  for (int position = 1; options.within_node && position < limits.ranks(); ++position) {
    const auto at = static_cast<std::size_t>(position);
    if (limits.cluster().node_of(limits.live()[at]) != limits.cluster().node_of(limits.live()[at - 1])) {
      begins.push_back(position);
    }
  }
  begins.push_back(limits.ranks());
  return begins;
}

/// Why there is no mesh of this one degree, whatever it is to hold; nothing if there is one.
std::optional<Infeasible> find_no_mesh(const Limits& limits, const PlanOptions& options, int degree, bool suits,
                                       const std::string& unsuited) {
  const std::string groups_of = "groups of " + std::to_string(degree);
  const auto because = [&](const std::string& reason) { return Infeasible{.reason = reason, .sequence = {}}; };
  if (!suits) return because(groups_of + " " + unsuited);
  if (degree > limits.ranks()) {
    return because(groups_of + " need as many ranks; " + std::to_string(limits.ranks()) + " are in service");
  }
  if (make_mesh(limits, options, degree).groups() == 0) {
    return because(groups_of + " do not fit the ranks in service of any one node");
  }
  if (!limits.allows(degree)) {
    return because(groups_of + " are not allowed by the limits on degrees and peers");
  }
  return std::nullopt;
}

Infeasible no_mesh_holds(std::int64_t sequence, int narrowest, const Limits& limits, bool refused,
                         const std::string& unsuited) {
  Infeasible none;
  none.sequence = sequence;
  none.needed_ranks = narrowest;
  none.reason = "sequence " + std::to_string(sequence) + " needs groups of " + std::to_string(narrowest) +
                " or more; no degree from there on divides the " + std::to_string(limits.cluster().ranks()) +
                " ranks, is allowed and forms a group of the " + std::to_string(limits.ranks()) + " ranks in service";
  if (refused) none.reason += "; the others " + unsuited;
  return none;
}

}  // namespace

Mesh make_mesh(const Limits& limits, const PlanOptions& options, int degree) {
  Mesh mesh{degree, {}, {}};
  const std::vector<int> begins = mesh_runs(limits, options);
  for (std::size_t run = 0; run + 1 < begins.size(); ++run) {
    for (int first = begins[run]; first + degree <= begins[run + 1]; first += degree) {
      mesh.first.push_back(first);
      mesh.shapes.push_back(limits.consecutive_shape(first, degree));
    }
  }
  return mesh;
}

MeshChoice choose_meshes(const Batch& batch, const Limits& limits, const PlanOptions& options,
                         std::optional<int> argument, const std::function<bool(int degree)>& suits,
                         const std::string& unsuited) {
  MeshChoice choice;
  if (argument) {
    auto answer = find_no_mesh(limits, options, *argument, suits(*argument), unsuited);
    if (!answer) answer = limits.find_infeasible(batch, *argument);
    if (answer) {
      choice.none = std::move(*answer);
    } else {
      choice.meshes.push_back(make_mesh(limits, options, *argument));
    }
    return choice;
  }
  int narrowest = 1;
  std::int64_t longest = batch.sequences.front().id;
  for (const Sequence& sequence : batch.sequences) {
    const int degree = limits.min_degree(sequence);
    if (degree <= narrowest) continue;
    longest = sequence.id;
    narrowest = degree;
  }
  bool refused = false;
  for (const int degree : divisors(limits.cluster().ranks())) {
    if (degree < narrowest || !limits.allows(degree)) continue;
    refused = refused || !suits(degree);
    if (!suits(degree)) continue;
    Mesh mesh = make_mesh(limits, options, degree);
    if (mesh.groups() > 0) choice.meshes.push_back(std::move(mesh));
  }
  if (choice.meshes.empty()) choice.none = no_mesh_holds(longest, narrowest, limits, refused, unsuited);
  return choice;
}

SequenceCheck mesh_check(const Limits& limits, const PlanOptions& options, std::optional<int> argument,
                         const std::function<bool(int degree)>& suits, const std::string& unsuited) {
  if (argument) {
    if (auto answer = find_no_mesh(limits, options, *argument, suits(*argument), unsuited)) {
      return [none = std::move(*answer)](const Sequence&) { return none; };
    }
    return [&limits, degree = *argument](const Sequence& sequence) -> std::optional<Infeasible> {
      if (limits.holds(sequence, degree)) return std::nullopt;
      return limits.why_not(sequence, degree);
    };
  }
  int widest = 0;
  int widest_unsuited = 0;
  for (const int degree : divisors(limits.cluster().ranks())) {
    if (!limits.allows(degree)) continue;
    if (!suits(degree)) {
      widest_unsuited = degree;
    } else if (make_mesh(limits, options, degree).groups() > 0) {
      widest = degree;
    }
  }
  return [=, &limits](const Sequence& sequence) -> std::optional<Infeasible> {
    const int degree = limits.min_degree(sequence);
    if (degree <= widest) return std::nullopt;
    return no_mesh_holds(sequence.id, degree, limits, degree <= widest_unsuited, unsuited);
  };
}

bool pack_holds(const Limits& limits, const Load& load, int degree, double share) {
  return task_memory_bytes(limits.cost(), load, degree) <= share * limits.budget_bytes() &&
         load.tokens <= share * limits.tokens_per_rank() * degree;
}

Packs pack_next_fit(const Batch& batch, const Limits& limits, int degree, double share) {
  Packs result;
  result.order.resize(batch.sequences.size());
  std::iota(result.order.begin(), result.order.end(), 0);
  std::vector<Pack>& packs = result.packs;
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    Load joined = packs.empty() ? Load{} : packs.back().load;
    joined.add(batch.sequences[i]);
    if (packs.empty() || !pack_holds(limits, joined, degree, share)) {
      joined = {};
      joined.add(batch.sequences[i]);
      packs.push_back({joined, i, i});
    }
    packs.back().load = joined;
    packs.back().end = i + 1;
  }
  return result;
}

Task mesh_task(const Batch& batch, const Limits& limits, const Mesh& mesh, const Packs& packs, std::size_t pack,
               std::size_t group, Exchange exchange) {
  Task task;
  task.ranks = limits.consecutive_ranks(mesh.first[group], mesh.degree);
  task.exchange = exchange;
  const Pack& members = packs.packs[pack];
  for (std::size_t k = members.begin; k < members.end; ++k) {
    task.sequences.push_back(batch.sequences[static_cast<std::size_t>(packs.order[k])].id);
  }
  return task;
}

}  // namespace dhp::plan
