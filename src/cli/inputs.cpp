#include "cli/inputs.h"

#include <algorithm>
#include <iostream>

#include "cli/cli.h"
#include "dhp/analytic_cost.h"
#include "dhp/plan_options.h"

namespace dhp::cli {

void Inputs::add_options(CLI::App& command) {
  command.add_option("--batch", batch_file, kBatchHelp)->required();
  command.add_option("--cluster", cluster_file, kClusterHelp)->required();
  command.add_option("--cost", cost_file, kCostHelp)->required();
}

void Inputs::read(const std::string& out_file) {
  refuse_overwriting(out_file, {batch_file, cluster_file, cost_file});
  batch = read_batch(batch_file);
  cluster = read_cluster(cluster_file);
  cost = read_cost_model(cost_file, cluster);
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
  std::string text = file + " is not a valid plan for this batch: " + violations.front();
  if (violations.size() > 1) text += " (and " + std::to_string(violations.size() - 1) + " more; see dhp check)";
  complain("error", text);
  return false;
}

namespace {

void add_options(CLI::App& command, PlanOptions& options, std::initializer_list<std::string_view> left_out) {
  for (const OptionInfo& info : plan_options()) {
    if (std::find(left_out.begin(), left_out.end(), info.name) != left_out.end()) continue;
    const std::string flag = option_flag(info.name);
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

}  // namespace

void note_frames(const Batch& batch, const std::string& batch_file, const CostModel& cost) {
  const auto any = [&](std::int64_t Sequence::*member) {
    return std::any_of(batch.sequences.begin(), batch.sequences.end(),
                       [&](const Sequence& sequence) { return sequence.*member > 0; });
  };
  if (cost.patch_pair_s <= 0.0 || !any(&Sequence::patches) || any(&Sequence::frame_patches)) return;
  complain("note", batch_file +
                       " has patches and no frame_patches: attention of the vision tower is not counted; dhp dataset "
                       "writes them");
}

void note_shared_links(const Cluster& cluster, const std::string& cluster_file, const PlanOptions& options) {
  const char* limit = cluster.node_bandwidth_bytes_per_s > 0.0     ? "node_bandwidth_bytes_per_s"
                      : cluster.switch_bandwidth_bytes_per_s > 0.0 ? "switch_bandwidth_bytes_per_s"
                                                                   : nullptr;
  if (limit == nullptr || cluster.nodes == 1 || options.max_peers > 0 || options.within_node) return;
  complain("note", cluster_file + ": times leave out " + limit +
                       "; free and lockstep plan for it, other planners do not. dhp simulate shows the time with it "
                       "(docs/simulator.md)");
}

void add_plan_options(CLI::App& command, PlanOptions& options) {
  add_options(command, options, {"planner", "tighter_bound"});
}

void add_checked_options(CLI::App& command, PlanOptions& options) {
  add_options(command, options, {"planner", "tighter_bound", "effort", "expect_error", "most_loss", "pipeline_stages"});
}

std::vector<std::string> broken_options(const CLI::App& command, const PlanOptions& options, const Plan& plan,
                                        const Inputs& inputs) {
  PlanOptions asked = options;
  asked.planner = "free";  // one that keeps min_shard_tokens: whoever gives it wants it checked
  if (command.count("--min-shard-tokens") == 0) asked.min_shard_tokens = 1;
  return check_options(plan, inputs.batch, inputs.cluster, inputs.cost, asked);
}

void add_output_format(CLI::App& command, bool& json) {
  command
      .add_option_function<std::string>(
          "--output-format", [&json](const std::string& name) { json = name == "json"; }, "text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->default_str("text");
}

}  // namespace dhp::cli
