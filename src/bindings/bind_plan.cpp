#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/plan.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

// The fields of a Task.
using Row = std::tuple<int, std::vector<Rank>, std::vector<std::int64_t>, int, int, std::optional<double>,
                       std::optional<double>>;

nb::object rows_of(const Plan& plan) {
  std::vector<Row> rows;
  rows.reserve(plan.tasks.size());
  for (const Task& t : plan.tasks) {
    rows.emplace_back(t.id, t.ranks, t.sequences, t.micro_batch, static_cast<int>(t.exchange), t.start_s, t.end_s);
  }
  return nb::cast(rows);
}

void set_rows(Plan& plan, nb::handle state) {
  for (auto& [id, ranks, sequences, micro_batch, exchange, start_s, end_s] : nb::cast<std::vector<Row>>(state)) {
    plan.tasks.push_back(
        {id, std::move(ranks), std::move(sequences), micro_batch, static_cast<Exchange>(exchange), start_s, end_s});
  }
}

void bind_task(nb::module_& module) {
  ValueClass<Task>(module, "Task", "A set of sequences run together, forward and backward, on a group of ranks.")
      .def(
          "__init__",
          [](Task* self, int id, std::vector<Rank> ranks, std::vector<std::int64_t> sequences, int micro_batch,
             Exchange exchange, std::optional<double> start_s, std::optional<double> end_s) {
            new (self) Task{id, std::move(ranks), std::move(sequences), micro_batch, exchange, start_s, end_s};
          },
          "id"_a, "ranks"_a, "sequences"_a, "micro_batch"_a = 0, "exchange"_a = Exchange::ring,
          "start_s"_a = nb::none(), "end_s"_a = nb::none())
      .def_rw("id", &Task::id, "position in the plan")
      .def_rw("ranks", &Task::ranks, "distinct, in ring order; any ranks")
      .def_rw("sequences", &Task::sequences, "ids, in packing order")
      .def_rw("micro_batch", &Task::micro_batch)
      .def_rw("exchange", &Task::exchange)
      .def_rw("start_s", &Task::start_s, "predicted", nb::arg().none())
      .def_rw("end_s", &Task::end_s, "predicted", nb::arg().none())
      .def_prop_ro("degree", &Task::degree, "Number of ranks.");
}

void bind_plan_types(nb::module_& module) {
  nb::enum_<Schedule>(module, "Schedule", "When tasks may start.")
      .value("lockstep", Schedule::lockstep, "tasks of one micro-batch on disjoint ranks, a barrier between")
      .value("free", Schedule::free, "no barrier: a task starts when the last of its ranks is ready")
      .value("rounds", Schedule::rounds, "a barrier between micro-batches, free inside");

  ValueClass<Prediction>(module, "Prediction", "What a planner expects of its plan.")
      .def(
          "__init__",
          [](Prediction* self, double makespan_s, double lower_bound_s, double gap) {
            new (self) Prediction{makespan_s, lower_bound_s, gap};
          },
          "makespan_s"_a = 0.0, "lower_bound_s"_a = 0.0, "gap"_a = 0.0)
      .def_rw("makespan_s", &Prediction::makespan_s)
      .def_rw("lower_bound_s", &Prediction::lower_bound_s)
      .def_rw("gap", &Prediction::gap, "makespan / lower bound - 1; 0 for an empty batch");

  ValueClass<Plan>(module, "Plan", "Which ranks share which sequences, in execution order.")
      .def(
          "__init__",
          [](Plan* self, Schedule schedule, int ranks, std::vector<Task> tasks, std::string planner, std::string hash,
             std::optional<Prediction> predicted, std::optional<int> most_peers) {
            new (self)
                Plan{schedule, ranks, std::move(tasks), std::move(planner), std::move(hash), predicted, most_peers};
          },
          "schedule"_a = Schedule::free, "ranks"_a = 0, "tasks"_a = std::vector<Task>{}, "planner"_a = "",
          "hash"_a = "", "predicted"_a = nb::none(), "most_peers"_a = nb::none())
      .def_rw("schedule", &Plan::schedule)
      .def_rw("ranks", &Plan::ranks)
      .def_rw("tasks", &Plan::tasks)
      .packed(&rows_of, &set_rows)
      .def_rw("planner", &Plan::planner, "who made it; informative, not hashed")
      .def_rw("hash", &Plan::hash, "32 hexadecimal digits, or empty")
      .def_rw("predicted", &Plan::predicted, nb::arg().none())
      .def_rw("most_peers", &Plan::most_peers, nb::arg().none(),
              "largest number of ranks that one rank shares tasks with, or None; not hashed");

  ValueClass<Timeline>(module, "Timeline", "When each task starts and ends, in seconds from the start of the step.")
      .def_ro("start_s", &Timeline::start_s, "per task, in plan order")
      .def_ro("end_s", &Timeline::end_s, "per task, in plan order")
      .def_ro("busy_s", &Timeline::busy_s, "per rank")
      .def_ro("makespan_s", &Timeline::makespan_s)
      .def_prop_ro("idle_share", nb::overload_cast<>(&Timeline::idle_share, nb::const_),
                   "Share of ranks x makespan in which no task ran; 0 for an empty plan.");
}

void bind_plan_functions(nb::module_& module) {
  module.def("read_plan", &read_plan, "file"_a, "Reads dhp.plan/1 JSON. Raises InputError.");
  module.def("parse_plan", &parse_plan, "text"_a, "source"_a,
             "Parses dhp.plan/1 JSON; `source` names the text in errors. Raises InputError.");
  module.def("to_json", nb::overload_cast<const Plan&>(&to_json), "plan"_a, "As dhp.plan/1 JSON.");
  module.def("plan_hash", &plan_hash, "plan"_a, "batch"_a,
             "32 hexadecimal digits over schedule, ranks, tasks and the batch; equal inputs give equal digits on every "
             "machine.");
  module.def(
      "replay", [](const Plan& plan, const std::vector<double>& task_s) { return replay(plan, task_s); }, "plan"_a,
      "task_s"_a,
      "When each task starts and ends if it takes task_s seconds (one per task, in plan order). Raises InputError if\n"
      "the numbers of tasks and times differ, or the plan cannot be walked.");
  module.def("predict_task_seconds", &predict_task_seconds, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
             "Predicted seconds of every task, in plan order. Raises InputError for unknown sequences or ranks.");
  module.def("annotate", &annotate, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
             "Fills start_s, end_s (seconds from the start of the step), predicted and hash of the plan, in place.");
  // dhp train checks in a thread while a batch trains.
  module.def("check_plan", &check_plan, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
             nb::call_guard<nb::gil_scoped_release>(),
             "Everything that is wrong with a plan, one sentence per violation; empty if it is valid. Releases the\n"
             "interpreter lock: change none of the arguments meanwhile.");
}

}  // namespace

void bind_plan(nb::module_& module) {
  bind_task(module);
  bind_plan_types(module);
  bind_plan_functions(module);
}

}  // namespace dhp::bindings
