#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/show/report.h"
#include "dhp/plan.h"

namespace dhp::cli {
namespace {

struct CheckCommand {
  Inputs inputs;
  std::string plan_file;
  PlanOptions options;
  bool json = false;
};

int run(CheckCommand& command, const CLI::App& given) {
  Inputs& in = command.inputs;
  in.read();
  const Plan plan = read_plan(command.plan_file);
  std::vector<std::string> violations = check_plan(plan, in.batch, in.cluster, in.cost);
  // Options are checked only for a valid plan.
  if (violations.empty()) violations = broken_options(given, command.options, plan, in);
  if (command.json) {
    const nlohmann::ordered_json json = {{"valid", violations.empty()}, {"violations", violations}};
    std::cout << json_line(json);
  } else if (violations.empty()) {
    std::cout << "valid: " << count(plan.tasks.size(), "task") << ", " << count(in.batch.sequences.size(), "sequence")
              << '\n';
  } else {
    for (const std::string& violation : violations) std::cout << "violation: " << on_one_line(violation) << '\n';
  }
  return violations.empty() ? kOk : kNo;
}

}  // namespace

void add_check_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<CheckCommand>();
  CLI::App& sub = *app.add_subcommand("check", "Name everything that is wrong with a plan");
  command->inputs.add_options(sub);
  sub.add_option("--plan", command->plan_file, kPlanHelp)->required();
  add_checked_options(sub, command->options);
  add_output_format(sub, command->json);
  sub.footer(
      "If the plan is valid, the constraints given are also checked.\n"
      "Exit codes: 0 valid, 1 not valid (every violation named), 2 bad input.");
  sub.callback([command, &sub, &exit_code] { exit_code = run(*command, sub); });
}

}  // namespace dhp::cli
