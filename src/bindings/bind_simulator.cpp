#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "dhp/simulator.h"
#include "dhp/trace.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

void bind_segments(nb::module_& module) {
  auto segment = nb::class_<Segment>(module, "Segment", "A stretch of time in a task, the same for all of its ranks.");
  nb::enum_<Segment::Kind>(segment, "Kind", "What the ranks, or their links, do.")
      .value("task", Segment::Kind::task, "fixed cost of a task")
      .value("vision", Segment::Kind::vision, "vision tower, forward and backward")
      .value("linear", Segment::Kind::linear, "what grows with tokens")
      .value("block", Segment::Kind::block, "one attention step: queries with one shard of keys and values")
      .value("transfer", Segment::Kind::transfer, "shards on their way, behind blocks or not")
      .value("wait", Segment::Kind::wait, "for a transfer, with nothing to compute");
  segment.def_ro("kind", &Segment::kind)
      .def_ro("backward", &Segment::backward)
      .def_ro("task", &Segment::task)
      .def_ro("step", &Segment::step, "of blocks, from 0; of transfers, from 1: transfer k brings the shard of block k")
      .def_ro("start_s", &Segment::start_s)
      .def_ro("end_s", &Segment::end_s)
      .def_ro("bytes", &Segment::bytes, "of transfers: moved between all ranks of the group");
}

void bind_simulation(nb::module_& module) {
  nb::class_<SimulatedTask>(module, "SimulatedTask", "When a task ran and waited.")
      .def_ro("start_s", &SimulatedTask::start_s)
      .def_ro("end_s", &SimulatedTask::end_s)
      .def_ro("forward_end_s", &SimulatedTask::forward_end_s, "when its activations are largest")
      .def_ro("transfer_s", &SimulatedTask::transfer_s, "shards were on their way, hidden or not")
      .def_ro("exposed_s", &SimulatedTask::exposed_s, "its ranks did nothing but wait for them")
      .def("compute_s", &SimulatedTask::compute_s);
  nb::class_<SimulatedRank>(module, "SimulatedRank",
                            "Where the time of a rank goes. Compute, idle time, reduction and optimizer add up to the\n"
                            "step's seconds, except of ranks out of service: all 0.")
      .def_ro("compute_s", &SimulatedRank::compute_s)
      .def_ro("idle", &SimulatedRank::idle)
      .def_ro("reduce_s", &SimulatedRank::reduce_s, "gradient reduction")
      .def_ro("optimizer_s", &SimulatedRank::optimizer_s)
      .def_ro("transfer_s", &SimulatedRank::transfer_s, "shards of its tasks were on their way");
  nb::class_<SimulatedStep>(module, "SimulatedStep", "One run of the plan.")
      .def_ro("seconds", &SimulatedStep::seconds, "the whole step")
      .def_ro("tasks_end_s", &SimulatedStep::tasks_end_s, "the makespan of the plan")
      .def_ro("reduce_end_s", &SimulatedStep::reduce_end_s, "gradients are summed; then the optimizer")
      .def_ro("optimizer_end_s", &SimulatedStep::optimizer_end_s)
      .def_ro("shard_bytes", &SimulatedStep::shard_bytes, "moved between ranks for tasks, both passes")
      .def_ro("crossing_bytes", &SimulatedStep::crossing_bytes, "the part of it that went from node to node")
      .def_ro("tasks", &SimulatedStep::tasks, "in plan order; empty in late steps of many that are not recorded")
      .def_ro("ranks", &SimulatedStep::ranks)
      .def_ro("idle", &SimulatedStep::idle, "summed over ranks")
      .def_ro("segments", &SimulatedStep::segments, "if recorded: by end, then task");
  nb::class_<Simulation>(module, "Simulation", "What simulate() returns.")
      .def_ro("steps", &Simulation::steps)
      .def_ro("rank_totals", &Simulation::rank_totals, "every rank, summed over steps");
  module.def(
      "simulate",
      [](const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost, int steps, double noise,
         std::uint64_t seed, double planning_s, bool record) {
        const nb::gil_scoped_release release;
        return simulate(plan, batch, cluster, cost, {steps, noise, seed, planning_s, record ? steps : 0});
      },
      "plan"_a, "batch"_a, "cluster"_a, "cost"_a, nb::kw_only(), "steps"_a = 1, "noise"_a = 0.0, "seed"_a = 7,
      "planning_s"_a = 0.0, "record"_a = false,
      "Runs a valid plan on a model of the cluster, event by event. `record` keeps what happens inside tasks, which\n"
      "spans, results and traces need.");
}

void bind_result_rows(nb::module_& module) {
  nb::class_<IdleTime>(module, "IdleTime", "Rank-seconds in which nothing was computed, by cause.")
      .def_ro("peer_s", &IdleTime::peer_s, "ready, but another rank is not")
      .def_ro("transfer_s", &IdleTime::transfer_s, "inside a task, waiting for shards")
      .def_ro("data_s", &IdleTime::data_s, "the batch or its plan was not there")
      .def_ro("no_task_s", &IdleTime::no_task_s, "nothing left to run before the others are done, too")
      .def("total_s", &IdleTime::total_s);
  nb::class_<ResultStep>(module, "ResultStep", "A step; what is not known is None.")
      .def_ro("step", &ResultStep::step)
      .def_ro("seconds", &ResultStep::seconds, "whole step")
      .def_ro("tasks_s", &ResultStep::tasks_s, "from the first task's start to the last one's end")
      .def_ro("predicted_s", &ResultStep::predicted_s, "of the tasks")
      .def_ro("lower_bound_s", &ResultStep::lower_bound_s)
      .def_ro("tokens", &ResultStep::tokens)
      .def_ro("planning_s", &ResultStep::planning_s)
      .def_ro("idle", &ResultStep::idle, "summed over ranks");
  nb::class_<ResultTask>(module, "ResultTask", "A task of a step, predicted and actual.")
      .def_ro("step", &ResultTask::step)
      .def_ro("id", &ResultTask::id)
      .def_ro("degree", &ResultTask::degree)
      .def_ro("sequences", &ResultTask::sequences)
      .def_ro("tokens", &ResultTask::tokens)
      .def_ro("predicted_s", &ResultTask::predicted_s)
      .def_ro("seconds", &ResultTask::seconds);
}

void bind_result_timeline(nb::module_& module) {
  auto span = nb::class_<ResultSpan>(module, "ResultSpan", "What a rank did from one time to another.");
  nb::enum_<ResultSpan::Kind>(span, "Kind", "Computing, or waiting for what.")
      .value("compute", ResultSpan::Kind::compute)
      .value("transfer", ResultSpan::Kind::transfer)
      .value("peer", ResultSpan::Kind::peer)
      .value("data", ResultSpan::Kind::data)
      .value("reduce", ResultSpan::Kind::reduce)
      .value("optimizer", ResultSpan::Kind::optimizer);
  span.def_ro("rank", &ResultSpan::rank)
      .def_ro("kind", &ResultSpan::kind)
      .def_ro("start_s", &ResultSpan::start_s, "the step starts at 0")
      .def_ro("end_s", &ResultSpan::end_s)
      .def_ro("task", &ResultSpan::task, "-1: of no task");
  nb::class_<ResultTimeline>(module, "ResultTimeline", "Spans of one step.")
      .def_ro("step", &ResultTimeline::step)
      .def_ro("spans", &ResultTimeline::spans);
  nb::class_<MemoryPoint>(module, "MemoryPoint", "Activation bytes of a rank at a time, linear in between.")
      .def_ro("rank", &MemoryPoint::rank)
      .def_ro("time_s", &MemoryPoint::time_s)
      .def_ro("bytes", &MemoryPoint::bytes);
  nb::class_<ResultMemory>(module, "ResultMemory", "Activations of all ranks.")
      .def_ro("budget_bytes", &ResultMemory::budget_bytes, "what a rank can give to them")
      .def_ro("peak_bytes", &ResultMemory::peak_bytes, "by rank")
      .def_ro("over_time", &ResultMemory::over_time, "of the timeline's step");
}

void bind_result(nb::module_& module) {
  nb::class_<Result>(module, "Result", "What a run was like: dhp.result/1.")
      .def_ro("kind", &Result::kind)
      .def_rw("name", &Result::name)
      .def_ro("schedule", &Result::schedule)
      .def_ro("ranks", &Result::ranks)
      .def_ro("ranks_in_service", &Result::ranks_in_service, "whose time counts")
      .def_ro("ranks_per_node", &Result::ranks_per_node)
      .def_ro("clock", &Result::clock)
      .def_ro("steps", &Result::steps)
      .def_ro("tasks", &Result::tasks)
      .def_ro("timeline", &Result::timeline)
      .def_ro("memory", &Result::memory)
      .def_ro("lengths", &Result::lengths, "tokens of every sequence of the timeline's step")
      .def("__repr__", [](const Result& result) { return "<Result " + result.name + ">"; });
  module.def("to_json", nb::overload_cast<const Result&>(&to_json), "result"_a, "As dhp.result/1 JSON.");
}

}  // namespace

void bind_simulator(nb::module_& module) {
  bind_result_rows(module);
  bind_result_timeline(module);
  bind_result(module);
  bind_segments(module);
  bind_simulation(module);
  module.def("rank_spans", &rank_spans, "plan"_a, "cluster"_a, "step"_a,
             "What every rank in service does, rank by rank. The step must be recorded.");
  module.def("memory_over_time", &memory_over_time, "plan"_a, "batch"_a, "cost"_a, "step"_a,
             "Activations of every rank: they grow to the end of a task's forward pass, and shrink from there.");
  module.def("to_result", &to_result, "simulation"_a, "plan"_a, "batch"_a, "cluster"_a, "cost"_a,
             "The whole simulation, with timeline and memory of its first step, which must be recorded.");
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
  module.def(
      "rank_trace",
      [](const Simulation& simulation, const Plan& plan, const Cluster& cluster, Rank rank) {
        std::string text;
        rank_trace([&](std::string_view part) { text += part; }, simulation, plan, cluster, rank);
        return text;
      },
      "simulation"_a, "plan"_a, "cluster"_a, "rank"_a, "One rank as Holistic Trace Analysis reads it.");
  module.def("rank_trace_name", &rank_trace_name, "rank"_a, "\"rank-00007.json\": its file in a folder of them.");
}

}  // namespace dhp::bindings
