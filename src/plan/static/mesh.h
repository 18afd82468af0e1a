#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "dhp/planner.h"
#include "plan/limits.h"
#include "plan/planners.h"

namespace dhp::plan {

// What the planners with one degree for all share: the mesh of groups, the packs that groups run, and the answer where
// no such mesh holds the batch.

/// Groups of `degree` consecutive ranks in service, as many as there is room for; the ranks left over idle. Groups stay
/// inside nodes where the options say so. A group always meets the same ranks, so a limit on peers only limits
/// `degree`.
struct Mesh {
  int degree = 1;
  std::vector<int> first;          ///< position in Limits::live(), one a group
  std::vector<GroupShape> shapes;  ///< one a group

  std::size_t groups() const { return first.size(); }
};
Mesh make_mesh(const Limits& limits, const PlanOptions& options, int degree);

/// The meshes worth trying, narrowest first: of the degree `argument`, else of every divisor of the cluster's ranks.
/// Each has a group, a degree that the limits allow, and holds every sequence. Where there is none, an answer says why.
/// `suits` may refuse degrees for the reason `unsuited`.
struct MeshChoice {
  std::vector<Mesh> meshes;
  Infeasible none;  ///< meaningful without meshes
};
MeshChoice choose_meshes(const Batch& batch, const Limits& limits, const PlanOptions& options,
                         std::optional<int> argument, const std::function<bool(int degree)>& suits,
                         const std::string& unsuited);

/// The same choice for sequences alone, one after the other. The limits must outlive it.
SequenceCheck mesh_check(const Limits& limits, const PlanOptions& options, std::optional<int> argument,
                         const std::function<bool(int degree)>& suits, const std::string& unsuited);

/// Pack sizes that are tried, as shares of what a group's memory holds.
inline constexpr double kPackShares[] = {1.0, 1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16};

/// Sequences that run together: order[begin] to order[end - 1] of its Packing.
struct Pack {
  Load load;
  std::size_t begin = 0;
  std::size_t end = 0;
};
struct Packs {
  std::vector<std::int32_t> order;  ///< positions in the batch
  std::vector<Pack> packs;
};

/// Whether a pack of this load is within `share` of what a group holds.
bool pack_holds(const Limits& limits, const Load& load, int degree, double share);

/// Next-fit in order of arrival. A sequence beyond the pack size gets a pack of its own.
Packs pack_next_fit(const Batch& batch, const Limits& limits, int degree, double share);

/// A pack on a group of the mesh, as a task without id.
Task mesh_task(const Batch& batch, const Limits& limits, const Mesh& mesh, const Packs& packs, std::size_t pack,
               std::size_t group, Exchange exchange);

}  // namespace dhp::plan
