#include <iostream>
#include <memory>

#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/show/explain_report.h"

namespace dhp::cli {
namespace {

struct ExplainCommand {
  Inputs inputs;
  std::string plan_file;
  PlanOptions options;
  bool all = false;
  bool json = false;
};

int run(ExplainCommand& command, const CLI::App& given) {
  Inputs& in = command.inputs;
  in.read();
  note_frames(in.batch, in.batch_file, in.cost);
  const Plan plan = read_tasks(command.plan_file);
  if (!is_valid(plan, command.plan_file, in.batch, in.cluster, in.cost)) return kNo;
  Report report = make_report(plan, in.batch, in.cluster, in.cost, command.options);
  report.broken_options = broken_options(given, command.options, plan, in);
  std::cout << (command.json ? to_json(report) : to_text(report, standard_output(), command.all));
  return kOk;
}

}  // namespace

void add_explain_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<ExplainCommand>();
  CLI::App& sub = *app.add_subcommand(
      "explain", "Show what limits a plan, where its ranks wait, why tasks have their ranks, and what would help");
  command->inputs.add_options(sub);
  sub.add_option("--plan", command->plan_file, kPlanHelp)->required();
  sub.add_flag("--all", command->all, "show every rank and every task, not only the most telling ones");
  add_plan_options(sub, command->options);
  add_output_format(sub, command->json);
  sub.footer(
      "Give the constraints that the plan was made with. Reasons name them, violations are reported, and plans made\n"
      "to see what a change would gain keep them. A constraint that lists planners in parentheses applies only to\n"
      "their plans.\n"
      "NO_COLOR turns colours off. Without a terminal there are no colours, and the width is 100.\n"
      "Exit codes: 0 explained, 1 not a valid plan for the batch, 2 bad input.");
  sub.callback([command, &sub, &exit_code] { exit_code = run(*command, sub); });
}

}  // namespace dhp::cli
