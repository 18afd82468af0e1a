#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "dhp/planner.h"
#include "dhp/simulator.h"

namespace dhp::cli {

/// What `dhp simulate` was asked for.
struct SimulateCommand {
  std::vector<std::string> batch_files;
  std::vector<std::string> cluster_files;
  std::vector<std::string> cost_files;
  std::string plan_file;
  std::string trace;        ///< a file, or a folder if it ends in /
  std::string result_file;  ///< of a sweep: a folder
  SimulateOptions options;
  bool json = false;

  bool sweep = false;
  std::string planners;
  PlanOptions plan_options;

  std::vector<std::string> files_read() const;
};

/// Step times and idle time of a simulation in figures.
struct SimulationSummary {
  double mean_s = 0.0;
  double least_s = 0.0;
  double percentile95_s = 0.0;
  double most_s = 0.0;
  double capacity_s = 0.0;  ///< rank-seconds of ranks in service
  IdleTime idle = {};       ///< of all steps

  double idle_share() const { return capacity_s > 0.0 ? idle.total_s() / capacity_s : 0.0; }
};
SimulationSummary summarise(const Simulation& simulation, const Cluster& cluster);

/// "0.3 %: peer 0.0 %, transfer 0.0 %, data 0.0 %, no task 0.3 %"
std::string idle_text(const SimulationSummary& summary);
nlohmann::ordered_json idle_json(const IdleTime& idle);

/// "noise 0.02,0.02,0.01, seed 7"
std::string noise_text(const SimulateOptions& options);

/// `dhp simulate --sweep`: every planner on every batch, cluster and cost model.
int run_sweep(const SimulateCommand& command);

}  // namespace dhp::cli
