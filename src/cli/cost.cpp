#include <iostream>
#include <memory>
#include <sstream>

#include "cli/cli.h"
#include "cli/report.h"
#include "dhp/analytic_cost.h"

namespace dhp::cli {
namespace {

struct CostCommand {
  std::string config_file;
  std::string out_file;
  CostOptions options;
  bool json = false;
};

std::string to_text(const CostModel& cost) {
  constexpr double kMiB = 1024.0 * 1024.0;
  std::ostringstream text;
  text.precision(4);
  text << cost.name << ": " << cost.layers << " layers, " << cost.query_heads << " query heads, " << cost.kv_heads
       << " key-value heads\n"
       << "task      " << seconds_text(cost.task_s) << " each\n"
       << "token     " << (cost.forward.token_s + cost.backward.token_s) * 1e6 << " us, " << cost.token_bytes / kMiB
       << " MiB\n"
       << "patch     " << cost.patch_s * 1e6 << " us, " << cost.patch_bytes / kMiB << " MiB\n"
       << "pair      " << (cost.forward.pair_s + cost.backward.pair_s) * 1e9 << " ns of attention\n"
       << "exchange  " << (cost.forward.ring_bytes_per_token + cost.backward.ring_bytes_per_token) / kMiB
       << " MiB a token and hop\n"
       << "state     " << cost.state_bytes / kMiB / 1024.0 << " GiB a rank\n";
  return text.str();
}

int run(const CostCommand& command) {
  const CostModel cost = analytic_cost(read_text(command.config_file), command.config_file, command.options);
  const std::string file_text = line(dhp::to_json(cost));
  if (!command.out_file.empty()) write_atomically(command.out_file, file_text);
  std::cout << (command.json ? file_text : to_text(cost));
  return kOk;
}

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const Device& device : devices()) names.push_back(device.name);
  return names;
}

}  // namespace

void add_cost_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<CostCommand>();
  CLI::App& sub = *app.add_subcommand("cost", "Count a model's FLOP and bytes into a cost file");
  sub.add_option("--config", command->config_file, "config.json of a Hugging Face checkpoint")->required();
  sub.add_option("--device", command->options.device, "what the model runs on")
      ->check(CLI::IsMember(device_names()))
      ->capture_default_str();
  sub.add_option("--ranks", command->options.ranks, "ranks that share the optimizer state (ZeRO-1)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub.add_flag("--freeze-vit", command->options.freeze_vit, "no backward through the vision tower");
  sub.add_option("-o,--output", command->out_file, "file for the cost model (dhp.cost/1 JSON)");
  add_output_format(sub, command->json);
  sub.callback([command, &exit_code] { exit_code = run(*command); });
}

}  // namespace dhp::cli
