// One rank of a simulation for Holistic Trace Analysis (facebookresearch/HolisticTraceAnalysis: hta/common/trace.py and
// trace_parser.py say what it reads). It takes events with a stream for kernels, keeps those whose correlation a call
// of the host has too, and puts them into the step in which that call began. By their names kernels count as
// communication
// (^nccl) or computation (hta/common/types.py).

#include <algorithm>
#include <cmath>

#include "base/index.h"
#include "dhp/error.h"
#include "dhp/trace.h"
#include "sim/step_shape.h"
#include "sim/trace/trace_text.h"

namespace dhp {

using namespace sim;

namespace {

std::string kernel_name(const Segment& segment) {
  const std::string pass = segment.backward ? "_backward" : "_forward";
  switch (segment.kind) {
    case Segment::Kind::task:
      return "dhp_fixed";
    case Segment::Kind::vision:
      return "dhp_vision";
    case Segment::Kind::linear:
      return "dhp_linear" + pass;
    case Segment::Kind::block:
      return "dhp_attention" + pass;
    case Segment::Kind::transfer:
      return "ncclDevKernel_SendRecv";
    case Segment::Kind::wait:
      break;
  }
  return "";
}

class RankWriter {
 public:
  RankWriter(const TextSink& write, const Plan& plan, const Cluster& cluster, Rank rank)
      : plan_(plan), cluster_(cluster), rank_(rank), events_(write, head(plan, rank)) {
    for (const Task& task : plan.tasks) {
      const bool member = std::find(task.ranks.begin(), task.ranks.end(), rank) != task.ranks.end();
      is_member_.push_back(member);
    }
  }

  void write(const Simulation& simulation) {
    for (std::size_t i = 0; i < simulation.steps.size(); ++i) add_step(simulation.steps[i], static_cast<int>(i) + 1);
    events_.end();
  }

 private:
  /// The rank stands before all events, with a space: that is how it is searched for.
  static std::string head(const Plan& plan, Rank rank) {
    return "{\"schemaVersion\": 1,\n\"distributedInfo\": {\"backend\": \"nccl\", \"rank\": " + std::to_string(rank) +
           ", \"world_size\": " + std::to_string(plan.ranks) + "},\n\"displayTimeUnit\": \"ms\",\n";
  }

  void add_step(const SimulatedStep& step, int number) {
    begin_us_ = microseconds(0.0);
    end_us_ = microseconds(step.seconds);
    events_.add(fields(host("user_annotation", "ProfilerStep#" + std::to_string(number)), field("ts", begin_us_),
                       field("dur", end_us_ - begin_us_)));
    // Empty kernels at both ends, so that waiting there counts as idle time.
    kernel("dhp_step_begin", kComputeStream, 0.0, 0.0);
    for (const Segment& segment : step.segments) {
      if (!is_member_[index(segment.task)] || segment.kind == Segment::Kind::wait) continue;
      if (segment.kind == Segment::Kind::transfer) {
        const int degree = plan_.tasks[index(segment.task)].degree();
        kernel(kernel_name(segment), kTransferStream, segment.start_s, segment.end_s,
               message("sendrecv", segment.bytes / degree, degree));
      } else {
        kernel(kernel_name(segment), kComputeStream, segment.start_s, segment.end_s);
      }
    }
    if (step.reduce_end_s > step.tasks_end_s) {
      kernel("ncclDevKernel_AllReduce_Sum_f32", kTransferStream, step.tasks_end_s, step.reduce_end_s,
             message("allreduce", 0.0, static_cast<int>(cluster_.live_ranks().size())));
    }
    const double optimizer_s = step.ranks[index(rank_)].optimizer_s;
    if (optimizer_s > 0.0) {
      kernel("dhp_optimizer", kComputeStream, step.reduce_end_s, step.reduce_end_s + optimizer_s);
    }
    kernel("dhp_step_end", kComputeStream, step.seconds, step.seconds);
    start_s_ += step.seconds;
  }

  std::int64_t microseconds(double time_s) const { return std::llround((start_s_ + time_s) * 1e6); }

  static std::string message(const char* name, double bytes, int group) {
    return fields(field("Collective name", name), field("In msg nelems", std::llround(bytes)),
                  field("Out msg nelems", std::llround(bytes)), field("Group size", group), field("dtype", "Byte"));
  }

  std::string host(const char* category, const std::string& name) const {
    constexpr int kHost = 1000;  // processes 0, 1, 2 … are devices
    return fields(field("ph", "X"), field("cat", category), field("name", name), field("pid", kHost + rank_),
                  field("tid", kHost + rank_));
  }

  void kernel(const std::string& name, int stream, double start_s, double end_s, const std::string& more = "") {
    const std::int64_t ts = microseconds(start_s);
    ++correlation_;
    // Inside the step, even where the kernel begins with the step's end.
    const std::int64_t launch = std::max(begin_us_, std::min(ts, end_us_ - 1));
    events_.add(fields(host("cuda_runtime", "cudaLaunchKernel"), field("ts", launch), field("dur", 0),
                       arguments(field("correlation", correlation_))));
    std::string about = fields(field("stream", stream), field("device", rank_), field("correlation", correlation_));
    if (!more.empty()) about += ", " + more;
    events_.add(fields(field("ph", "X"), field("cat", "kernel"), field("name", name), field("pid", rank_),
                       field("tid", stream), field("ts", ts), field("dur", microseconds(end_s) - ts),
                       arguments(about)));
  }

  const Plan& plan_;
  const Cluster& cluster_;
  Rank rank_;
  std::vector<bool> is_member_;  // by task
  TraceEvents events_;
  double start_s_ = 0.0;  // of the step
  std::int64_t begin_us_ = 0;
  std::int64_t end_us_ = 0;
  int correlation_ = kFirstCorrelation;
};

}  // namespace

void rank_trace(const TextSink& write, const Simulation& simulation, const Plan& plan, const Cluster& cluster,
                Rank rank) {
  for (const SimulatedStep& step : simulation.steps) require_step(plan, cluster, step);
  if (rank < 0 || rank >= plan.ranks) {
    throw InputError("rank", "", "found " + std::to_string(rank) + ", expected 0 to " + std::to_string(plan.ranks - 1));
  }
  RankWriter(write, plan, cluster, rank).write(simulation);
}

std::string rank_trace_name(Rank rank) {
  constexpr std::size_t kDigits = 5;
  std::string number = std::to_string(rank);
  number.insert(0, kDigits - std::min(kDigits, number.size()), '0');
  return "rank-" + number + ".json";
}

}  // namespace dhp
