#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "dhp/simulator.h"

namespace dhp {

// Simulations as traces in the Chrome trace event format, steps one after the other; docs/simulator.md. Every step must
// be recorded and of the plan, else InputError. A trace may be larger than what it is made of: it is handed over in
// parts of about a megabyte.

/// Gets the parts of a text, in order.
using TextSink = std::function<void(std::string_view)>;

/// All ranks in one trace, for Perfetto or chrome://tracing: a process a node; of every rank a thread that computes and
/// one whose shards travel, with arrows from sender to receiver; a counter of activation bytes a rank.
void chrome_trace(const TextSink& write, const Simulation& simulation, const Plan& plan, const Batch& batch,
                  const Cluster& cluster, const CostModel& cost);

/// One rank as Holistic Trace Analysis reads it: what computes and what travels as kernels on two streams, launched by
/// calls of the host, steps as ProfilerStep#k. Times are whole microseconds.
void rank_trace(const TextSink& write, const Simulation& simulation, const Plan& plan, const Cluster& cluster,
                Rank rank);

/// How a rank's file of such a folder is called: "rank-00007.json".
std::string rank_trace_name(Rank rank);

}  // namespace dhp
