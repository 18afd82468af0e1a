// Plans a batch, checks the plan, simulates noisy steps of it, and prints what came of it:
//
//   plan_and_simulate BATCH.json CLUSTER COST [PLANNER]
//
// as `dhp plan`, `dhp check` and `dhp simulate` do: CLUSTER is a file or a preset (h100-8x8), COST a file or
// MODEL@DEVICE (qwen3-vl-8b@h100).
#include <dhp/dhp.h>

#include <cstdio>
#include <string>

namespace {

int run(const std::string& batch_file, const std::string& cluster_name, const std::string& cost_name,
        const std::string& planner) {
  dhp::add_peers();
  const dhp::Batch batch = dhp::read_batch(batch_file);
  const dhp::Cluster cluster = dhp::read_cluster(cluster_name);
  const dhp::CostModel cost = dhp::read_cost_model(cost_name, cluster);

  const dhp::PlanResult result = dhp::plan_batch(batch, cluster, cost, {.planner = planner, .tighter_bound = true});
  if (const auto* infeasible = std::get_if<dhp::Infeasible>(&result)) {
    std::printf("infeasible: %s\n", infeasible->reason.c_str());
    return 1;
  }
  const auto& plan = std::get<dhp::Plan>(result);
  for (const std::string& violation : dhp::check_plan(plan, batch, cluster, cost)) {
    std::printf("violation: %s\n", violation.c_str());
    return 1;
  }
  std::printf("%zu sequences in %zu tasks on %d ranks, plan %s\n", batch.sequences.size(), plan.tasks.size(),
              plan.ranks, plan.hash.c_str());
  std::printf("predicted %.3f s, no plan is quicker than %.3f s\n", plan.predicted->makespan_s,
              plan.predicted->lower_bound_s);

  const dhp::Simulation simulation =
      dhp::simulate(plan, batch, cluster, cost, {.steps = 3, .noise = dhp::ErrorSizes{}});
  for (const dhp::SimulatedStep& step : simulation.steps) {
    const double capacity_s = step.seconds * static_cast<double>(cluster.live_ranks().size());
    std::printf("simulated %.3f s, ranks idle for %.1f %% of it\n", step.seconds,
                100.0 * step.idle.total_s() / capacity_s);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s BATCH.json CLUSTER COST [PLANNER]\n", argv[0]);
    return 2;
  }
  try {
    return run(argv[1], argv[2], argv[3], argc > 4 ? argv[4] : "free");
  } catch (const dhp::InputError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
