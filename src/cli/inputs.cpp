#include "cli/inputs.h"

#include "cli/cli.h"

namespace dhp::cli {

void Inputs::add_options(CLI::App& command) {
  command.add_option("--batch", batch_file, "dhp.batch/1 JSON, or CSV with the header id,tokens,patches")->required();
  command.add_option("--cluster", cluster_file, "dhp.cluster/1 JSON")->required();
  command.add_option("--cost", cost_file, "dhp.cost/1 JSON")->required();
}

void Inputs::read() {
  batch = read_batch(batch_file);
  cluster = read_cluster(cluster_file);
  cost = read_cost_model(cost_file);
}

void add_output_format(CLI::App& command, bool& json) {
  command
      .add_option_function<std::string>(
          "--output-format", [&json](const std::string& name) { json = name == "json"; }, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->default_str("text");
}

}  // namespace dhp::cli
