// Task times, memory and simple bounds against values that were computed apart from the project.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "dhp/cost_model.h"
#include "support.h"

namespace dhp::cost_golden_test {
namespace {

constexpr double kTolerance = 1e-12;

nlohmann::json load_cases(const std::string& name) {
  std::ifstream stream(test::case_file(name));
  return nlohmann::json::parse(stream);
}

TEST(CostGolden, TaskTimesAndMemory) {
  const auto cases = load_cases("golden_task_times.json");
  ASSERT_EQ(cases.size(), 60U);
  for (const auto& entry : cases) {
    SCOPED_TRACE(entry.dump().substr(0, 300));
    const Cluster cluster = read_cluster(test::case_file(entry["cluster"]));
    const CostModel cost = read_cost_model(test::case_file(entry["cost"]));
    const auto ranks = entry["ranks"].get<std::vector<Rank>>();
    Load load;
    for (const auto& sequence : entry["sequences"]) {
      load.add({.id = 0, .tokens = sequence["tokens"], .patches = sequence["patches"]});
    }
    const Exchange exchange = parse_exchange(entry["exchange"].get<std::string>(), "golden", "exchange");
    test::expect_relative(task_seconds(cost, cluster, load, shape_of(cluster, ranks), exchange), entry["seconds"],
                          kTolerance);
    test::expect_relative(task_memory_bytes(cost, load, static_cast<int>(ranks.size())), entry["memory_bytes"],
                          kTolerance);
  }
}

TEST(CostGolden, SimpleBounds) {
  const auto cases = load_cases("golden_bounds.json");
  ASSERT_EQ(cases.size(), 48U);
  int infeasible = 0;
  for (const auto& entry : cases) {
    SCOPED_TRACE(entry.dump());
    const Cluster cluster = read_cluster(test::case_file(entry["cluster"]));
    const CostModel cost = read_cost_model(test::case_file(entry["cost"]));
    const Batch batch = read_batch(test::case_file(entry["batch"]));
    int largest = 0;
    for (const Sequence& sequence : batch.sequences) {
      largest = std::max(largest, min_degree(cost, cluster, sequence));
    }
    if (entry.value("infeasible", false)) {
      EXPECT_GT(largest, cluster.ranks());
      ++infeasible;
    } else {
      EXPECT_LE(largest, cluster.ranks());
      test::expect_relative(simple_lower_bound_s(batch, cluster, cost), entry["simple_lower_bound_s"], kTolerance);
    }
  }
  EXPECT_GT(infeasible, 0);
}

}  // namespace
}  // namespace dhp::cost_golden_test
