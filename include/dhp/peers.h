#pragma once

namespace dhp {

/// Registers the peer planners, which plan as other systems do, with plan_batch() and planners(): paper,
/// megatron-hybrid and megatron-dynamic. They are a separate library, dhp::peers; a program without it has the other
/// planners. Call this before anything else of dhp; further calls change nothing.
void add_peers();

}  // namespace dhp
