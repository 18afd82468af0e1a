#pragma once

#include <nanobind/nanobind.h>

#include <string>
#include <vector>

namespace dhp {
struct Batch;
struct Cluster;
struct CostModel;
struct ErrorSizes;
struct PlanOptions;
}  // namespace dhp

namespace dhp::bindings {

// Each binds what Python needs of headers of include/dhp, under the same names.
void bind_batch(nanobind::module_& module);          // error.h, batch.h
void bind_cluster(nanobind::module_& module);        // cluster.h, cost_model.h
void bind_analytic_cost(nanobind::module_& module);  // presets.h, device.h, analytic_cost.h
void bind_plan(nanobind::module_& module);           // plan.h
void bind_planner(nanobind::module_& module);        // planner.h, bound.h, explain.h, metrics.h
void bind_options(nanobind::module_& module);        // plan_options.h
void bind_shard(nanobind::module_& module);          // shard.h
void bind_qwen_vl(nanobind::module_& module);        // qwen_vl.h, a submodule
void bind_internvl(nanobind::module_& module);       // internvl.h, a submodule
void bind_tokens(nanobind::module_& module);         // tokens.h
void bind_simulator(nanobind::module_& module);      // simulator.h, result.h, trace.h
void bind_links(nanobind::module_& module);          // base/links.h

/// `Name(field=value, ...)`; a long list is shown by its length.
std::string shown(nanobind::handle self, const std::vector<std::string>& names);

/// Of operators that compare with anything.
inline const auto kEqual = nanobind::sig("def __eq__(self, arg: object, /) -> bool");

/// Throws InputError unless each is valid: objects that Python made, or changed, are not by themselves.
void require_valid(const Batch& batch, const Cluster& cluster, const CostModel& cost);

/// An ErrorSizes, or a text or number as parse_error_sizes() reads it. Throws InputError.
ErrorSizes error_sizes_of(nanobind::handle value, const std::string& name);

/// Keywords as PlanOptions, by the table of options. Numbers, truth values, names, enum values, and lists of them.
/// Throws InputError for an unknown keyword and for a value of another kind or out of range.
PlanOptions options_of(const nanobind::kwargs& keywords);

/// The signature of a function that takes `parameters` and then every option as a keyword, for stubs and help.
nanobind::sig signature(const std::string& name, const std::string& parameters, const std::string& result);

}  // namespace dhp::bindings
