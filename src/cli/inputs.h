#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "dhp/batch.h"
#include "dhp/cluster.h"
#include "dhp/cost_model.h"
#include "dhp/planner.h"

namespace dhp::cli {

inline constexpr const char* kBatchHelp = "dhp.batch/1 JSON, or CSV with the header id,tokens,patches[,frame_patches]";
inline constexpr const char* kClusterHelp = "dhp.cluster/1 JSON, or a preset (ascend-910b-8x8, h100-4x8, ...)";

/// The three files that planning, checking and explaining need.
struct Inputs {
  std::string batch_file;
  std::string cluster_file;
  std::string cost_file;
  Batch batch;
  Cluster cluster;
  CostModel cost;

  void add_options(CLI::App& command);
  /// Throws InputError.
  void read();
};

/// The group that the options of planning stand in.
inline constexpr const char* kConstraints = "Constraints";

/// Adds a flag for every field of PlanOptions but the schedule. `options` must outlive the command.
void add_plan_options(CLI::App& command, PlanOptions& options);

}  // namespace dhp::cli
