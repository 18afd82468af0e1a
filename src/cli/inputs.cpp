#include "cli/inputs.h"

#include <algorithm>

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

void add_plan_options(CLI::App& command, PlanOptions& options) {
  for (const OptionInfo& info : plan_options()) {
    if (info.name == "schedule") continue;
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
