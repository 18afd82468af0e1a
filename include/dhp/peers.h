#pragma once

namespace dhp {

/// Makes known to plan_batch() and planners() what others plan with, to compare with: paper, megatron-hybrid
/// and megatron-dynamic. They are a library of their own, dhp::peers; a program without it has the other planners. Call
/// it before anything else of dhp; more calls change nothing.
void add_peers();

}  // namespace dhp
