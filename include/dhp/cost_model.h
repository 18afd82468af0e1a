#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dhp/batch.h"
#include "dhp/cluster.h"
#include "dhp/error_sizes.h"

namespace dhp {

/// Coefficients of one pass (forward or backward), summed over layers.
struct PassCost {
  double token_s = 0.0;          ///< linear work per token
  double pair_s = 0.0;           ///< attention work per (query, key) pair; a causal sequence of s tokens has s*s/2
  double step_s = 0.0;           ///< fixed cost of one attention step
  double sequence_step_s = 0.0;  ///< fixed cost per sequence of one attention step
  double ring_bytes_per_token = 0.0;
  double all_to_all_bytes_per_token = 0.0;  ///< needed only by Exchange::all_to_all

  bool operator==(const PassCost&) const = default;
};

/// What groups of one size compute in, over what the coefficients say: a correction of what repeats, learned from
/// tasks. On one rank there is none.
struct ResidualFactor {
  int degree = 2;
  std::int64_t tokens = 1;  ///< of the longest sequence at least, and fewer than twice that: a power of two
  double factor = 1.0;

  bool operator==(const ResidualFactor&) const = default;
};

/// Largest factor accepted; the least is 1 over it.
inline constexpr double kMostResidualFactor = 4.0;

/// The cost of a model on a device; see docs/design.md, "Task time".
struct CostModel {
  std::string name = {};
  int layers = 0;
  double task_s = 0.0;   ///< fixed cost of a task
  double patch_s = 0.0;  ///< vision forward and backward per patch
  /// The same per pair of patches of a picture or frame, in addition: attention that sees all of it.
  double patch_pair_s = 0.0;
  PassCost forward = {};
  PassCost backward = {};
  int query_heads = 0;
  int kv_heads = 0;
  double token_bytes = 0.0;  ///< activations per token
  double patch_bytes = 0.0;  ///< activations per patch
  double state_bytes = 0.0;  ///< parameters, gradients, optimizer shard and reserve of one rank

  // The end of a step. Planners ignore it, simulate() uses it.
  double gradient_bytes = 0.0;  ///< gradients of one rank, summed over all ranks once per step
  double optimizer_s = 0.0;     ///< time of the optimizer step of one rank

  /// How far task times differ from these estimates, where it is known. Planners that allow for it take it as default.
  std::optional<ErrorSizes> expected_error = {};

  /// By degree and tokens, ascending. What is not in it has the factor 1.
  std::vector<ResidualFactor> residuals = {};

  bool operator==(const CostModel&) const = default;
};

/// How far task times differ from the estimates of this cost: what it says, else ErrorSizes{}.
inline ErrorSizes expected_errors(const CostModel& cost) { return cost.expected_error.value_or(ErrorSizes{}); }

/// Throws InputError naming `source` and the field unless every number is from 0 to far beyond any device (1e6 seconds,
/// 1e18 bytes), so that sums over any batch are finite.
void validate(const CostModel& cost, const std::string& source);

/// Reads `dhp.cost/1` JSON. Throws InputError. An overload in analytic_cost.h also takes "MODEL@DEVICE".
CostModel read_cost_model(const std::string& file);
/// Parses `dhp.cost/1` JSON; `source` names it in errors. Throws InputError, also for what validate() refuses.
CostModel parse_cost_model(std::string_view text, const std::string& source);
/// The cost as JSON; parse_cost_model() reads it back as the same cost.
std::string to_json(const CostModel& cost);

/// How the shards of a task travel between its ranks.
enum class Exchange { ring, direct, hierarchical, all_to_all };
std::string_view to_string(Exchange exchange);
/// Throws InputError naming `source` and `location` for an unknown name.
Exchange parse_exchange(std::string_view name, const std::string& source, const std::string& location);

/// The properties of a task's sequences that task time depends on. All sums are exact below 2^53.
struct Load {
  int sequences = 0;
  double tokens = 0.0;          ///< sum of lengths
  double tokens_squared = 0.0;  ///< sum of squared lengths
  double patches = 0.0;
  double patch_pairs = 0.0;     ///< sum of patches times frame_patches
  double largest_frame = 0.0;   ///< largest frame_patches
  double largest_frames = 0.0;  ///< how many frames are so large
  double frames = 0.0;          ///< patches / frame_patches of each sequence, rounded up
  double longest = 0.0;         ///< longest sequence

  void add(const Sequence& sequence);
};
/// The load of valid sequences (validate() of their batch); the sums do not depend on their order.
Load load_of(std::span<const Sequence> sequences);

/// Vision time of a load: `work_s` of rank time in frames, each of which stays on one rank.
struct VisionSeconds {
  double work_s = 0.0;
  double frame_s = 0.0;         ///< of the largest frame
  double largest_frames = 0.0;  ///< how many take that long
  double frames = 0.0;          ///< all of them; 0 where nothing is known of their sizes

  /// The fullest of `degree` shares at nominal speed, as a sum of so much of work_s and so much of frame_s.
  struct Share {
    double work = 0.0;
    double frame = 0.0;
  };
  Share fullest_share(double degree) const;
  /// Seconds of the fullest of `degree` shares at nominal speed; docs/design.md, "Task time".
  double on(double degree) const;
};
/// At nominal speed.
VisionSeconds vision_seconds(const CostModel& cost, const Load& load);

/// The factor of `cost.residuals` for a group whose longest sequence has so many tokens.
double residual_factor(const CostModel& cost, int degree, double longest_tokens);
/// The least factor that any group may have: at most 1.
double least_residual_factor(const CostModel& cost);

/// The properties of a task's ranks that task time depends on.
struct GroupShape {
  int degree = 1;
  int nodes = 1;  ///< nodes touched
  int most_on_node = 1;
  int fewest_on_node = 1;
  double speed = 1.0;  ///< of its slowest rank: shards are equal, so the group is no faster
};
/// The shape of distinct ranks of a valid cluster, in any order. Throws std::invalid_argument if there are none, or if
/// one is outside the cluster.
GroupShape shape_of(const Cluster& cluster, std::span<const Rank> ranks);
/// The shape of `degree` consecutive ranks beginning with rank `first`. Throws std::invalid_argument if they are not
/// all in the cluster.
GroupShape consecutive_shape(const Cluster& cluster, Rank first, int degree);

/// Seconds a task takes, forward and backward: compute time is divided by the speed of the group and multiplied by its
/// residual factor, transfer time is not.
/// Infinite if a rank is out of service. For all_to_all the head counts must be known (else InputError).
double task_seconds(const CostModel& cost, const Cluster& cluster, const Load& load, const GroupShape& shape,
                    Exchange exchange);

/// Seconds that a sequence takes alone on one rank at nominal speed.
double alone_seconds(const CostModel& cost, const Cluster& cluster, const Sequence& sequence);

/// Activation bytes a rank holds in a task of this load and degree.
double task_memory_bytes(const CostModel& cost, const Load& load, int degree);

/// Whether memory is counted in tokens instead of bytes: one byte per token, and nothing else counts. This is what a
/// capacity in tokens does to a cost; messages then speak of tokens.
bool counts_tokens(const CostModel& cost);

/// Bytes a rank can give to activations: memory_bytes - state_bytes (may be negative).
double activation_budget_bytes(const CostModel& cost, const Cluster& cluster);

/// The smallest degree at which the sequence alone fits; 0 if the budget is not positive. May exceed the cluster.
int min_degree(const CostModel& cost, const Cluster& cluster, const Sequence& sequence);

/// max(area, longest) in seconds, which no plan beats. 0 for an empty batch. Meaningful only for a batch that can be
/// planned. Not valid for Exchange::all_to_all.
double simple_lower_bound_s(const Batch& batch, const Cluster& cluster, const CostModel& cost);

}  // namespace dhp
