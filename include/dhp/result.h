#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dhp/cluster.h"

namespace dhp {

// What a run was like, simulated or measured: the file dhp.result/1 that `dhp report` shows; docs/simulator.md.

/// Rank-seconds in which nothing was computed, by cause.
struct IdleTime {
  double peer_s = 0.0;      ///< ready, but another rank is not: a member of the next task, or one before a barrier
  double transfer_s = 0.0;  ///< inside a task, waiting for shards
  double data_s = 0.0;      ///< the batch or its plan was not ready
  double no_task_s = 0.0;   ///< nothing left to run before the others are also done

  double total_s() const { return peer_s + transfer_s + data_s + no_task_s; }
  IdleTime& operator+=(const IdleTime& other);
  bool operator==(const IdleTime&) const = default;
};

/// Unknown fields are left out of the file.
struct ResultStep {
  int step = 1;
  double seconds = 0.0;                    ///< whole step
  std::optional<double> tasks_s = {};      ///< from the first task's start to the last one's end
  std::optional<double> predicted_s = {};  ///< of the tasks
  std::optional<double> expected_s = {};   ///< the same under the errors that the cost expects, on average
  std::optional<double> lower_bound_s = {};
  double tokens = 0.0;
  std::optional<double> planning_s = {};
  IdleTime idle = {};  ///< summed over ranks
};

struct ResultTask {
  int step = 1;
  int id = 0;
  int degree = 1;
  int sequences = 0;
  double tokens = 0.0;
  double predicted_s = 0.0;
  double seconds = 0.0;
};

/// What a rank did from one time to another. Time outside all spans is time without a task.
struct ResultSpan {
  enum class Kind { compute, transfer, peer, data, reduce, optimizer };
  Rank rank = 0;
  Kind kind = Kind::compute;
  double start_s = 0.0;  ///< the step starts at 0
  double end_s = 0.0;
  int task = -1;  ///< -1: no task

  bool operator==(const ResultSpan&) const = default;
};
/// "compute", "transfer", ...: as in the file.
std::string to_string(ResultSpan::Kind kind);

struct ResultTimeline {
  int step = 1;
  std::vector<ResultSpan> spans = {};
};

/// Activation bytes of a rank at a time; they change linearly in between.
struct MemoryPoint {
  Rank rank = 0;
  double time_s = 0.0;
  double bytes = 0.0;
};

struct ResultMemory {
  double budget_bytes = 0.0;                ///< what a rank can give to activations
  std::vector<double> peak_bytes = {};      ///< by rank
  std::vector<MemoryPoint> over_time = {};  ///< of the timeline's step; may be empty
};

struct Result {
  std::string kind = "simulated";  ///< or "measured"
  std::string name = {};
  std::string planner = {};
  int ranks = 0;
  int ranks_in_service = 0;  ///< ranks whose time counts
  int ranks_per_node = 0;
  std::string clock = "simulated";  ///< or "emulated", "wall"
  std::vector<ResultStep> steps = {};
  std::vector<ResultTask> tasks = {};
  std::optional<ResultTimeline> timeline = {};
  std::optional<ResultMemory> memory = {};
  std::vector<double> lengths = {};  ///< tokens of every sequence of the timeline's step
};

/// The result as `dhp.result/1` JSON.
std::string to_json(const Result& result);

}  // namespace dhp
