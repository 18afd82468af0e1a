// dhp simulate --sweep: planners x batches x clusters x cost models.

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <set>

#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/planners.h"
#include "cli/show/json.h"
#include "cli/show/progress.h"
#include "cli/show/report.h"
#include "cli/show/table.h"
#include "cli/simulate.h"
#include "dhp/analytic_cost.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

template <typename Value>
struct Named {
  std::string name;  // of the file, without folder and ending; of a preset, all of it
  Value value;
};

template <typename Value, typename Read>
std::vector<Named<Value>> read_all(const std::vector<std::string>& files, const Read& read) {
  std::vector<Named<Value>> all;
  all.reserve(files.size());
  for (const std::string& file : files) {
    const std::filesystem::path path(file);
    const bool has_ending = path.extension().string().starts_with(".json");  // "qwen2.5-vl-7b@h100" has none
    all.push_back({(has_ending ? path.stem() : path.filename()).string(), read(file)});
  }
  return all;
}

/// One planner on one batch, cluster and cost model.
struct Run {
  std::string planner;
  std::string batch;
  std::string cluster;
  std::string cost;
  std::string reason = {};  ///< why there is no plan
  double planning_s = 0.0;
  double predicted_s = 0.0;
  double lower_bound_s = 0.0;
  double crossing_bytes = 0.0;  ///< of the first step
  SimulationSummary summary = {};

  /// For people: parts with commas between, as reports take them apart.
  std::string name() const { return planner + ", " + batch + ", " + cluster + ", " + cost; }
};

/// "static-4_batch_cluster_cost.json"
std::string result_file_of(const Run& run) {
  std::string name = run.planner + '_' + run.batch + '_' + run.cluster + '_' + run.cost + ".json";
  std::replace(name.begin(), name.end(), ':', '-');
  return name;
}

/// Runs that would write the same file.
void refuse_same_names(const std::vector<Run>& runs) {
  std::set<std::string> names;
  for (const Run& run : runs) {
    const std::string name = result_file_of(run);
    if (names.insert(name).second) continue;
    throw InputError("--result", name,
                     "two runs would write it; name each planner once, and give files of different names");
  }
}

void make_folder(const std::string& folder) {
  if (folder.ends_with(".json")) {
    throw InputError("--result", "", "found \"" + folder + "\"; with --sweep it is a folder, with a file a run in it");
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw InputError(folder, "", "cannot be made: " + error.message());
}

void write_result(const Run& run, const std::string& file, const SimulateCommand& command, Result result) {
  result.name = run.name();
  for (ResultStep& step : result.steps)
    step.planning_s = command.options.planning_s > 0.0 ? command.options.planning_s : run.planning_s;
  write_atomically(file, to_json(result));
}

/// Plans and simulates; writes the result to the file, if one is named.
void simulate_run(Run& run, const std::string& result_file, const SimulateCommand& command, const Batch& batch,
                  const Cluster& cluster, const CostModel& cost) {
  PlanOptions options = command.plan_options;
  options.planner = run.planner;
  const auto begin = std::chrono::steady_clock::now();
  PlanResult result;
  try {
    result = plan_batch(batch, cluster, cost, options);
  } catch (const InputError& error) {  // a rule of this planner's own
    run.reason = error.what();
    return;
  }
  run.planning_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (const auto* infeasible = std::get_if<Infeasible>(&result)) {
    run.reason = infeasible->reason;
    return;
  }
  Plan& plan = std::get<Plan>(result);
  certify(plan, batch, cluster, cost);
  run.planner = plan.planner;
  run.predicted_s = plan.predicted->makespan_s;
  run.lower_bound_s = plan.predicted->lower_bound_s;
  const Simulation simulation = simulate(plan, batch, cluster, cost, command.options);
  run.crossing_bytes = simulation.steps.front().crossing_bytes;
  run.summary = summarise(simulation, cluster);
  if (result_file.empty()) return;
  write_result(run, result_file, command, to_result(simulation, plan, batch, cluster, cost));
}

/// What a run reads.
struct Cell {
  const Batch* batch;
  const Cluster* cluster;
  const CostModel* cost;
};

std::vector<Run> run_all(const SimulateCommand& command) {
  const auto batches = read_all<Batch>(command.batch_files, read_batch);
  const auto clusters = read_all<Cluster>(command.cluster_files, read_cluster);
  // A cost of each cluster: one that is counted by name depends on the number of ranks.
  std::vector<std::vector<Named<CostModel>>> costs;
  costs.reserve(clusters.size());
  for (const Named<Cluster>& named : clusters) {
    costs.push_back(read_all<CostModel>(command.cost_files, [&named](const std::string& cost_file) {
      return read_cost_model(cost_file, named.value);
    }));
  }
  std::vector<Run> runs;
  std::vector<Cell> cells;
  for (std::size_t k = 0; k < command.cost_files.size(); ++k) {
    for (std::size_t i = 0; i < batches.size(); ++i) {
      note_frames(batches[i].value, command.batch_files[i], costs.front()[k].value);
    }
    for (std::size_t c = 0; c < clusters.size(); ++c) {
      const auto& [cost_name, cost] = costs[c][k];
      for (const auto& [batch_name, batch] : batches) {
        for (const std::string& planner : planner_names(command.planners)) {
          runs.push_back({.planner = planner, .batch = batch_name, .cluster = clusters[c].name, .cost = cost_name});
          cells.push_back({&batch, &clusters[c].value, &cost});
        }
      }
    }
  }
  if (!command.result_file.empty()) {
    refuse_same_names(runs);
    make_folder(command.result_file);
  }
  Progress progress(static_cast<int>(runs.size()));
  for (std::size_t i = 0; i < runs.size(); ++i) {
    Run& run = runs[i];
    progress.show(static_cast<int>(i), run.planner + ", " + run.batch + ", " + run.cluster);
    const auto& [batch, cluster, cost] = cells[i];
    const std::string file =
        command.result_file.empty() ? "" : (std::filesystem::path(command.result_file) / result_file_of(run)).string();
    simulate_run(run, file, command, *batch, *cluster, *cost);
  }
  return runs;
}

std::string to_text(const SimulateCommand& command, const std::vector<Run>& runs) {
  std::vector<TextTable::Column> columns;
  // A column that would say the same in all rows says nothing.
  const bool shows[] = {command.cost_files.size() > 1, command.cluster_files.size() > 1,
                        command.batch_files.size() > 1};
  const char* headings[] = {"cost", "cluster", "batch"};
  for (std::size_t i = 0; i < std::size(shows); ++i) {
    if (shows[i]) columns.push_back({headings[i], TextTable::Align::left});
  }
  columns.push_back({"planner", TextTable::Align::left});
  const bool waits_for_data = command.options.planning_s > 0.0;
  for (const char* heading : {"step", "95 %", "predicted", "× bound", "idle", "peer", "transfer"}) {
    columns.push_back({heading});
  }
  if (waits_for_data) columns.push_back({"data"});
  for (const char* heading : {"no task", "between nodes", "planning"}) columns.push_back({heading});
  TextTable table(std::move(columns));
  for (const Run& run : runs) {
    std::vector<std::string> cells;
    const std::string names[] = {run.cost, run.cluster, run.batch};
    for (std::size_t i = 0; i < std::size(shows); ++i) {
      if (shows[i]) cells.push_back(names[i]);
    }
    cells.push_back(run.planner);
    if (!run.reason.empty()) {
      cells.push_back(run.reason);
      table.add(std::move(cells));
      continue;
    }
    const SimulationSummary& s = run.summary;
    const auto share = [&](double seconds) { return percent_text(s.capacity_s > 0.0 ? seconds / s.capacity_s : 0.0); };
    for (std::string cell : {seconds_text(s.mean_s), seconds_text(s.percentile95_s), seconds_text(run.predicted_s),
                             run.lower_bound_s > 0.0 ? fixed_text(s.mean_s / run.lower_bound_s, 3) : std::string("-"),
                             share(s.idle.total_s()), share(s.idle.peer_s), share(s.idle.transfer_s)}) {
      cells.push_back(std::move(cell));
    }
    if (waits_for_data) cells.push_back(share(s.idle.data_s));
    cells.push_back(share(s.idle.no_task_s));
    cells.push_back(bytes_text(run.crossing_bytes));
    cells.push_back(fixed_text(run.planning_s * 1e3, 1) + " ms");
    table.add(std::move(cells));
  }
  const std::string noise = noise_text(command.options);
  return count(runs.size(), "run") + " of " + count(static_cast<std::size_t>(command.options.steps), "step") +
         (noise.empty() ? "" : ", " + noise) + '\n' + table.text();
}

Json to_json(const Run& run) {
  Json json = {{"planner", run.planner}, {"batch", run.batch}, {"cluster", run.cluster}, {"cost", run.cost}};
  if (!run.reason.empty()) {
    json["reason"] = run.reason;
    return json;
  }
  json["mean_s"] = run.summary.mean_s;
  json["least_s"] = run.summary.least_s;
  json["percentile95_s"] = run.summary.percentile95_s;
  json["most_s"] = run.summary.most_s;
  json["predicted_s"] = run.predicted_s;
  json["lower_bound_s"] = if_bounded(run.lower_bound_s, run.lower_bound_s);
  json["idle_share"] = run.summary.idle_share();
  json["idle_s"] = idle_json(run.summary.idle);
  json["crossing_bytes"] = run.crossing_bytes;
  json["planning_s"] = run.planning_s;
  return json;
}

}  // namespace

int run_sweep(const SimulateCommand& command) {
  for (const auto& [flag, given] :
       {std::pair{"--plan", !command.plan_file.empty()}, std::pair{"--trace", !command.trace.empty()}}) {
    if (given) throw InputError(flag, "", "is for one plan, not for --sweep");
  }
  const std::vector<Run> runs = run_all(command);
  if (command.json) {
    Json json = {{"steps", command.options.steps},
                 {"noise", errors_json(command.options.noise)},
                 {"seed", command.options.seed},
                 {"runs", Json::array()}};
    for (const Run& run : runs) json["runs"].push_back(to_json(run));
    std::cout << json_line(json);
  } else {
    std::cout << to_text(command, runs);
  }
  const bool any = std::any_of(runs.begin(), runs.end(), [](const Run& run) { return run.reason.empty(); });
  return any ? kOk : kNo;
}

}  // namespace dhp::cli
