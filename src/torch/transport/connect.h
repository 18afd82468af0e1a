#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dhp::rt {

/// A task whose members are about to exchange data.
struct ConnectCall {
  std::vector<std::int64_t> ranks;  // world ranks in ring order; this one is among them
  std::string group;
  std::string exchange;             // of shards, as in RingAttentionCall
  std::vector<std::int64_t> nodes;  // the node of each of `ranks`; empty: all on one
  bool rows = false;                // members also exchange rows, any with any
};

/// Connects this rank with the members that it exchanges data with, as far as they are new to it (Transport::connect).
/// All members call it, in the order of tasks. Returns how many are new.
int connect_members(const ConnectCall& call);

}  // namespace dhp::rt
