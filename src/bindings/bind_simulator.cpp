#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/simulator.h"
#include "dhp/trace.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

// The fields of a Segment: two million of them in a large recorded step.
using Stretch = std::tuple<int, bool, int, int, double, double, double>;

nb::object state_of_segments(const SimulatedStep& step) {
  std::vector<Stretch> state;
  state.reserve(step.segments.size());
  for (const Segment& s : step.segments) {
    state.emplace_back(static_cast<int>(s.kind), s.backward, s.task, s.step, s.start_s, s.end_s, s.bytes);
  }
  return nb::cast(state);
}

void set_segments(SimulatedStep& step, nb::handle state) {
  for (const auto& [kind, backward, task, number, start_s, end_s, bytes] : nb::cast<std::vector<Stretch>>(state)) {
    step.segments.push_back({static_cast<Segment::Kind>(kind), backward, task, number, start_s, end_s, bytes});
  }
}

void bind_simulation(nb::module_& module) {
  ValueClass<SimulatedTask>(module, "SimulatedTask",
                            "When a task ran and waited, in seconds from the start of the step.")
      .def_ro("start_s", &SimulatedTask::start_s)
      .def_ro("end_s", &SimulatedTask::end_s)
      .def_ro("forward_end_s", &SimulatedTask::forward_end_s, "when its activations are largest")
      .def_ro("transfer_s", &SimulatedTask::transfer_s, "shards were on their way, hidden or not")
      .def_ro("exposed_s", &SimulatedTask::exposed_s, "its ranks did nothing but wait for them")
      .def_prop_ro("compute_s", &SimulatedTask::compute_s, "end_s - start_s - exposed_s");
  ValueClass<SimulatedRank>(module, "SimulatedRank",
                            "Where the time of a rank goes. Compute, idle time, reduction and optimizer add up to the\n"
                            "step's seconds, except for ranks out of service, where all are 0.")
      .def_ro("compute_s", &SimulatedRank::compute_s)
      .def_ro("idle", &SimulatedRank::idle)
      .def_ro("reduce_s", &SimulatedRank::reduce_s, "gradient reduction")
      .def_ro("optimizer_s", &SimulatedRank::optimizer_s)
      .def_ro("transfer_s", &SimulatedRank::transfer_s, "shards of its tasks were on their way");
  ValueClass<SimulatedStep>(module, "SimulatedStep", "One run of the plan.")
      .def_ro("seconds", &SimulatedStep::seconds, "the whole step")
      .def_ro("tasks_end_s", &SimulatedStep::tasks_end_s, "the makespan of the plan")
      .def_ro("reduce_end_s", &SimulatedStep::reduce_end_s, "gradients are summed; then the optimizer")
      .def_ro("optimizer_end_s", &SimulatedStep::optimizer_end_s)
      .def_ro("shard_bytes", &SimulatedStep::shard_bytes, "moved between ranks for tasks, both passes")
      .def_ro("crossing_bytes", &SimulatedStep::crossing_bytes, "the part of it that went from node to node")
      .def_ro("tasks", &SimulatedStep::tasks, "in plan order; empty in late steps of many that are not recorded")
      .def_ro("ranks", &SimulatedStep::ranks)
      .def_ro("idle", &SimulatedStep::idle, "summed over ranks")
      .hidden("segments", &state_of_segments, &set_segments);
  ValueClass<Simulation>(module, "Simulation", "What simulate() returns.")
      .def_ro("steps", &Simulation::steps)
      .def_ro("rank_totals", &Simulation::rank_totals, "every rank, summed over steps");
  module.def(
      "simulate",
      [](const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost, int steps,
         const nb::object& noise, std::uint64_t seed, double planning_s, bool record) {
        const ErrorSizes sizes = error_sizes_of(noise, "noise");
        const nb::gil_scoped_release release;
        return simulate(plan, batch, cluster, cost, {steps, sizes, seed, planning_s, record ? steps : 0});
      },
      "plan"_a, "batch"_a, "cluster"_a, "cost"_a, nb::kw_only(), "steps"_a = 1, "noise"_a = 0.0, "seed"_a = 7,
      "planning_s"_a = 0.0, "record"_a = false,
      "Runs a valid plan on a model of the cluster, event by event, `steps` times. Every task takes its time times a\n"
      "factor of noise_factors(), if there is noise (an ErrorSizes, or as parse_error_sizes() reads it); planning the "
      "next batch takes `planning_s` during a step. `record` keeps what "
      "happens\n"
      "inside tasks, which results and traces need. Raises InputError for a plan that cannot be walked, ValueError "
      "for\n"
      "options out of range.");
}

void bind_idle_time(nb::module_& module) {
  ValueClass<IdleTime>(module, "IdleTime", "Rank-seconds in which nothing was computed, by cause.")
      .def_ro("peer_s", &IdleTime::peer_s, "ready, but another rank is not")
      .def_ro("transfer_s", &IdleTime::transfer_s, "inside a task, waiting for shards")
      .def_ro("data_s", &IdleTime::data_s, "the batch or its plan was not there")
      .def_ro("no_task_s", &IdleTime::no_task_s, "nothing left to run before the others are done, too")
      .def_prop_ro("total_s", &IdleTime::total_s, "Sum of all causes.");
}

}  // namespace

void bind_simulator(nb::module_& module) {
  bind_idle_time(module);
  bind_simulation(module);
  module.def(
      "result_json",
      [](const Simulation& simulation, const Plan& plan, const Batch& batch, const Cluster& cluster,
         const CostModel& cost) { return to_json(to_result(simulation, plan, batch, cluster, cost)); },
      "simulation"_a, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
      "The simulation as dhp.result/1 JSON, with timeline and memory of its first step, which must be recorded.");
  module.def(
      "chrome_trace",
      [](const Simulation& simulation, const Plan& plan, const Batch& batch, const Cluster& cluster,
         const CostModel& cost) {
        std::string text;
        chrome_trace([&](std::string_view part) { text += part; }, simulation, plan, batch, cluster, cost);
        return text;
      },
      "simulation"_a, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
      "All ranks in one trace, for Perfetto. Every step must be recorded.");
  module.def("rank_trace_name", &rank_trace_name, "rank"_a, "\"rank-00007.json\": its file in a folder of them.");
  // Of the form that Holistic Trace Analysis reads.
  module.attr("COMPUTE_STREAM") = kComputeStream;
  module.attr("TRANSFER_STREAM") = kTransferStream;
  module.attr("FIRST_CORRELATION") = kFirstCorrelation;
}

}  // namespace dhp::bindings
