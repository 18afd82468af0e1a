#pragma once

#include <string>

#include "dhp/simulator.h"

namespace dhp {

// Simulations as traces in the Chrome trace event format, steps one after the other; docs/simulator.md. Every step must
// be recorded.

/// All ranks in one trace, for Perfetto or chrome://tracing: a process a node; of every rank a thread that computes and
/// one whose shards travel, with arrows from sender to receiver; a counter of activation bytes a rank.
std::string chrome_trace(const Simulation& simulation, const Plan& plan, const Batch& batch, const Cluster& cluster,
                         const CostModel& cost);

/// One rank as Holistic Trace Analysis reads it: what computes and what travels as kernels on two streams, launched by
/// calls of the host, steps as ProfilerStep#k. Times are whole microseconds.
std::string rank_trace(const Simulation& simulation, const Plan& plan, const Cluster& cluster, Rank rank);

/// How a rank's file of such a folder is called: "rank-00007.json".
std::string rank_trace_name(Rank rank);

}  // namespace dhp
