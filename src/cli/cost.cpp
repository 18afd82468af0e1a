#include <array>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/listing.h"
#include "cli/cli.h"
#include "cli/show/report.h"
#include "cli/show/table.h"
#include "dhp/analytic_cost.h"
#include "dhp/cluster.h"
#include "dhp/presets.h"

namespace dhp::cli {
namespace {

constexpr int kShardedParameters = 3;  // of --zero

struct CostCommand {
  std::string model;
  std::string out_file;
  CostOptions options;
  bool json = false;
};

/// "13.9 G"; "-" for nothing.
std::string si_text(double value) {
  if (value == 0.0) return "-";
  constexpr std::array kPrefixes = {"n", "µ", "m", "", "k", "M", "G", "T"};
  std::size_t prefix = 0;
  double scaled = value * 1e9;
  while (scaled >= 999.5 && prefix + 1 < kPrefixes.size()) {
    scaled /= 1000.0;
    ++prefix;
  }
  const int digits = scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0;
  const std::string unit = kPrefixes[prefix];
  return fixed_text(scaled, digits) + (unit.empty() ? "" : " " + unit);
}

std::string module_table(const CostReport& report) {
  TextTable table({{"module", TextTable::Align::left},
                   {"parameters"},
                   {"per", TextTable::Align::left},
                   {"FLOP forward"},
                   {"backward"},
                   {"again"},
                   {"bytes forward"},
                   {"backward"},
                   {"again"},
                   {"s forward"},
                   {"backward"},
                   {"again"}});
  for (const ModuleCost& module : report.modules) {
    std::vector<std::string> cells = {module.name, module.parameters > 0 ? grouped(module.parameters) : "-",
                                      module.unit};
    for (double PassWork::*field : {&PassWork::flop, &PassWork::bytes, &PassWork::seconds}) {
      for (const PassWork& pass : {module.forward, module.backward, module.recompute}) {
        cells.push_back(si_text(pass.*field));
      }
    }
    table.add(std::move(cells));
  }
  return table.text();
}

/// What stands in the way of using the costs, and what to do.
std::string notes(const CostReport& report, const CostOptions& options) {
  std::string text;
  if (report.cost.state_bytes >= report.device_memory_bytes) {
    text += "note      " + options.device + " has " + bytes_text(report.device_memory_bytes) +
            ", which the state fills: more --ranks or a higher --zero shard it\n";
  }
  if (options.zero == kShardedParameters) {
    text += "note      sharded parameters are gathered by all ranks at once: plan with --planner lockstep\n";
  }
  return text;
}

std::string to_text(const CostReport& report, const CostOptions& options) {
  const CostModel& cost = report.cost;
  const MemoryCost& memory = report.memory;
  std::ostringstream text;
  text << cost.name << ": " << grouped(report.parameters.total()) << " parameters, " << cost.layers << " layers, "
       << cost.query_heads << " query heads, " << cost.kv_heads << " key-value heads\n\n"
       << module_table(report) << '\n'
       << "attention " << si_text(report.attention.flop_per_s) << "FLOP/s at length; a token takes as long as "
       << fixed_text(report.attention.token_pairs, 0) << " pairs more\n"
       << "task      " << seconds_text(cost.task_s) << " each\n"
       << "exchange  " << bytes_text(cost.forward.ring_bytes_per_token + cost.backward.ring_bytes_per_token)
       << " a token and hop\n"
       << "token     " << bytes_text(cost.token_bytes) << ": " << bytes_text(memory.token_kept) << " kept and "
       << bytes_text(memory.token_live_layer) << " of one layer\n"
       << "patch     " << bytes_text(cost.patch_bytes) << '\n'
       << "state     " << bytes_text(cost.state_bytes) << " a rank: parameters " << bytes_text(memory.parameters)
       << ", gradients " << bytes_text(memory.gradients) << ", optimizer " << bytes_text(memory.optimizer) << ", loss "
       << bytes_text(memory.loss) << ", reserve " << bytes_text(memory.reserve) << '\n'
       << "end       " << bytes_text(cost.gradient_bytes) << " of gradients summed, optimizer "
       << seconds_text(cost.optimizer_s) << '\n'
       << notes(report, options);
  return text.str();
}

nlohmann::ordered_json pass_json(const PassWork& pass) {
  return {{"flop", pass.flop}, {"bytes", pass.bytes}, {"seconds", pass.seconds}};
}

std::string to_json_text(const CostReport& report, const CostOptions& options) {
  nlohmann::ordered_json json;
  json["name"] = report.cost.name;
  json["family"] = report.family;
  json["device"] = options.device;
  json["parameters"] = report.parameters.total();
  for (const ModuleCost& module : report.modules) {
    json["modules"].push_back({{"module", module.name},
                               {"per", module.unit},
                               {"parameters", module.parameters},
                               {"forward", pass_json(module.forward)},
                               {"backward", pass_json(module.backward)},
                               {"recompute", pass_json(module.recompute)}});
  }
  json["attention"] = {{"flop_per_s", report.attention.flop_per_s},
                       {"token_pairs", report.attention.token_pairs},
                       {"sequence_s", report.attention.sequence_s},
                       {"backward_rate", report.attention.backward_rate}};
  const MemoryCost& memory = report.memory;
  json["memory"] = {{"parameters_bytes", memory.parameters},
                    {"gradients_bytes", memory.gradients},
                    {"optimizer_bytes", memory.optimizer},
                    {"reserve_bytes", memory.reserve},
                    {"token_kept_bytes", memory.token_kept},
                    {"token_live_layer_bytes", memory.token_live_layer},
                    {"loss_bytes", memory.loss},
                    {"patch_kept_bytes", memory.patch_kept}};
  json["cost"] = nlohmann::ordered_json::parse(dhp::to_json(report.cost));
  return json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
}

int run(const CostCommand& command) {
  const NamedText config = read_model_config(command.model);
  refuse_overwriting(command.out_file, {config.source, command.options.device});
  const bool preset = !config.source.ends_with(".json");
  const CostReport report = analytic_report(config.text, config.source, command.options, preset ? config.source : "");
  if (!command.out_file.empty()) write_atomically(command.out_file, line(dhp::to_json(report.cost)));
  std::cout << (command.json ? line(to_json_text(report, command.options)) : to_text(report, command.options));
  return kOk;
}

std::string names_of(const std::vector<Preset>& presets) {
  return listed(presets, [](const Preset& preset) { return preset.name; });
}

}  // namespace

void add_cost_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<CostCommand>();
  CostOptions& options = command->options;
  CLI::App& sub = *app.add_subcommand("cost", "Count a model's FLOP and bytes into a cost file");
  sub.add_option("--model", command->model,
                 "config.json of a Hugging Face checkpoint, its folder, its name on the hub, or one of " +
                     names_of(model_presets()))
      ->required();
  sub.add_option("--device", options.device, "dhp.device/1 JSON, or one of " + names_of(device_presets()))
      ->capture_default_str();
  sub.add_option("--ranks", options.ranks, "ranks that share what --zero shards")
      ->check(whole_from(1, kMaxRanks))
      ->capture_default_str();
  sub.add_option("--zero", options.zero,
                 "0: nothing sharded, 1: the optimizer's state, 2: also gradients, 3: also parameters")
      ->check(whole_from(0, kShardedParameters))
      ->capture_default_str();
  sub.add_option_function<std::string>(
         "--recompute",
         [&options](const std::string& name) { options.recompute = parse_recompute(name, "--recompute"); },
         "full: layers and vision blocks run again in the backward pass; keep_attention: all but attention; none")
      ->default_str("full");
  sub.add_option_function<std::string>(
         "--freeze", [&options](const std::string& names) { options.freeze = parse_freeze(names, "--freeze"); },
         "parts that do not train, of vit,aligner,llm")
      ->type_name("PARTS");
  sub.add_option("--lora-rank", options.lora_rank, "LoRA: adapters of this rank on the language model alone train")
      ->check(whole_from(0, 1 << 16))
      ->capture_default_str();
  sub.add_option("-o,--output", command->out_file, "file for the cost model (dhp.cost/1 JSON)");
  add_output_format(sub, command->json);
  sub.callback([command, &exit_code] { exit_code = run(*command); });
}

}  // namespace dhp::cli
