#include "dhp/plan.h"

#include <iostream>
#include <memory>
#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/show/json.h"
#include "cli/show/report.h"
#include "dhp/metrics.h"
#include "dhp/plan_options.h"

namespace dhp::cli {
namespace {

struct PlanCommand {
  Inputs inputs;
  PlanOptions options;
  std::string out_file;
  bool json = false;
};

std::string to_json(const Infeasible& answer) {
  const Json json = {{"infeasible",
                      {{"reason", answer.reason},
                       {"sequence", answer.sequence ? Json(*answer.sequence) : Json(nullptr)},
                       {"needed_bytes", answer.needed_bytes},
                       {"offered_bytes", answer.offered_bytes},
                       {"needed_ranks", answer.needed_ranks}}}};
  return json_line(json);
}

int run(PlanCommand& command) {
  Inputs& in = command.inputs;
  refuse_unused(command.options);
  in.read(command.out_file);
  note_frames(in.batch, in.batch_file, in.cost);
  note_shared_links(in.cluster, in.cluster_file, command.options);
  command.options.tighter_bound = true;
  PlanResult result = plan_batch(in.batch, in.cluster, in.cost, command.options);
  if (const auto* infeasible = std::get_if<Infeasible>(&result)) {
    std::cout << (command.json ? to_json(*infeasible) : "infeasible: " + infeasible->reason + '\n');
    return kNo;
  }
  Plan& plan = std::get<Plan>(result);
  const PlanMetrics metrics = plan_metrics(plan, in.batch, in.cluster, in.cost);
  plan.most_peers = metrics.most_peers;
  const std::string file_text = line(dhp::to_json(plan));
  if (!command.out_file.empty()) write_atomically(command.out_file, file_text);
  if (command.json && command.out_file.empty()) {
    std::cout << file_text;
    return kOk;
  }
  const Explanation explanation = explain_plan(plan, in.batch, in.cluster, in.cost);
  const int stages = command.options.pipeline_stages;
  std::cout << (command.json ? summary_json(plan, explanation, metrics, stages)
                             : summary_text(plan, explanation, metrics, stages));
  return kOk;
}

std::string planner_help() {
  std::string text = "the planner:";
  for (const PlannerInfo& planner : planners()) text += "\n  " + planner.name + ": " + planner.help;
  return text;
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<PlanCommand>();
  CLI::App& sub = *app.add_subcommand("plan", "Decide which ranks share which sequences of a batch");
  command->inputs.add_options(sub);
  sub.add_option("--planner", command->options.planner, planner_help())->capture_default_str();
  add_plan_options(sub, command->options);
  sub.add_option("-o,--output", command->out_file,
                 "file for the plan (dhp.plan/1 JSON); --output-format json then prints a summary");
  add_output_format(sub, command->json);
  sub.footer(
      "A constraint that lists planners in parentheses works only with those planners; others refuse it.\n"
      "Exit codes: 0 planned, 1 infeasible (with the reason), 2 bad input.");
  sub.callback([command, &exit_code] { exit_code = run(*command); });
}

}  // namespace dhp::cli
