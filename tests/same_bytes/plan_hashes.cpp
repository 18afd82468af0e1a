// Prints the hash and the predicted time, to the last bit, of the plan of every planner for the shared cases and for
// random ones. Builds of all compilers must print the same: ranks that run different builds have to agree.
#include <cstdio>
#include <exception>
#include <string>

#include "dhp/peers.h"
#include "random_case.h"

namespace dhp {
namespace {

void print(const std::string& name, const PlanResult& result) {
  if (const auto* infeasible = std::get_if<Infeasible>(&result)) {
    std::printf("%s: infeasible: %s\n", name.c_str(), infeasible->reason.c_str());
    return;
  }
  const Plan& plan = std::get<Plan>(result);
  std::printf("%s: %s %a %a\n", name.c_str(), plan.hash.c_str(), plan.predicted->makespan_s,
              plan.predicted->lower_bound_s);
}

void print_shared_cases() {
  const std::string folder = std::string(DHP_DATA_DIR) + "/../bench/cases/";
  for (const char* cluster : {"910b_8x8", "910b_8x8_slow_network"}) {
    for (const char* cost : {"4096", "16384"}) {
      for (const char* batch : {"openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"}) {
        for (const PlannerInfo& planner : planners()) {
          if (planner.name.find(':') != std::string::npos) continue;
          const PlanResult result = plan_batch(read_batch(folder + "batch_" + batch + "_512.json"),
                                               read_cluster(folder + "cluster_" + cluster + ".json"),
                                               read_cost_model(folder + "cost_qwen3-vl-8b_" + cost + ".json"),
                                               {.planner = planner.name, .tighter_bound = true});
          print(std::string(cluster) + " " + cost + " " + batch + " " + planner.name, result);
        }
      }
    }
  }
}

void print_random_cases() {
  constexpr std::uint64_t kCases = 500;
  for (const char* planner : {"free", "lockstep", "paper"}) {
    for (std::uint64_t seed = 1; seed <= kCases; ++seed) {
      const test::Case made = test::random_case(seed, planner);
      print(std::string(planner) + " " + std::to_string(seed),
            plan_batch(made.batch, made.cluster, made.cost, made.options));
    }
  }
}

/// Whose plans are chosen by simulation.
void print_shared_links() {
  for (const char* planner : {"free", "lockstep"}) {
    for (std::uint64_t seed = 1; seed <= 100; ++seed) {
      test::Case made = test::random_case(seed, planner);
      made.cluster.node_bandwidth_bytes_per_s = made.cluster.inter_node.bandwidth_bytes_per_s * 0.7;
      print(std::string("shared links, ") + planner + " " + std::to_string(seed),
            plan_batch(made.batch, made.cluster, made.cost, made.options));
    }
  }
}

}  // namespace
}  // namespace dhp

int main() {
  try {
    dhp::add_peers();
    dhp::print_shared_cases();
    dhp::print_random_cases();
    dhp::print_shared_links();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "plan_hashes: %s\n", error.what());
    return 1;
  }
  return 0;
}
