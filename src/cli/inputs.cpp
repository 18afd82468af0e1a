#include "cli/inputs.h"

#include <algorithm>
#include <iostream>

#include "cli/cli.h"
#include "dhp/plan_options.h"

namespace dhp::cli {

void Inputs::add_options(CLI::App& command) {
  command.add_option("--batch", batch_file, kBatchHelp)->required();
  command.add_option("--cluster", cluster_file, kClusterHelp)->required();
  command.add_option("--cost", cost_file, "dhp.cost/1 JSON")->required();
}

void Inputs::read() {
  batch = read_batch(batch_file);
  cluster = read_cluster(cluster_file);
  cost = read_cost_model(cost_file);
}

Plan read_tasks(const std::string& file) {
  Plan plan = read_plan(file);
  plan.predicted.reset();
  for (Task& task : plan.tasks) {
    task.start_s.reset();
    task.end_s.reset();
  }
  return plan;
}

bool is_valid(const Plan& plan, const std::string& file, const Batch& batch, const Cluster& cluster,
              const CostModel& cost) {
  const std::vector<std::string> violations = check_plan(plan, batch, cluster, cost);
  if (violations.empty()) return true;
  std::cerr << "dhp: error: " << file << " is not a valid plan for this batch: " << violations.front();
  if (violations.size() > 1) std::cerr << " (and " << violations.size() - 1 << " more; see dhp check)";
  std::cerr << '\n';
  return false;
}

void add_plan_options(CLI::App& command, PlanOptions& options) {
  for (const OptionInfo& info : plan_options()) {
    if (info.name == "schedule" || info.name == "tighter_bound") continue;
    std::string flag = "--" + info.name;
    std::replace(flag.begin(), flag.end(), '_', '-');
    const auto set = [&options, name = info.name, flag](const std::string& text) {
      set_option(options, name, text, flag);
    };
    if (info.kind == OptionInfo::Kind::flag) {
      command
          .add_flag_callback(
              flag, [set] { set("true"); }, info.help)
          ->group(kConstraints);
    } else {
      command.add_option_function<std::string>(flag, set, info.help)
          ->type_name(info.placeholder)
          ->default_str(info.default_text)
          ->group(kConstraints);
    }
  }
}

void add_output_format(CLI::App& command, bool& json) {
  command
      .add_option_function<std::string>(
          "--output-format", [&json](const std::string& name) { json = name == "json"; }, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->default_str("text");
}

}  // namespace dhp::cli
