#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/analytic_cost.h"
#include "dhp/cluster.h"
#include "dhp/cost_model.h"
#include "dhp/error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

/// Numbers of ranks come from Python as they are.
void require_rank(const Cluster& cluster, Rank rank) {
  validate(cluster, "cluster");
  if (rank >= 0 && rank < cluster.ranks()) return;
  throw InputError("rank", "",
                   "found " + std::to_string(rank) + ", expected 0 to " + std::to_string(cluster.ranks() - 1));
}

void bind_link(nb::module_& module) {
  ValueClass<Link>(module, "Link",
                   "One kind of link between ranks: bytes per second in one direction, seconds per message.")
      .def(
          "__init__",
          [](Link* self, double bandwidth_bytes_per_s, double latency_s, int links) {
            new (self) Link{bandwidth_bytes_per_s, latency_s, links};
          },
          "bandwidth_bytes_per_s"_a, "latency_s"_a, "links"_a = 1)
      .def_rw("bandwidth_bytes_per_s", &Link::bandwidth_bytes_per_s, "of one link, one direction")
      .def_rw("latency_s", &Link::latency_s)
      .def_rw("links", &Link::links, "links of a rank that carry different peers' traffic at once");
}

void bind_cluster_type(nb::module_& module) {
  ValueClass<Cluster>(
      module, "Cluster",
      "nodes * ranks_per_node ranks, numbered node by node, and what connects them. What takes one validates it, and\n"
      "raises InputError.")
      .def(
          "__init__",
          [](Cluster* self, int nodes, int ranks_per_node, double memory_bytes, const Link& intra_node,
             const Link& inter_node, std::vector<double> rank_speed, double node_bandwidth_bytes_per_s,
             double switch_bandwidth_bytes_per_s) {
            new (self) Cluster{nodes,
                               ranks_per_node,
                               memory_bytes,
                               intra_node,
                               inter_node,
                               std::move(rank_speed),
                               node_bandwidth_bytes_per_s,
                               switch_bandwidth_bytes_per_s};
          },
          "nodes"_a, "ranks_per_node"_a, "memory_bytes"_a, "intra_node"_a, "inter_node"_a,
          "rank_speed"_a = std::vector<double>{}, "node_bandwidth_bytes_per_s"_a = 0.0,
          "switch_bandwidth_bytes_per_s"_a = 0.0)
      .def_rw("nodes", &Cluster::nodes)
      .def_rw("ranks_per_node", &Cluster::ranks_per_node)
      .def_rw("memory_bytes", &Cluster::memory_bytes, "of one rank")
      .def_rw("intra_node", &Cluster::intra_node)
      .def_rw("inter_node", &Cluster::inter_node, "bandwidth is per rank")
      .def_rw("rank_speed", &Cluster::rank_speed,
              "speed of each rank relative to the cost model; 0: out of service; empty: all 1")
      .def_rw("node_bandwidth_bytes_per_s", &Cluster::node_bandwidth_bytes_per_s,
              "most that the ranks of a node together can send to other nodes, and receive; 0: no limit of its own")
      .def_rw("switch_bandwidth_bytes_per_s", &Cluster::switch_bandwidth_bytes_per_s,
              "most that all nodes together can send to each other; 0: no limit")
      .def(
          "speed_of",
          [](const Cluster& cluster, Rank rank) {
            require_rank(cluster, rank);
            return cluster.speed_of(rank);
          },
          "rank"_a, "Speed of a rank relative to the cost model. Raises InputError for a wrong rank.")
      .def_prop_ro(
          "live_ranks",
          [](const Cluster& cluster) {
            validate(cluster, "cluster");
            return cluster.live_ranks();
          },
          "Ranks in service, ascending.")
      .def_prop_ro("ranks", &Cluster::ranks, "Number of ranks, in service or not.")
      .def(
          "node_of",
          [](const Cluster& cluster, Rank rank) {
            require_rank(cluster, rank);
            return cluster.node_of(rank);
          },
          "rank"_a, "The node of a rank, from 0. Raises InputError for a wrong rank.");

  module.def("read_cluster", &read_cluster, "file"_a, "Reads dhp.cluster/1 JSON. Raises InputError.");
  module.def("parse_cluster", &parse_cluster, "text"_a, "source"_a,
             "Parses dhp.cluster/1 JSON; `source` names the text in errors. Raises InputError.");
  module.def("to_json", nb::overload_cast<const Cluster&>(&to_json), "cluster"_a, "As dhp.cluster/1 JSON.");
}

void bind_pass_cost(nb::module_& module) {
  ValueClass<PassCost>(module, "PassCost", "Coefficients of one pass (forward or backward), summed over layers.")
      .def(
          "__init__",
          [](PassCost* self, double token_s, double pair_s, double step_s, double sequence_step_s,
             double ring_bytes_per_token, double all_to_all_bytes_per_token) {
            new (self)
                PassCost{token_s, pair_s, step_s, sequence_step_s, ring_bytes_per_token, all_to_all_bytes_per_token};
          },
          "token_s"_a, "pair_s"_a, "step_s"_a = 0.0, "sequence_step_s"_a = 0.0, "ring_bytes_per_token"_a = 0.0,
          "all_to_all_bytes_per_token"_a = 0.0)
      .def_rw("token_s", &PassCost::token_s, "linear work per token")
      .def_rw("pair_s", &PassCost::pair_s, "attention work per (query, key) pair; a causal sequence has tokens**2 / 2")
      .def_rw("step_s", &PassCost::step_s, "fixed cost of one attention step")
      .def_rw("sequence_step_s", &PassCost::sequence_step_s, "fixed cost per sequence of one attention step")
      .def_rw("ring_bytes_per_token", &PassCost::ring_bytes_per_token)
      .def_rw("all_to_all_bytes_per_token", &PassCost::all_to_all_bytes_per_token);
}

void bind_error_sizes(nb::module_& module) {
  ValueClass<ErrorSizes>(
      module, "ErrorSizes",
      "How far measured task times differ from estimates: standard deviations of logarithms, of each sequence, of "
      "each\n"
      "task, and of each rank of a task, whose slowest counts. What takes one validates it, and raises InputError.")
      .def(
          "__init__",
          [](ErrorSizes* self, double sequence, double task, double rank) {
            new (self) ErrorSizes{sequence, task, rank};
          },
          "sequence"_a = ErrorSizes{}.sequence, "task"_a = ErrorSizes{}.task, "rank"_a = ErrorSizes{}.rank)
      .def("__str__", nb::overload_cast<const ErrorSizes&>(&to_text), "As parse_error_sizes() reads it.")
      .def_rw("sequence", &ErrorSizes::sequence, "of each sequence, wherever it runs")
      .def_rw("task", &ErrorSizes::task, "of each task, whatever it holds")
      .def_rw("rank", &ErrorSizes::rank, "of each rank of each task: jitter");
  module.def(
      "parse_error_sizes",
      [](const std::string& text, const std::string& source) { return parse_error_sizes(text, source); }, "text"_a,
      "source"_a, "Reads \"SEQ[,TASK[,RANK]]\"; what is left out is 0. Raises InputError.");
}

void bind_residual_factor(nb::module_& module) {
  ValueClass<ResidualFactor>(module, "ResidualFactor",
                             "What groups of `degree` ranks (2 and more) compute in, over what the coefficients say, "
                             "if their longest\n"
                             "sequence has at least `tokens` (a power of two) and fewer than twice as many.")
      .def(
          "__init__",
          [](ResidualFactor* self, int degree, std::int64_t tokens, double factor) {
            new (self) ResidualFactor{degree, tokens, factor};
          },
          "degree"_a, "tokens"_a, "factor"_a)
      .def_rw("degree", &ResidualFactor::degree)
      .def_rw("tokens", &ResidualFactor::tokens)
      .def_rw("factor", &ResidualFactor::factor);
}

void bind_cost_model(nb::module_& module) {
  ValueClass<CostModel>(
      module, "CostModel",
      "What a model costs on a device: seconds of a rank of speed 1, bytes of one rank. What takes one validates it,\n"
      "and raises InputError.")
      .def(
          "__init__",
          [](CostModel* self, std::string name, int layers, double task_s, double patch_s, const PassCost& forward,
             const PassCost& backward, int query_heads, int kv_heads, double token_bytes, double patch_bytes,
             double state_bytes, double gradient_bytes, double optimizer_s, double patch_pair_s,
             std::optional<ErrorSizes> expected_error, std::vector<ResidualFactor> residuals) {
            new (self) CostModel{std::move(name), layers,      task_s,         patch_s,
                                 patch_pair_s,    forward,     backward,       query_heads,
                                 kv_heads,        token_bytes, patch_bytes,    state_bytes,
                                 gradient_bytes,  optimizer_s, expected_error, std::move(residuals)};
          },
          "name"_a, "layers"_a, "task_s"_a, "patch_s"_a, "forward"_a, "backward"_a, "query_heads"_a = 0,
          "kv_heads"_a = 0, "token_bytes"_a = 0.0, "patch_bytes"_a = 0.0, "state_bytes"_a = 0.0,
          "gradient_bytes"_a = 0.0, "optimizer_s"_a = 0.0, "patch_pair_s"_a = 0.0, "expected_error"_a = nb::none(),
          "residuals"_a = std::vector<ResidualFactor>{})
      .def_rw("name", &CostModel::name)
      .def_rw("layers", &CostModel::layers)
      .def_rw("task_s", &CostModel::task_s, "fixed cost of a task")
      .def_rw("patch_s", &CostModel::patch_s, "vision forward and backward per patch")
      .def_rw("patch_pair_s", &CostModel::patch_pair_s, "the same per pair of patches of a picture or frame, on top")
      .def_rw("forward", &CostModel::forward)
      .def_rw("backward", &CostModel::backward)
      .def_rw("query_heads", &CostModel::query_heads)
      .def_rw("kv_heads", &CostModel::kv_heads)
      .def_rw("token_bytes", &CostModel::token_bytes, "activations per token")
      .def_rw("patch_bytes", &CostModel::patch_bytes, "activations per patch")
      .def_rw("state_bytes", &CostModel::state_bytes, "parameters, gradients, optimizer shard and reserve of one rank")
      .def_rw("gradient_bytes", &CostModel::gradient_bytes, "gradients of one rank, summed over all ranks once a step")
      .def_rw("optimizer_s", &CostModel::optimizer_s, "of the optimizer step of one rank")
      .def_rw("expected_error", &CostModel::expected_error, nb::arg("value").none(),
              "how far task times differ from these estimates, where it is known (else None)")
      .def_rw("residuals", &CostModel::residuals, "corrections of the compute time of groups, by degree and tokens");
}

void bind_task_cost(nb::module_& module) {
  nb::enum_<Exchange>(module, "Exchange", "How the shards of a task travel between its ranks.")
      .value("ring", Exchange::ring)
      .value("direct", Exchange::direct)
      .value("hierarchical", Exchange::hierarchical)
      .value("all_to_all", Exchange::all_to_all);

  module.def(
      "read_cost_model",
      [](const std::string& file, const Cluster* cluster) {
        return cluster != nullptr ? read_cost_model(file, *cluster) : read_cost_model(file);
      },
      "file"_a, "cluster"_a.none() = nb::none(),
      "Reads dhp.cost/1 JSON; for a cluster also \"MODEL@DEVICE\" (\"qwen3-vl-8b@h100\"). Raises InputError.");
  module.def("parse_cost_model", &parse_cost_model, "text"_a, "source"_a,
             "Parses dhp.cost/1 JSON; `source` names the text in errors. Raises InputError.");
  module.def("to_json", nb::overload_cast<const CostModel&>(&to_json), "cost"_a, "As dhp.cost/1 JSON.");
}

void bind_cost_functions(nb::module_& module) {
  module.def(
      "task_seconds",
      [](const CostModel& cost, const Cluster& cluster, const std::vector<Sequence>& sequences,
         const std::vector<Rank>& ranks, Exchange exchange) {
        validate(cluster, "cluster");
        validate(cost, "cost");
        return task_seconds(cost, cluster, load_of(sequences), shape_of(cluster, ranks), exchange);
      },
      "cost"_a, "cluster"_a, "sequences"_a, "ranks"_a, "exchange"_a = Exchange::ring,
      "Seconds the sequences take together on these ranks (in ring order), forward and backward. Raises ValueError\n"
      "for ranks that the cluster does not have.");
  module.def(
      "fullest_share",
      [](double work_s, double frame_s, double largest_frames, double frames, int degree) {
        if (degree < 1) throw InputError("degree", "", "found " + std::to_string(degree) + ", expected at least 1");
        const VisionSeconds::Share share = VisionSeconds{work_s, frame_s, largest_frames, frames}.fullest_share(degree);
        return std::pair(share.work, share.frame);
      },
      "work_s"_a, "frame_s"_a, "largest_frames"_a, "frames"_a, "degree"_a,
      "Vision of the fullest rank of a group, as so much of `work_s`, the work of all frames, and so much of "
      "`frame_s`,\n"
      "that of the largest, of which there are `largest_frames`. Raises InputError for a degree below 1.");
  module.def("residual_factor", &residual_factor, "cost"_a, "degree"_a, "longest_tokens"_a,
             "The factor of `cost.residuals` for a group whose longest sequence has so many tokens; 1 without one.");
  module.attr("MOST_RESIDUAL_FACTOR") = kMostResidualFactor;
  module.def(
      "task_memory_bytes",
      [](const CostModel& cost, const std::vector<Sequence>& sequences, int degree) {
        if (degree < 1) throw InputError("degree", "", "found " + std::to_string(degree) + ", expected at least 1");
        return task_memory_bytes(cost, load_of(sequences), degree);
      },
      "cost"_a, "sequences"_a, "degree"_a,
      "Activation bytes a rank holds when `degree` ranks share the sequences. Raises InputError for a degree below 1.");
  module.def("activation_budget_bytes", &activation_budget_bytes, "cost"_a, "cluster"_a,
             "Bytes a rank can give to activations: memory_bytes - state_bytes (may be negative).");
  module.def(
      "min_degree",
      [](const CostModel& cost, const Cluster& cluster, const Sequence& sequence) {
        validate(cluster, "cluster");
        validate(cost, "cost");
        return min_degree(cost, cluster, sequence);
      },
      "cost"_a, "cluster"_a, "sequence"_a,
      "The smallest degree at which the sequence alone fits; 0 if no degree does. May exceed the cluster.");
  module.def(
      "simple_lower_bound_s",
      [](const Batch& batch, const Cluster& cluster, const CostModel& cost) {
        require_valid(batch, cluster, cost);
        return simple_lower_bound_s(batch, cluster, cost);
      },
      "batch"_a, "cluster"_a, "cost"_a, "No plan is quicker than this many seconds. 0 for an empty batch.");
}

}  // namespace

ErrorSizes error_sizes_of(nb::handle value, const std::string& name) {
  if (nb::isinstance<ErrorSizes>(value)) return nb::cast<ErrorSizes>(value);
  return parse_error_sizes(nb::cast<std::string>(nb::str(value)), name);
}

void require_valid(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  validate(cluster, "cluster");
  validate(cost, "cost");
  validate(batch, "batch");
}

void bind_cluster(nb::module_& module) {
  bind_link(module);
  bind_cluster_type(module);
  bind_pass_cost(module);
  bind_error_sizes(module);
  bind_residual_factor(module);
  bind_cost_model(module);
  bind_task_cost(module);
  bind_cost_functions(module);
}

}  // namespace dhp::bindings
