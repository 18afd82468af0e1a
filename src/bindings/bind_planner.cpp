#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/bound.h"
#include "dhp/explain.h"
#include "dhp/metrics.h"
#include "dhp/planner.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

void bind_plan_batch(nb::module_& module) {
  ValueClass<Infeasible>(module, "Infeasible", "The batch is well formed, but no plan of this kind holds it.")
      .def_ro("reason", &Infeasible::reason, "a sentence: what needs how much, and what is there")
      .def_ro("sequence", &Infeasible::sequence, "id of the sequence that needs most, or None")
      .def_ro("needed_bytes", &Infeasible::needed_bytes)
      .def_ro("offered_bytes", &Infeasible::offered_bytes)
      .def_ro("needed_ranks", &Infeasible::needed_ranks,
              "smallest degree that would hold the sequence, 0 if no number of ranks would");

  ValueClass<PlannerInfo>(module, "PlannerInfo", "A planner and what it is for.")
      .def_ro("name", &PlannerInfo::name)
      .def_ro("help", &PlannerInfo::help);
  module.def("planners", &planners, "Name and one line of help of every planner.");

  module.def(
      "try_plan",
      [](const Batch& batch, const Cluster& cluster, const CostModel& cost, const nb::kwargs& keywords) {
        const PlanOptions options = options_of(keywords);
        const nb::gil_scoped_release release;
        return plan_batch(batch, cluster, cost, options);
      },
      "batch"_a, "cluster"_a, "cost"_a, "options"_a,
      signature("try_plan", "batch: Batch, cluster: Cluster, cost: CostModel", "Plan | Infeasible"),
      "Decides which ranks share which sequences of the batch. A pure function: the same arguments give the same plan\n"
      "on every rank. An empty batch gives an empty plan. `planner`: see planners(); the rest: see plan_options().\n"
      "Raises InputError for options that make no sense. Releases the interpreter lock: change none of the arguments\n"
      "meanwhile.");
  module.def(
      "infeasible_sequences",
      [](const Batch& batch, const Cluster& cluster, const CostModel& cost, const nb::kwargs& keywords) {
        const PlanOptions options = options_of(keywords);
        const nb::gil_scoped_release release;
        return infeasible_sequences(batch, cluster, cost, options);
      },
      "batch"_a, "cluster"_a, "cost"_a, "options"_a,
      signature("infeasible_sequences", "batch: Batch, cluster: Cluster, cost: CostModel", "list[Infeasible]"),
      "The sequences that no plan of this kind can hold, whatever else is in the batch, in the order of the batch. If\n"
      "none at all can be planned, one entry without a sequence. Fast: a whole data set can be one batch.");
}

void bind_bound(nb::module_& module) {
  module.def(
      "tighter_lower_bound_s",
      [](const Batch& batch, const Cluster& cluster, const CostModel& cost) {
        require_valid(batch, cluster, cost);
        return tighter_lower_bound_s(batch, cluster, cost);
      },
      "batch"_a, "cluster"_a, "cost"_a,
      "Seconds that no plan beats, as in docs/bounds.md: never below simple_lower_bound_s(). Meaningful for a batch\n"
      "that can be planned; not valid for all_to_all.");
  module.def(
      "check_options",
      [](const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
         const nb::kwargs& keywords) { return check_options(plan, batch, cluster, cost, options_of(keywords)); },
      "plan"_a, "batch"_a, "cluster"_a, "cost"_a, "options"_a,
      signature("check_options", "plan: Plan, batch: Batch, cluster: Cluster, cost: CostModel", "list[str]"),
      "Every way in which a valid plan violates the options, one sentence per violation; empty if there is none.");
}

void bind_explain(nb::module_& module) {
  ValueClass<Wait>(module, "Wait", "A rank that stands idle before a task of its own, or after its last one.")
      .def_ro("rank", &Wait::rank)
      .def_ro("seconds", &Wait::seconds)
      .def_ro("from_s", &Wait::from_s)
      .def_ro("task", &Wait::task, "the task waited for; -1: the end of the step")
      .def_ro("cause", &Wait::cause);
  ValueClass<Explanation>(module, "Explanation", "What bounds a plan and where its ranks wait.")
      .def_ro("makespan_s", &Explanation::makespan_s)
      .def_ro("lower_bound_s", &Explanation::lower_bound_s)
      .def_ro("gap", &Explanation::gap, "makespan / lower bound - 1")
      .def_ro("idle_share", &Explanation::idle_share)
      .def_ro("limited_by", &Explanation::limited_by, "what bounds the batch")
      .def_ro("degrees", &Explanation::degrees, "(degree, tasks), ascending")
      .def_ro("longest_waits", &Explanation::longest_waits, "three at most, longest first");
  module.def("explain_plan", &explain_plan, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
             "What limits the plan, its longest waits, idle share and gap. The plan must be valid (check_plan).");
}

void bind_reasons(nb::module_& module) {
  ValueClass<TaskReason>(module, "TaskReason", "Why a task has the degree and the start that it has.")
      .def_ro("task", &TaskReason::task)
      .def_ro("tokens", &TaskReason::tokens)
      .def_ro("start_s", &TaskReason::start_s)
      .def_ro("seconds", &TaskReason::seconds)
      .def_ro("degree", &TaskReason::degree, "\"memory: 3 ranks are the fewest that hold it\"")
      .def_ro("start", &TaskReason::start, "\"starts when rank 3 is done with task 4\"");
  module.def(
      "explain_tasks",
      [](const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
         const nb::kwargs& keywords) { return explain_tasks(plan, batch, cluster, cost, options_of(keywords)); },
      "plan"_a, "batch"_a, "cluster"_a, "cost"_a, "options"_a,
      signature("explain_tasks", "plan: Plan, batch: Batch, cluster: Cluster, cost: CostModel", "list[TaskReason]"),
      "Why each task of a valid plan has its degree and its start, in plan order. The options are those that it was\n"
      "made with.");
  ValueClass<Change>(module, "Change", "What the step would take after one change.")
      .def_ro("what", &Change::what, "\"one node more\"")
      .def_ro("from_s", &Change::from_s, "the step as it is, by the same method")
      .def_ro("makespan_s", &Change::makespan_s, "0 where there is no answer")
      .def_ro("no_answer", &Change::no_answer, "why");
  ValueClass<WhatIf>(module, "WhatIf", "What one change would buy.")
      .def_ro("method", &WhatIf::method, "\"planned again by free\" or \"lower bounds\"")
      .def_ro("from_s", &WhatIf::from_s, "everything as it is; 0 where there is no answer")
      .def_ro("no_answer", &WhatIf::no_answer, "why")
      .def_ro("changes", &WhatIf::changes);
  module.def(
      "explain_changes",
      [](const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
         const nb::kwargs& keywords) { return explain_changes(plan, batch, cluster, cost, options_of(keywords)); },
      "plan"_a, "batch"_a, "cluster"_a, "cost"_a, "options"_a,
      signature("explain_changes", "plan: Plan, batch: Batch, cluster: Cluster, cost: CostModel", "WhatIf"),
      "What more ranks, more memory, faster links or no barriers would gain. Plans again with the options, but with "
      "the\n"
      "planner that the plan names.");
}

void bind_metrics(nb::module_& module) {
  ValueClass<PlanMetrics>(module, "PlanMetrics", "What a plan costs, by prediction, besides its makespan.")
      .def_ro("makespan_s", &PlanMetrics::makespan_s)
      .def_ro("slowest_micro_batch_s", &PlanMetrics::slowest_micro_batch_s, "of a lockstep plan; else 0")
      .def("pipeline_s", &PlanMetrics::pipeline_s, "stages"_a, "a lockstep plan's step in a pipeline of so many stages")
      .def_ro("idle_share", &PlanMetrics::idle_share, "of ranks x makespan")
      .def_ro("exposed_transfer_s", &PlanMetrics::exposed_transfer_s,
              "rank-seconds in which a task runs but only waits for transfers")
      .def_ro("exposed_transfer_share", &PlanMetrics::exposed_transfer_share, "of ranks x makespan")
      .def_ro("memory_bytes", &PlanMetrics::memory_bytes, "by rank: activations of its largest task")
      .def_ro("peak_memory_bytes", &PlanMetrics::peak_memory_bytes, "of the fullest rank")
      .def_ro("peak_memory_share", &PlanMetrics::peak_memory_share, "the same in activation budgets")
      .def_ro("peers", &PlanMetrics::peers, "by rank: distinct ranks that it shares tasks with")
      .def_ro("most_peers", &PlanMetrics::most_peers);
  module.def("plan_metrics", &plan_metrics, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
             "Idle time, exposed transfers, memory and peers of a valid plan.");
  module.def(
      "noisy_makespans",
      [](const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost, const nb::object& noise,
         int trials, std::uint64_t seed) {
        require_valid(batch, cluster, cost);
        return noisy_makespans(plan, batch, cluster, cost, error_sizes_of(noise, "noise"), trials, seed);
      },
      "plan"_a, "batch"_a, "cluster"_a, "cost"_a, "noise"_a, "trials"_a, "seed"_a,
      "Makespans of steps in which every task takes its predicted time times its factor of noise_factors(). The same\n"
      "on every machine. `noise` is an ErrorSizes, or as parse_error_sizes() reads it. Raises InputError for noise out "
      "of\n"
      "range.");
  module.def(
      "noise_factors",
      [](const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost, const nb::object& noise,
         std::uint64_t seed, int trial) {
        require_valid(batch, cluster, cost);
        return noise_factors(plan, batch, cluster, cost, error_sizes_of(noise, "noise"), seed, trial);
      },
      "plan"_a, "batch"_a, "cluster"_a, "cost"_a, "noise"_a, "seed"_a, "trial"_a,
      "The factors by which noisy_makespans multiplies task times in trial `trial`, from 0: log-normal, mean 1. A\n"
      "sequence errs alike in every plan. Raises InputError for noise out of range.");
}

}  // namespace

void bind_planner(nb::module_& module) {
  bind_options(module);
  bind_plan_batch(module);
  bind_bound(module);
  bind_explain(module);
  bind_reasons(module);
  bind_metrics(module);
}

}  // namespace dhp::bindings
