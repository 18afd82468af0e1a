#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "dhp/batch.h"
#include "dhp/cluster.h"
#include "dhp/cost_model.h"
#include "dhp/plan.h"
#include "dhp/planner.h"

namespace dhp::cli {

inline constexpr const char* kBatchHelp =
    "dhp.batch/1 JSON, or an index from dhp index: all of its samples as one batch";
inline constexpr const char* kClusterHelp = "dhp.cluster/1 JSON, or a preset (ascend-910b-8x8, h100-4x8, ...)";
inline constexpr const char* kCostHelp = "dhp.cost/1 JSON, or MODEL@DEVICE (qwen3-vl-8b@h100), counted as by dhp cost";
inline constexpr const char* kPlanHelp = "dhp.plan/1 JSON";

/// The three files that planning, checking and explaining need.
struct Inputs {
  std::string batch_file;
  std::string cluster_file;
  std::string cost_file;
  Batch batch;
  Cluster cluster;
  CostModel cost;

  void add_options(CLI::App& command);
  /// Throws InputError, also where `out_file`, which the command writes, is one of the three.
  void read(const std::string& out_file = "");
};

/// A plan without its predictions, which are made anew: it may be of another network or cost file than those at hand.
Plan read_tasks(const std::string& file);

/// Whether check_plan() finds nothing; else says what on standard error.
bool is_valid(const Plan& plan, const std::string& file, const Batch& batch, const Cluster& cluster,
              const CostModel& cost);

/// What a batch or a cluster says that is not counted: a line on standard error, and what to do.
void note_frames(const Batch& batch, const std::string& batch_file, const CostModel& cost);
void note_shared_links(const Cluster& cluster, const std::string& cluster_file, const PlanOptions& options);

/// The group that the options of planning stand in.
inline constexpr const char* kConstraints = "Constraints";

/// Adds a flag for every field of PlanOptions but the planner, and the bound, which is always the tighter one here.
/// `options` must outlive the command.
void add_plan_options(CLI::App& command, PlanOptions& options);
/// Of these, those that a plan can be seen to break (check_options).
void add_checked_options(CLI::App& command, PlanOptions& options);

/// Everything in which a valid plan breaks the options that the command line of `command` gives; those that it does not
/// give ask for nothing.
std::vector<std::string> broken_options(const CLI::App& command, const PlanOptions& options, const Plan& plan,
                                        const Inputs& inputs);

}  // namespace dhp::cli
