#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "dhp/batch.h"
#include "dhp/cluster.h"
#include "dhp/cost_model.h"

namespace dhp::cli {

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

}  // namespace dhp::cli
