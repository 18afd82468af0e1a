#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "dhp/simulator.h"

namespace dhp {

// Simulations as traces in the Chrome trace event format, steps one after the other; docs/simulator.md. Every step must
// be recorded and of the plan, else InputError. A trace may be larger than what it is made of: it is handed over in
// parts of about a megabyte.

/// Receives the parts of a text, in order.
using TextSink = std::function<void(std::string_view)>;

/// All ranks in one trace, for Perfetto or chrome://tracing. Each node is a process. Each rank has one thread for
/// computation and one for the shards in flight, with arrows from sender to receiver, and a counter of activation
/// bytes.
void chrome_trace(const TextSink& write, const Simulation& simulation, const Plan& plan, const Batch& batch,
                  const Cluster& cluster, const CostModel& cost);

/// One rank as Holistic Trace Analysis reads it: computation and transfers as kernels on two streams, launched by host
/// calls, and steps as ProfilerStep#k. Times are whole microseconds.
void rank_trace(const TextSink& write, const Simulation& simulation, const Plan& plan, const Cluster& cluster,
                Rank rank);

/// The streams of a device in such a trace, and the number of its first launch: small numbers would be read as small
/// integers, which later hold no number of an event.
inline constexpr int kComputeStream = 7;
inline constexpr int kTransferStream = 20;
inline constexpr int kFirstCorrelation = 1 << 20;

/// The name of a rank's file in such a folder: "rank-00007.json".
std::string rank_trace_name(Rank rank);

}  // namespace dhp
