#pragma once

#include <nanobind/nanobind.h>

namespace dhp::bindings {

// Each mirrors headers of include/dhp under the same names.
void bind_batch(nanobind::module_& module);     // error.h, batch.h
void bind_cluster(nanobind::module_& module);   // cluster.h, cost_model.h, analytic_cost.h
void bind_plan(nanobind::module_& module);      // plan.h
void bind_planner(nanobind::module_& module);   // planner.h, explain.h
void bind_shard(nanobind::module_& module);     // shard.h
void bind_qwen3_vl(nanobind::module_& module);  // qwen3_vl.h, a submodule

}  // namespace dhp::bindings
