#include "dhp/explain.h"

#include <iostream>
#include <memory>

#include "cli/cli.h"
#include "cli/inputs.h"
#include "cli/report.h"

namespace dhp::cli {
namespace {

struct ExplainCommand {
  Inputs inputs;
  std::string plan_file;
  bool json = false;
};

int run(ExplainCommand& command) {
  Inputs& in = command.inputs;
  in.read();
  const Plan plan = read_plan(command.plan_file);
  const std::vector<std::string> violations = check_plan(plan, in.batch, in.cluster, in.cost);
  if (!violations.empty()) {
    std::cerr << "dhp: " << command.plan_file << " is not a valid plan for this batch: " << violations.front();
    if (violations.size() > 1) std::cerr << " (and " << violations.size() - 1 << " more; see dhp check)";
    std::cerr << '\n';
    return kNo;
  }
  const Explanation explanation = explain_plan(plan, in.batch, in.cluster, in.cost);
  std::cout << (command.json ? to_json(explanation) : to_text(explanation));
  return kOk;
}

}  // namespace

void add_explain_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<ExplainCommand>();
  CLI::App& sub = *app.add_subcommand("explain", "Say what bounds a plan and where its ranks wait");
  command->inputs.add_options(sub);
  sub.add_option("plan", command->plan_file, "dhp.plan/1 JSON")->required();
  add_output_format(sub, command->json);
  sub.footer("Exit codes: 0 explained, 1 not a valid plan for the batch, 2 bad input.");
  sub.callback([command, &exit_code] { exit_code = run(*command); });
}

}  // namespace dhp::cli
