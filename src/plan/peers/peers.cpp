#include "plan/peers/peers.h"

#include "dhp/peers.h"

namespace dhp {

void add_peers() {
  using enum plan::Argument;
  using enum Exchange;
  static const bool kAdded = [] {
    plan::add_planners({
        {"paper",
         none,
         "",
         Schedule::lockstep,
         {ring},
         {"min_shard_tokens", "no_idle_ranks"},
         plan::plan_paper,
         nullptr,
         "the paper's algorithm: sequences packed into bins by memory, each bin with its own degree, in lockstep",
         ""},
        {"megatron-hybrid",
         number,
         "M",
         Schedule::rounds,
         {ring},
         {},
         plan::plan_megatron_hybrid,
         plan::check_for_megatron,
         "Megatron-Core's BalancedCPScheduler: powers of two by length, samples one at a time, barriers",
         "the same with at most M tokens of a sample per rank, instead of the best of five M"},
        {"megatron-dynamic",
         number,
         "M",
         Schedule::lockstep,
         {ring},
         {"no_idle_ranks"},
         plan::plan_megatron_dynamic,
         plan::check_for_megatron,
         "Megatron-Core's DefaultDynamicCPScheduler: powers of two, packed, micro-batch by micro-batch",
         "the same with at most M tokens per rank, instead of the best of five M"},
    });
    return true;
  }();
  static_cast<void>(kAdded);
}

}  // namespace dhp
