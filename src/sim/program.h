#pragma once

#include <vector>

#include "dhp/plan.h"
#include "dhp/simulator.h"

namespace dhp::sim {

// What a task does, one part after the other, as simulate() runs it.

/// What travels from one node to another in a transfer.
struct NodeStream {
  int from = 0;
  int to = 0;
  double bytes = 0.0;
  double pace_bytes_per_s = 0.0;  ///< at which it goes unless something shared is in its way
  double ranks = 1.0;             ///< that feed it: its weight where streams share
};

/// One of the transfers of a part. All of them are alike.
struct Transfer {
  double latency_s = 0.0;
  double bytes_s = 0.0;  ///< after the latency, on links that no other task uses
  double bytes = 0.0;    ///< all that is moved, streams and inside nodes
  std::vector<NodeStream> streams = {};
};

/// Something computed first, then blocks with transfers behind them.
struct Part {
  Segment::Kind kind = Segment::Kind::linear;  ///< of what is computed first
  bool backward = false;
  double lead_s = 0.0;
  int blocks = 0;
  double first_block_s = 0.0;
  double block_s = 0.0;  ///< of each later block: block k needs transfers 1 to k
  int ahead = 1;         ///< transfer k starts with block k - ahead at the earliest, and after transfer k - 1
  Transfer transfer = {};

  int transfers() const { return blocks > 1 ? blocks - 1 : 0; }
};

using Program = std::vector<Part>;

/// Forward and backward pass of a task; with nothing shared in its way it takes task_seconds().
Program task_program(const CostModel& cost, const Cluster& cluster, const Load& load, const Task& task);

/// Summing gradients over all ranks in service: inside nodes, between nodes, inside nodes. Empty where it takes no
/// time.
Program reduce_program(const CostModel& cost, const Cluster& cluster);

/// Every part takes `factor` times as long.
void slow_down(Program& program, double factor);

}  // namespace dhp::sim
