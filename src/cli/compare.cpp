// dhp compare: one table over planners, for the batch at hand.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <memory>
#include <numeric>
#include <optional>

#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/planners.h"
#include "cli/show/json.h"
#include "cli/show/report.h"
#include "cli/show/table.h"
#include "dhp/bound.h"
#include "dhp/error.h"
#include "dhp/metrics.h"
#include "dhp/planner.h"

namespace dhp::cli {
namespace {

struct CompareCommand {
  Inputs inputs;
  PlanOptions options;
  std::string planners;
  std::optional<ErrorSizes> given_noise;
  int trials = kExpectedTrials;
  std::uint64_t seed = kExpectedSeed;
  bool json = false;

  /// Under which steps are expected.
  ErrorSizes noise() const { return given_noise.value_or(expected_errors(inputs.cost)); }
};

struct Noisy {
  double mean_s = 0.0;
  double percentile95_s = 0.0;
};

/// What one planner makes of the batch: a plan, or the reason why there is none.
struct Entry {
  std::string planner;
  std::string reason;
  Plan plan = {};
  PlanMetrics metrics = {};
  double bound_s = 0.0;  ///< 0: none is known
  double planning_s = 0.0;
  std::optional<Noisy> noisy = {};

  bool planned() const { return reason.empty(); }
  /// What entries are ranked by.
  double step_s() const { return noisy ? noisy->mean_s : metrics.makespan_s; }
};

Noisy noisy_of(const CompareCommand& command, const Plan& plan) {
  const Inputs& in = command.inputs;
  const std::vector<double> makespans =
      noisy_makespans(plan, in.batch, in.cluster, in.cost, command.noise(), command.trials, command.seed);
  const double sum = std::accumulate(makespans.begin(), makespans.end(), 0.0);
  constexpr double kTail = 0.95;
  return {sum / static_cast<double>(makespans.size()), percentile(makespans, kTail)};
}

/// Seconds of the calls so far, until there are enough for a median or they have taken long enough.
bool is_enough(const std::vector<double>& seconds) {
  constexpr std::size_t kRuns = 5;
  constexpr double kLongEnough = 2.0;
  return seconds.size() >= kRuns || std::accumulate(seconds.begin(), seconds.end(), 0.0) > kLongEnough;
}

Entry try_planner(const CompareCommand& command, const std::string& planner) {
  const Inputs& in = command.inputs;
  Entry entry{.planner = planner, .reason = {}};
  PlanOptions options = command.options;
  options.planner = planner;
  try {
    std::vector<double> seconds;
    PlanResult result;
    do {
      const auto begin = std::chrono::steady_clock::now();
      result = plan_batch(in.batch, in.cluster, in.cost, options);
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    } while (std::holds_alternative<Plan>(result) && !is_enough(seconds));
    if (const auto* infeasible = std::get_if<Infeasible>(&result)) {
      entry.reason = infeasible->reason;
      return entry;
    }
    entry.plan = std::get<Plan>(std::move(result));
    entry.planning_s = percentile(seconds, 0.5);
  } catch (const InputError& error) {  // a rule of this planner's own
    entry.reason = error.what();
    return entry;
  }
  entry.metrics = plan_metrics(entry.plan, in.batch, in.cluster, in.cost);
  if (!uses_all_to_all(entry.plan)) entry.bound_s = tighter_lower_bound_s(in.batch, in.cluster, in.cost);
  if (command.noise().any()) entry.noisy = noisy_of(command, entry.plan);
  return entry;
}

/// Whether and why a static mesh is as good as `free`; else empty. Entries are ranked.
std::string mesh_text(const std::vector<Entry>& entries, const Batch& batch) {
  constexpr double kAsGood = 1.01;  // times the step of free
  constexpr double kAlike = 1.1;    // the longest over the shortest
  const auto with_name = [&](std::string_view part) {
    return std::find_if(entries.begin(), entries.end(), [&](const Entry& entry) {
      return entry.planned() && !entry.plan.tasks.empty() && entry.plan.planner.find(part) != std::string::npos;
    });
  };
  const auto free = with_name("free");
  const auto mesh = with_name("static");
  if (free == entries.end() || mesh == entries.end() || mesh->step_s() > kAsGood * free->step_s()) return "";
  const auto [shortest, longest] =
      std::minmax_element(batch.sequences.begin(), batch.sequences.end(),
                          [](const Sequence& a, const Sequence& b) { return a.tokens < b.tokens; });
  const bool alone = std::all_of(free->plan.tasks.begin(), free->plan.tasks.end(),
                                 [](const Task& task) { return task.degree() == 1; });
  const bool alike = static_cast<double>(longest->tokens) <= kAlike * static_cast<double>(shortest->tokens);
  const std::string ratio = fixed_text(mesh->step_s() / free->step_s(), 3);
  return mesh->plan.planner + " is as good here, at " + ratio + " times the step of free: " +
         (alike   ? "all sequences are about equally long"
          : alone ? "no sequence needs more than one rank, and whole sequences level the ranks"
                  : "degrees of one's own save no more than they cost") +
         "\n";
}

std::string to_text(const std::vector<Entry>& entries, const CompareCommand& command, const CostModel& cost) {
  std::vector<TextTable::Column> columns = {{"planner", TextTable::Align::left},
                                            {"makespan"},
                                            {"× bound"},
                                            {"expected"},
                                            {"95 %"},
                                            {"idle"},
                                            {"transfer"},
                                            {"peak memory"},
                                            {"peers"},
                                            {"tasks"},
                                            {"planning"}};
  const int stages = command.options.pipeline_stages;
  if (stages > 1) columns.push_back({count(static_cast<std::size_t>(stages), "stage")});
  TextTable table(std::move(columns));
  double best_bound_s = 0.0;
  for (const Entry& entry : entries) {
    if (!entry.planned()) {
      table.add({entry.planner, entry.reason});
      continue;
    }
    const PlanMetrics& m = entry.metrics;
    best_bound_s = std::max(best_bound_s, entry.bound_s);
    std::vector<std::string> cells = {entry.plan.planner,
                                      seconds_text(m.makespan_s),
                                      entry.bound_s > 0.0 ? fixed_text(m.makespan_s / entry.bound_s, 3) : "-",
                                      seconds_text(entry.step_s()),
                                      entry.noisy ? seconds_text(entry.noisy->percentile95_s) : "-",
                                      percent_text(m.idle_share),
                                      percent_text(m.exposed_transfer_share),
                                      memory_text(m.peak_memory_bytes, cost) + " " + percent_text(m.peak_memory_share),
                                      std::to_string(m.most_peers),
                                      std::to_string(entry.plan.tasks.size()),
                                      fixed_text(entry.planning_s * 1e3, 1) + " ms"};
    if (stages > 1) {
      const bool lockstep = entry.plan.schedule == Schedule::lockstep;
      cells.push_back(lockstep ? seconds_text(m.pipeline_s(stages)) : "-");
    }
    table.add(std::move(cells));
  }
  const Inputs& in = command.inputs;
  std::string text = count(in.batch.sequences.size(), "sequence") + " on " +
                     count(static_cast<std::size_t>(in.cluster.ranks()), "rank");
  if (best_bound_s > 0.0) text += ", bound " + seconds_text(best_bound_s);
  text += '\n' + table.text();
  if (command.noise().any()) {
    text += "expected: mean of " + count(static_cast<std::size_t>(command.trials), "step") + " with errors of " +
            to_text(command.noise()) + " (each sequence, task, rank of a task), seed " + std::to_string(command.seed) +
            "; 95 %: of these steps at most\n";
  }
  return text + mesh_text(entries, in.batch);
}

Json to_json(const Entry& entry, int stages) {
  if (!entry.planned()) return {{"planner", entry.planner}, {"reason", entry.reason}};
  const PlanMetrics& m = entry.metrics;
  Json json = {{"planner", entry.plan.planner},
               {"makespan_s", m.makespan_s},
               {"lower_bound_s", if_bounded(entry.bound_s, entry.bound_s)},
               {"ratio_to_bound", if_bounded(entry.bound_s, m.makespan_s / entry.bound_s)},
               {"idle_share", m.idle_share},
               {"exposed_transfer_s", m.exposed_transfer_s},
               {"exposed_transfer_share", m.exposed_transfer_share},
               {"peak_memory_bytes", m.peak_memory_bytes},
               {"peak_memory_share", m.peak_memory_share},
               {"most_peers", m.most_peers},
               {"tasks", entry.plan.tasks.size()},
               {"planning_s", entry.planning_s}};
  if (stages > 1) {
    json["pipeline_s"] = entry.plan.schedule == Schedule::lockstep ? Json(m.pipeline_s(stages)) : Json(nullptr);
  }
  if (entry.noisy) {
    json["expected_s"] = entry.noisy->mean_s;
    json["expected_percentile95_s"] = entry.noisy->percentile95_s;
  }
  return json;
}

int run(CompareCommand& command) {
  Inputs& in = command.inputs;
  in.read();
  note_frames(in.batch, in.batch_file, in.cost);
  note_shared_links(in.cluster, in.cluster_file, command.options);
  std::vector<Entry> entries;
  for (const std::string& planner : planner_names(command.planners)) entries.push_back(try_planner(command, planner));
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    if (a.planned() != b.planned()) return a.planned();
    return a.planned() && a.step_s() < b.step_s();
  });
  if (command.json) {
    Json json = {{"planners", Json::array()}};
    for (const Entry& entry : entries) json["planners"].push_back(to_json(entry, command.options.pipeline_stages));
    if (command.noise().any()) {
      json["noise"] = {{"sizes", errors_json(command.noise())}, {"trials", command.trials}, {"seed", command.seed}};
    }
    std::cout << json_line(json);
  } else {
    std::cout << to_text(entries, command, in.cost);
  }
  return !entries.empty() && entries.front().planned() ? kOk : kNo;
}

}  // namespace

void add_compare_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<CompareCommand>();
  CLI::App& sub = *app.add_subcommand("compare", "Plan a batch with every planner and compare the plans");
  command->inputs.add_options(sub);
  add_planners_option(sub, command->planners);
  add_noise_option(
      sub, std::string(kNoiseHelp) + "; default: expected_error of the cost file, else " + to_text(ErrorSizes{}),
      [command](const ErrorSizes& sizes) { command->given_noise = sizes; });
  sub.add_option("--trials", command->trials, "steps with errors to average over")
      ->check(whole_from(1, 1'000'000))
      ->capture_default_str();
  sub.add_option("--seed", command->seed, "seed of the errors")->check(any_seed())->capture_default_str();
  add_plan_options(sub, command->options);
  add_output_format(sub, command->json);
  sub.footer(
      "Planners are ranked by their expected step: the mean over steps whose tasks err. \"transfer\" is the share of "
      "all ranks' time spent waiting for transfers, \"peers\" the largest number of\n"
      "ranks that one rank shares tasks with, \"planning\" the median of up to five runs. A planner that finds no\n"
      "plan says why. \"idle\" is the share in which no task runs; dhp simulate also counts waits for transfers as\n"
      "idle. The bound does not hold for all_to_all, so ulysses has none.\n"
      "A constraint that lists planners in parentheses applies only to those. With --pipeline-stages, a column\n"
      "shows the step of lockstep plans in such a pipeline.\n"
      "Exit codes: 0 compared, 1 no planner has a plan, 2 bad input.");
  sub.callback([command, &exit_code] { exit_code = run(*command); });
}

}  // namespace dhp::cli
