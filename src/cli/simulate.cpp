// dhp simulate: what a plan does on a cluster, event by event.

#include "cli/simulate.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <numeric>

#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/planners.h"
#include "cli/show/json.h"
#include "cli/show/report.h"
#include "dhp/analytic_cost.h"
#include "dhp/error.h"
#include "dhp/metrics.h"
#include "dhp/trace.h"

namespace dhp::cli {
namespace {

/// The three files and the plan, read and found to belong together.
struct Subject {
  Batch batch;
  Cluster cluster;
  CostModel cost;
  Plan plan;
};

const std::string& only_one(const std::vector<std::string>& files, const std::string& flag) {
  if (files.size() == 1) return files.front();
  throw InputError(flag, "", "found " + std::to_string(files.size()) + " of them, expected one; for more, --sweep");
}

Subject read(const SimulateCommand& command) {
  if (command.plan_file.empty()) throw InputError("--plan", "", "missing; --sweep plans by itself");
  for (const std::string& file : {command.trace, command.result_file}) refuse_overwriting(file, command.files_read());
  const Cluster cluster = read_cluster(only_one(command.cluster_files, "--cluster"));
  return {.batch = read_batch(only_one(command.batch_files, "--batch")),
          .cluster = cluster,
          .cost = read_cost_model(only_one(command.cost_files, "--cost"), cluster),
          .plan = read_tasks(command.plan_file)};
}

std::string steps_text(const SimulateCommand& command, const SimulationSummary& summary) {
  if (command.options.steps == 1) return "";
  return "steps     " + std::to_string(command.options.steps) + (command.options.noise.any() ? ", " : "") +
         noise_text(command.options) + ": " + seconds_text(summary.least_s) + " to " + seconds_text(summary.most_s) +
         ", 95 % at most " + seconds_text(summary.percentile95_s) + '\n';
}

std::string end_text(const SimulateCommand& command, const SimulatedStep& step) {
  std::string text;
  if (step.optimizer_end_s > step.tasks_end_s) {
    text += "end       " + seconds_text(step.reduce_end_s - step.tasks_end_s) + " gradient reduction, " +
            seconds_text(step.optimizer_end_s - step.reduce_end_s) + " optimizer\n";
  }
  if (command.options.planning_s > 0.0) {
    const double shown_s = step.seconds - step.optimizer_end_s;
    text += "planning  " + seconds_text(command.options.planning_s) + " for the next batch, " +
            (shown_s > 0.0 ? seconds_text(shown_s) + " longer than the step" : "hidden behind the step") + '\n';
  }
  return text;
}

/// Seconds in which shards were on their way, and in which ranks waited for them, summed over ranks.
std::pair<double, double> transfers(const SimulatedStep& step) {
  std::pair<double, double> sums = {0.0, 0.0};
  for (const SimulatedRank& rank : step.ranks) {
    sums.first += rank.transfer_s;
    sums.second += rank.idle.transfer_s;
  }
  return sums;
}

std::string to_text(const SimulateCommand& command, const Subject& subject, const Simulation& simulation,
                    const Result& result) {
  const SimulationSummary summary = summarise(simulation, subject.cluster);
  const SimulatedStep& step = simulation.steps.front();
  std::string text =
      "step " + seconds_text(summary.mean_s) + " (plan predicted " + seconds_text(*result.steps.front().predicted_s) +
      (result.steps.front().lower_bound_s ? ", bound " + seconds_text(*result.steps.front().lower_bound_s) : "") +
      "), idle " + idle_text(summary) + '\n';
  text += steps_text(command, summary);
  text += end_text(command, step);
  if (step.shard_bytes > 0.0) {
    const auto [transfer_s, exposed_s] = transfers(step);
    text += "moved     " + bytes_text(step.shard_bytes) + (command.options.steps > 1 ? " a step" : "") +
            " between ranks, " + bytes_text(step.crossing_bytes) + " of it between nodes";
    if (transfer_s > 0.0) text += "; " + percent_text(1.0 - exposed_s / transfer_s) + " of the time behind attention";
    text += '\n';
  }
  const std::vector<double>& peaks = result.memory->peak_bytes;
  const auto fullest = std::max_element(peaks.begin(), peaks.end());
  if (fullest != peaks.end() && *fullest > 0.0) {
    text += "memory    " + memory_text(*fullest, subject.cost) + " of activations on rank " +
            std::to_string(fullest - peaks.begin()) + ", " + percent_text(*fullest / result.memory->budget_bytes) +
            " of its budget\n";
  }
  return text;
}

Json to_json(const SimulatedStep& step, const ResultStep& result) {
  const auto [transfer_s, exposed_s] = transfers(step);
  return {{"step", result.step},
          {"seconds", step.seconds},
          {"tasks_end_s", step.tasks_end_s},
          {"reduce_end_s", step.reduce_end_s},
          {"optimizer_end_s", step.optimizer_end_s},
          {"idle_s", idle_json(result.idle)},
          {"communication_s", transfer_s},
          {"exposed_communication_s", exposed_s},
          {"shard_bytes", step.shard_bytes},
          {"crossing_bytes", step.crossing_bytes}};
}

/// Every rank over all steps. Gradient reduction is communication that nothing hides.
Json ranks_json(const Simulation& simulation) {
  const std::vector<SimulatedRank>& sums = simulation.rank_totals;
  Json ranks = Json::array();
  for (std::size_t rank = 0; rank < sums.size(); ++rank) {
    const SimulatedRank& at = sums[rank];
    ranks.push_back({{"rank", rank},
                     {"compute_s", at.compute_s},
                     {"idle_s", idle_json(at.idle)},
                     {"reduce_s", at.reduce_s},
                     {"optimizer_s", at.optimizer_s},
                     {"communication_s", at.transfer_s + at.reduce_s},
                     {"exposed_communication_s", at.idle.transfer_s + at.reduce_s}});
  }
  return ranks;
}

std::string to_json(const SimulateCommand& command, const Subject& subject, const Simulation& simulation,
                    const Result& result) {
  const SimulationSummary summary = summarise(simulation, subject.cluster);
  Json json = {
      {"planner", result.planner},
      {"ranks", result.ranks},
      {"predicted_s", *result.steps.front().predicted_s},
      {"lower_bound_s", if_bounded(subject.plan.predicted->lower_bound_s, subject.plan.predicted->lower_bound_s)},
      {"mean_s", summary.mean_s},
      {"least_s", summary.least_s},
      {"percentile95_s", summary.percentile95_s},
      {"most_s", summary.most_s},
      {"idle_share", summary.idle_share()},
      {"noise", errors_json(command.options.noise)},
      {"seed", command.options.seed},
      {"memory", {{"budget_bytes", result.memory->budget_bytes}, {"peak_bytes", result.memory->peak_bytes}}}};
  Json steps = Json::array();
  for (std::size_t i = 0; i < simulation.steps.size(); ++i) {
    steps.push_back(to_json(simulation.steps[i], result.steps[i]));
  }
  json["steps"] = std::move(steps);
  json["rank_totals"] = ranks_json(simulation);
  return json_line(json);
}

/// A folder with a file a rank, or one file with all of them.
void write_trace(const SimulateCommand& command, const Subject& subject, const Simulation& simulation) {
  const std::string& place = command.trace;
  const std::filesystem::path path = place;
  std::error_code error;
  if (!place.ends_with('/') && !std::filesystem::is_directory(path, error)) {
    return write_atomically(place, [&](const TextSink& write) {
      chrome_trace(write, simulation, subject.plan, subject.batch, subject.cluster, subject.cost);
    });
  }
  std::filesystem::create_directories(path, error);
  if (error) throw InputError(place, "", "cannot be made: " + error.message());
  for (const Rank rank : subject.cluster.live_ranks()) {
    const std::string file = (path / rank_trace_name(rank)).string();
    refuse_overwriting(file, command.files_read());
    write_atomically(
        file, [&](const TextSink& write) { rank_trace(write, simulation, subject.plan, subject.cluster, rank); });
  }
}

/// A plan that is there already is run as it is.
void refuse_planning_options(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    const bool plans = option->get_group() == kConstraints || option->get_name() == "--planners";
    if (plans && option->count() > 0) {
      throw InputError(option->get_name(), "", "is for --sweep, which plans; the plan of --plan is run as it is");
    }
  }
}

int run(SimulateCommand& command) {
  Subject subject = read(command);
  const auto& [batch, cluster, cost, plan] = subject;
  note_frames(batch, command.batch_files.front(), cost);
  if (!is_valid(plan, command.plan_file, batch, cluster, cost)) return kNo;
  annotate(subject.plan, batch, cluster, cost);
  certify(subject.plan, batch, cluster, cost);
  command.options.recorded_steps = command.trace.empty() ? 1 : command.options.steps;
  const Simulation simulation = simulate(plan, batch, cluster, cost, command.options);
  Result result = to_result(simulation, plan, batch, cluster, cost);
  if (command.options.planning_s > 0.0) {
    for (ResultStep& step : result.steps) step.planning_s = command.options.planning_s;
  }
  if (!command.trace.empty()) write_trace(command, subject, simulation);
  if (!command.result_file.empty()) write_atomically(command.result_file, dhp::to_json(result));
  std::cout << (command.json ? to_json(command, subject, simulation, result)
                             : to_text(command, subject, simulation, result));
  return kOk;
}

}  // namespace

std::vector<std::string> SimulateCommand::files_read() const {
  std::vector<std::string> files = {plan_file};
  for (const auto* some : {&batch_files, &cluster_files, &cost_files})
    files.insert(files.end(), some->begin(), some->end());
  return files;
}

SimulationSummary summarise(const Simulation& simulation, const Cluster& cluster) {
  SimulationSummary summary;
  std::vector<double> seconds;
  for (const SimulatedStep& step : simulation.steps) {
    seconds.push_back(step.seconds);
    summary.idle += step.idle;
  }
  const double sum = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  constexpr double kTail = 0.95;
  summary.mean_s = sum / static_cast<double>(seconds.size());
  summary.least_s = *std::min_element(seconds.begin(), seconds.end());
  summary.most_s = *std::max_element(seconds.begin(), seconds.end());
  summary.percentile95_s = percentile(seconds, kTail);
  summary.capacity_s = sum * static_cast<double>(cluster.live_ranks().size());
  return summary;
}

std::string idle_text(const SimulationSummary& summary) {
  const auto share = [&](double seconds) {
    return percent_text(summary.capacity_s > 0.0 ? seconds / summary.capacity_s : 0.0);
  };
  const IdleTime& idle = summary.idle;
  return share(idle.total_s()) + ": peer " + share(idle.peer_s) + ", transfer " + share(idle.transfer_s) + ", data " +
         share(idle.data_s) + ", no task " + share(idle.no_task_s);
}

Json idle_json(const IdleTime& idle) {
  return {{"peer", idle.peer_s}, {"transfer", idle.transfer_s}, {"data", idle.data_s}, {"no_task", idle.no_task_s}};
}

std::string noise_text(const SimulateOptions& options) {
  if (!options.noise.any()) return "";
  return "noise " + to_text(options.noise) + ", seed " + std::to_string(options.seed);
}

void add_simulate_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<SimulateCommand>();
  CLI::App& sub = *app.add_subcommand("simulate", "Run a plan on a model of the cluster, event by event");
  sub.add_option("--batch", command->batch_files, kBatchHelp)->required();
  sub.add_option("--cluster", command->cluster_files, kClusterHelp)->required();
  sub.add_option("--cost", command->cost_files, kCostHelp)->required();
  sub.add_option("--plan", command->plan_file, kPlanHelp);
  sub.add_option("--steps", command->options.steps, "number of times to run the plan, each with different noise")
      ->check(whole_from(1, 1'000'000))
      ->capture_default_str();
  add_noise_option(sub, kNoiseHelp, [command](const ErrorSizes& sizes) {
    command->options.noise = sizes;
  })->default_str("0");
  sub.add_option("--seed", command->options.seed, "seed of the noise")->check(any_seed())->capture_default_str();
  sub.add_option("--planning-s", command->options.planning_s,
                 "seconds that planning the next batch takes during each step")
      ->check(number_from(0.0, 1e9))
      ->capture_default_str();
  sub.add_option(
      "--trace", command->trace,
      "file for a Chrome trace (Perfetto); or a folder, ending in /, for one file per rank in the format of\n"
      "Holistic Trace Analysis");
  sub.add_option(
      "--result", command->result_file,
      "file for the result (dhp.result/1 JSON), for dhp report; with --sweep, a folder for one file per run");
  sub.add_flag("--sweep", command->sweep,
               "instead of --plan: every planner on every --batch, --cluster and --cost; each may be repeated");
  add_planners_option(sub, command->planners);
  add_plan_options(sub, command->plan_options);
  add_output_format(sub, command->json);
  sub.footer(
      "Idle time by cause: peer (ready, but another rank is not), transfer (waiting for shards), data (the next\n"
      "batch is not planned yet), no task (nothing left to run). Ranks out of service do not count.\n"
      "A constraint that lists planners in parentheses applies only to those.\n"
      "Exit codes: 0 simulated, 1 not a valid plan for the batch, or no planner has one, 2 bad input.");
  sub.callback([command, &sub, &exit_code] {
    if (command->sweep) {
      exit_code = run_sweep(*command);
      return;
    }
    refuse_planning_options(sub);
    exit_code = run(*command);
  });
}

}  // namespace dhp::cli
