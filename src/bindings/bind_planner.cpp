#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <sstream>

#include "bindings/bindings.h"
#include "dhp/explain.h"
#include "dhp/planner.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

void bind_plan_batch(nb::module_& module) {
  nb::class_<Infeasible>(module, "Infeasible", "The batch is well formed, but no plan of this kind holds it.")
      .def_ro("reason", &Infeasible::reason, "a sentence: what needs how much, and what is there")
      .def_ro("sequence", &Infeasible::sequence, "id of the sequence that needs most, or None")
      .def_ro("needed_bytes", &Infeasible::needed_bytes)
      .def_ro("offered_bytes", &Infeasible::offered_bytes)
      .def_ro("needed_ranks", &Infeasible::needed_ranks,
              "smallest degree that would hold the sequence, 0 when no number of ranks would")
      .def("__repr__", [](const Infeasible& answer) { return "<Infeasible: " + answer.reason + ">"; });

  nb::class_<PlannerInfo>(module, "PlannerInfo")
      .def_ro("name", &PlannerInfo::name)
      .def_ro("help", &PlannerInfo::help)
      .def("__repr__", [](const PlannerInfo& info) { return "<PlannerInfo " + info.name + ": " + info.help + ">"; });
  module.def("planners", &planners, "Name and one line of help of every planner.");

  module.def(
      "plan_batch",
      [](const Batch& batch, const Cluster& cluster, const CostModel& cost, const nb::kwargs& keywords) {
        const PlanOptions options = options_of(keywords);
        const nb::gil_scoped_release release;
        return plan_batch(batch, cluster, cost, options);
      },
      "batch"_a, "cluster"_a, "cost"_a, "options"_a,
      signature("plan_batch", "batch: Batch, cluster: Cluster, cost: CostModel", "Plan | Infeasible"),
      "Decides which ranks share which sequences of the batch. A pure function: the same arguments give the same plan\n"
      "on every rank. An empty batch gives an empty plan. `schedule`: see planners(); the rest: see plan_options().\n"
      "Raises InputError for options that make no sense. Releases the interpreter lock: change none of the arguments\n"
      "meanwhile.");
}

void bind_explain(nb::module_& module) {
  nb::class_<Wait>(module, "Wait", "A rank that stands idle before a task of its own, or after its last one.")
      .def_ro("rank", &Wait::rank)
      .def_ro("seconds", &Wait::seconds)
      .def_ro("from_s", &Wait::from_s)
      .def_ro("task", &Wait::task, "the task waited for; -1: the end of the step")
      .def_ro("cause", &Wait::cause)
      .def("__repr__", [](const Wait& wait) {
        std::ostringstream text;
        text << "<Wait of " << wait.seconds << " s: rank " << wait.rank << ' ' << wait.cause << '>';
        return text.str();
      });
  nb::class_<Explanation>(module, "Explanation", "What bounds a plan and where its ranks wait.")
      .def_ro("makespan_s", &Explanation::makespan_s)
      .def_ro("lower_bound_s", &Explanation::lower_bound_s)
      .def_ro("gap", &Explanation::gap, "makespan / lower bound - 1")
      .def_ro("idle_share", &Explanation::idle_share)
      .def_ro("limited_by", &Explanation::limited_by, "what bounds the batch")
      .def_ro("degrees", &Explanation::degrees, "(degree, tasks), ascending")
      .def_ro("longest_waits", &Explanation::longest_waits, "three at most, longest first")
      .def("__repr__", [](const Explanation& explanation) {
        std::ostringstream text;
        text << "<Explanation: " << explanation.makespan_s << " s, gap " << explanation.gap * 100.0 << " %, limited by "
             << explanation.limited_by << '>';
        return text.str();
      });
  module.def("explain_plan", &explain_plan, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
             "What bounds the plan, its longest waits, idle share and gap. The plan must be valid (check_plan).");
}

}  // namespace

void bind_planner(nb::module_& module) {
  bind_options(module);
  bind_plan_batch(module);
  bind_explain(module);
}

}  // namespace dhp::bindings
