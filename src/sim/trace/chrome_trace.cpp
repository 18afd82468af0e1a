// All ranks of a simulation in one Chrome trace.

#include <cmath>
#include <map>
#include <tuple>

#include "base/index.h"
#include "dhp/trace.h"
#include "exchange/exchange_schedule.h"
#include "sim/step_shape.h"
#include "sim/trace/trace_text.h"

namespace dhp {

using namespace sim;

namespace {

/// Microseconds, in whole nanoseconds.
double microseconds(double seconds) { return std::round(seconds * 1e9) / 1e3; }

std::string pass_name(const Segment& segment) { return segment.backward ? "backward" : "forward"; }

std::string name_of(const Segment& segment) {
  switch (segment.kind) {
    case Segment::Kind::task:
      return "fixed";
    case Segment::Kind::vision:
      return "vision";
    case Segment::Kind::linear:
      return "linear " + pass_name(segment);
    case Segment::Kind::block:
      return "attention " + std::to_string(segment.step) + " " + pass_name(segment);
    case Segment::Kind::transfer:
      return "shard " + std::to_string(segment.step) + " " + pass_name(segment);
    case Segment::Kind::wait:
      return "wait for shard " + std::to_string(segment.step);
  }
  return "";
}

std::string name_of(ResultSpan::Kind kind) {
  switch (kind) {
    case ResultSpan::Kind::peer:
      return "wait for peers";
    case ResultSpan::Kind::data:
      return "wait for the next plan";
    case ResultSpan::Kind::reduce:
      return "gradient reduction";
    default:
      return to_string(kind);
  }
}

class Writer {
 public:
  Writer(const TextSink& write, const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost)
      : plan_(plan), batch_(batch), cluster_(cluster), cost_(cost), events_(write, "{\"displayTimeUnit\": \"ms\",\n") {}

  void write(const Simulation& simulation) {
    name_threads();
    for (const SimulatedStep& step : simulation.steps) {
      add_tasks(step);
      add_segments(step);
      for (const ResultSpan& span : rank_spans(plan_, cluster_, step)) {
        // Computing and waiting for transfers are inside of tasks, in segments.
        if (span.kind == ResultSpan::Kind::compute || span.kind == ResultSpan::Kind::transfer) continue;
        slice(span.rank, span.rank, name_of(span.kind), "step", span.start_s, span.end_s);
      }
      add_memory(step);
      start_s_ += step.seconds;
    }
    events_.end();
  }

 private:
  int shards_thread(Rank rank) const { return plan_.ranks + rank; }

  void name_threads() {
    for (int node = 0; node < cluster_.nodes; ++node) {
      events_.add(fields(field("ph", "M"), field("name", "process_name"), field("pid", node),
                         arguments(field("name", "node " + std::to_string(node)))));
    }
    for (const Rank rank : cluster_.live_ranks()) {
      for (const bool shards : {false, true}) {
        const int thread = shards ? shards_thread(rank) : rank;
        const std::string name = "rank " + std::to_string(rank) + (shards ? " shards" : "");
        const std::string where = fields(field("pid", cluster_.node_of(rank)), field("tid", thread));
        events_.add(fields(field("ph", "M"), field("name", "thread_name"), where, arguments(field("name", name))));
        events_.add(fields(field("ph", "M"), field("name", "thread_sort_index"), where,
                           arguments(field("sort_index", 2 * rank + (shards ? 1 : 0)))));
      }
    }
  }

  std::string at(Rank rank, int thread, double time_s) const {
    return fields(field("pid", cluster_.node_of(rank)), field("tid", thread),
                  field("ts", microseconds(start_s_ + time_s)));
  }

  void slice(Rank rank, int thread, const std::string& name, const char* category, double start_s, double end_s,
             const std::string& more = "") {
    // Of rounded ends, so that neighbours neither overlap nor part.
    const double duration = microseconds(start_s_ + end_s) - microseconds(start_s_ + start_s);
    std::string text = fields(field("ph", "X"), field("name", name), field("cat", category), at(rank, thread, start_s),
                              field("dur", std::round(duration * 1e3) / 1e3));
    if (!more.empty()) text += ", " + more;
    events_.add(text);
  }

  void add_tasks(const SimulatedStep& step) {
    for (const Task& task : plan_.tasks) {
      const SimulatedTask& at = step.tasks[index(task.id)];
      const std::string more = arguments(field("degree", task.degree()), field("sequences", task.sequences.size()),
                                         field("exchange", std::string(to_string(task.exchange))),
                                         field("micro_batch", task.micro_batch), field("exposed_s", at.exposed_s));
      for (const Rank rank : task.ranks) {
        slice(rank, rank, "task " + std::to_string(task.id), "task", at.start_s, at.end_s, more);
      }
    }
  }

  void add_segments(const SimulatedStep& step) {
    using Key = std::tuple<int, bool, int>;
    std::map<Key, double> blocks;  // when they start
    for (const Segment& segment : step.segments) {
      if (segment.kind == Segment::Kind::block) {
        blocks.emplace(Key(segment.task, segment.backward, segment.step), segment.start_s);
      }
    }
    std::map<int, std::vector<std::vector<int>>> senders;  // by task
    for (const Segment& segment : step.segments) {
      const Task& task = plan_.tasks[index(segment.task)];
      const bool moves = segment.kind == Segment::Kind::transfer;
      const char* category = moves ? "transfer" : segment.kind == Segment::Kind::wait ? "wait" : "compute";
      for (const Rank rank : task.ranks) {
        const std::string more = moves ? arguments(field("bytes", segment.bytes / task.degree())) : "";
        slice(rank, moves ? shards_thread(rank) : rank, name_of(segment), category, segment.start_s, segment.end_s,
              more);
      }
      const auto block = blocks.find(Key(segment.task, segment.backward, segment.step));
      if (!moves || block == blocks.end() || task.exchange == Exchange::all_to_all) continue;
      std::vector<std::vector<int>>& known = senders[task.id];
      if (known.empty()) known = senders_of(task);
      add_arrows(task, segment, known[index(segment.step) - 1], block->second);
    }
  }

  std::vector<std::vector<int>> senders_of(const Task& task) const {
    std::vector<std::int64_t> nodes;
    for (const Rank rank : task.ranks) nodes.push_back(cluster_.node_of(rank));
    return shard_senders(task.exchange, nodes);
  }

  /// From where a shard is sent to the block that is computed with it. `from` has the senders by position.
  void add_arrows(const Task& task, const Segment& segment, const std::vector<int>& from, double block_start_s) {
    for (std::size_t position = 0; position < from.size(); ++position) {
      const Rank sender = task.ranks[index(from[position])];
      const Rank receiver = task.ranks[position];
      const std::string same = fields(field("name", "shard"), field("cat", "shard"), field("id", ++arrows_));
      events_.add(fields(field("ph", "s"), same, at(sender, shards_thread(sender), segment.start_s)));
      events_.add(fields(field("ph", "f"), field("bp", "e"), same, at(receiver, receiver, block_start_s)));
    }
  }

  void add_memory(const SimulatedStep& step) {
    const MemoryPoint* last = nullptr;
    const std::vector<MemoryPoint> points = memory_over_time(plan_, batch_, cost_, step);
    for (const MemoryPoint& point : points) {
      // Viewers draw counters as steps: a few of them for a slope.
      constexpr int kSteps = 4;
      const bool slope = last != nullptr && last->rank == point.rank && last->bytes != point.bytes;
      for (int i = slope ? 1 : kSteps; i <= kSteps; ++i) {
        const double share = static_cast<double>(i) / kSteps;
        const double time_s = slope ? last->time_s + share * (point.time_s - last->time_s) : point.time_s;
        const double bytes = slope ? last->bytes + share * (point.bytes - last->bytes) : point.bytes;
        constexpr double kMebibyte = 1024.0 * 1024.0;
        events_.add(fields(field("ph", "C"), field("name", "activations rank " + std::to_string(point.rank)),
                           at(point.rank, point.rank, time_s), arguments(field("MiB", bytes / kMebibyte))));
      }
      last = &point;
    }
  }

  const Plan& plan_;
  const Batch& batch_;
  const Cluster& cluster_;
  const CostModel& cost_;
  TraceEvents events_;
  double start_s_ = 0.0;  // of the step
  int arrows_ = 0;
};

}  // namespace

void chrome_trace(const TextSink& write, const Simulation& simulation, const Plan& plan, const Batch& batch,
                  const Cluster& cluster, const CostModel& cost) {
  for (const SimulatedStep& step : simulation.steps) require_step(plan, cluster, step);
  Writer(write, plan, batch, cluster, cost).write(simulation);
}

}  // namespace dhp
