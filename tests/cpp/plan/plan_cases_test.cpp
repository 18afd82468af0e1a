// Every planner on every shared case: valid, deterministic, infeasible exactly where it must be.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "plan_support.h"

namespace dhp::plan_cases_test {
namespace {

std::vector<std::string> case_names(const std::string& prefix) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::case_file(""))) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(prefix)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// The widest group that a planner of this name can make.
int widest(const std::string& planner, const Cluster& cluster, const CostModel& cost) {
  int degree = cluster.ranks();
  if (planner != "ulysses") return degree;
  while (cluster.ranks() % degree != 0 || cost.query_heads % degree != 0) --degree;
  return degree;
}

/// Whether some sequence exceeds the memory of `ranks` ranks, from the numbers alone.
bool must_be_infeasible(const Batch& batch, const Cluster& cluster, const CostModel& cost, int ranks) {
  return std::any_of(batch.sequences.begin(), batch.sequences.end(), [&](const Sequence& sequence) {
    const double bytes = static_cast<double>(sequence.tokens) * cost.token_bytes +
                         static_cast<double>(sequence.patches) * cost.patch_bytes;
    return bytes > ranks * (cluster.memory_bytes - cost.state_bytes);
  });
}

/// Megatron-Core's rules assert on some batches where the number of ranks is no power of two.
bool may_assert(const std::string& planner, const Cluster& cluster) {
  return planner.starts_with("megatron") && (cluster.ranks() & (cluster.ranks() - 1)) != 0;
}

const char* const kPlanners[] = {"paper",   "static",          "balanced-static",
                                 "ulysses", "megatron-hybrid", "megatron-dynamic"};

TEST(PlanCases, ValidOrInfeasibleOnAllSharedCases) {
  int plans = 0;
  int infeasible = 0;
  for (const std::string& batch_name : case_names("batch_")) {
    const Batch batch = read_batch(test::case_file(batch_name));
    for (const std::string& cluster_name : case_names("cluster_")) {
      const Cluster cluster = read_cluster(test::case_file(cluster_name));
      for (const std::string& cost_name : case_names("cost_")) {
        const CostModel cost = read_cost_model(test::case_file(cost_name));
        for (const char* planner : kPlanners) {
          SCOPED_TRACE(testing::Message()
                       << batch_name << ", " << cluster_name << ", " << cost_name << ", " << planner);
          const PlanResult result = plan_batch(batch, cluster, cost, {.planner = planner});
          const bool must = must_be_infeasible(batch, cluster, cost, widest(planner, cluster, cost));
          if (must || !may_assert(planner, cluster)) {
            ASSERT_EQ(std::holds_alternative<Infeasible>(result), must);
          }
          if (std::holds_alternative<Infeasible>(result)) {
            ++infeasible;
            continue;
          }
          ++plans;
          const Plan& plan = std::get<Plan>(result);
          test::expect_valid(plan, batch, cluster, cost);
          EXPECT_EQ(plan.hash, plan_hash(plan, batch));
          EXPECT_GE(plan.predicted->gap, 0.0);
        }
      }
    }
  }
  EXPECT_GT(plans, 1000);
  EXPECT_GT(infeasible, 0);
}

TEST(PlanCases, InfeasibleExactlyWhereGoldenSaysSo) {
  std::ifstream stream(test::case_file("golden_bounds.json"));
  const auto golden = nlohmann::json::parse(stream);
  int infeasible = 0;
  for (const auto& one : golden) {
    SCOPED_TRACE(one.dump());
    const Batch batch = read_batch(test::case_file(one["batch"]));
    const Cluster cluster = read_cluster(test::case_file(one["cluster"]));
    const CostModel cost = read_cost_model(test::case_file(one["cost"]));
    for (const char* planner : {"paper", "static", "balanced-static"}) {
      const PlanResult result = plan_batch(batch, cluster, cost, {.planner = planner});
      ASSERT_EQ(std::holds_alternative<Infeasible>(result), one.value("infeasible", false));
      if (const auto* answer = std::get_if<Infeasible>(&result)) {
        EXPECT_GT(answer->needed_ranks, cluster.ranks());
        EXPECT_GT(answer->needed_bytes, answer->offered_bytes);
        ++infeasible;
      } else {
        const Prediction predicted = *std::get<Plan>(result).predicted;
        test::expect_relative(predicted.lower_bound_s, one["simple_lower_bound_s"], 1e-12);
        EXPECT_GE(predicted.makespan_s, predicted.lower_bound_s);
      }
    }
  }
  EXPECT_GT(infeasible, 0);
}

TEST(PlanCases, SameBytesWhateverHappenedBefore) {
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b_8192.json"));
  std::map<std::string, std::string> first;
  for (int round = 0; round < 3; ++round) {
    for (const char* planner :
         {"paper", "static:16", "static", "balanced-static", "ulysses", "megatron-hybrid", "megatron-dynamic"}) {
      for (const char* name : {"batch_openvid_512.json", "batch_burst_512.json"}) {
        const Batch batch = read_batch(test::case_file(name));
        const std::string text = to_json(test::plan_of(plan_batch(batch, cluster, cost, {.planner = planner})));
        const auto [entry, fresh] = first.try_emplace(std::string(planner) + name, text);
        EXPECT_EQ(entry->second, text) << planner << ", " << name;
        EXPECT_EQ(fresh, round == 0);
      }
    }
  }
}

/// Recorded; the same from gcc 12 and clang 14, at -O0 and at -O3 for the machine's own instructions. Ranks that run
/// different builds must agree. A change of a planner changes them: record anew then.
TEST(PlanCases, SamePlansFromEveryCompiler) {
  struct Recorded {
    const char* data;
    const char* tokens;
    const char* planner;
    const char* hash;
  };
  const std::vector<Recorded> recorded = {
      {"openvid", "4096", "paper", "999f37c877d69c7ea740dc9fb538a83b"},
      {"openvid", "16384", "paper", "569234ae5cde20ec94ce93986972584c"},
      {"openvid", "4096", "static", "d3676612c9c015ca01b52e26e5aac11c"},
      {"burst", "4096", "paper", "064cf2f24d90db7cdd2d256a703aa60d"},
      {"burst", "16384", "paper", "a4eb8d36f73e537019f4ddf628254181"},
      {"burst", "16384", "static", "0c0173335789f370157ee84599468c3f"},
      {"msrvtt", "4096", "paper", "457b9f51fdcd2340687b92bf1b01db5d"},
      {"msrvtt", "4096", "static", "51b49f0d87ede2df038b8e7ff8b2a8b3"},
      {"openvid", "8192", "balanced-static", "cb7ad273a9bda2797ba8ddb626627e69"},
      {"burst", "4096", "balanced-static", "3e7450e089f470aee09ac7c96a2d3bf5"},
      {"openvid", "8192", "ulysses", "bae21ba3523325359d874ac51372f91d"},
      {"lognormal", "16384", "ulysses", "eea0984edb656a1d1b839db194a34873"},
      {"openvid", "8192", "megatron-hybrid", "855520065f9db1a0ded35ed333118b82"},
      {"lognormal", "4096", "megatron-hybrid", "7c0d61cb65a0e6074f854acbf2a68c51"},
      {"openvid", "8192", "megatron-dynamic", "93f3bd2c79cde746120ab1d3a17b35fa"},
      {"burst", "16384", "megatron-dynamic", "8fee5e48132704a02a5ecd89782eb25e"},
      {"openvid", "4096", "free", "e1c707763a33aec7b74ef9071cb5b0f7"},
      {"openvid", "4096", "lockstep", "616109b7f0c9f39bcb347c06a6f4567c"},
      {"burst", "4096", "free", "23f85acc1c201bb70f2bd16b8fc28338"},
      {"burst", "4096", "lockstep", "adac87d0dde55f98b1dad21bcb856cb9"},
      {"msrvtt", "4096", "free", "7625b086b2cdd6fb54fa16ef2c7fa77e"},
      {"msrvtt", "4096", "lockstep", "74e5fb72e803fa22ea4606342e60b03d"},
      {"internvid", "4096", "free", "8181f8e7e6c638c7bc290f2bc9863a3b"},
      {"internvid", "4096", "lockstep", "dcfadd02831f0a6b927b4c1eb9fcb8f6"},
      {"openvid", "16384", "free", "699503b0638b60cfd86bcd0fd42c8cf5"},
      {"openvid", "16384", "lockstep", "5234c19a7b5ab1989086b0fc05f4fe5a"},
      {"burst", "16384", "free", "f997681d6d55bd131c8f3385b9523af5"},
      {"burst", "16384", "lockstep", "b6c823bc39e1289995d9df61531885d6"},
      {"msrvtt", "16384", "free", "c643a2f09d01471be1b8aa79ad91af2f"},
      {"msrvtt", "16384", "lockstep", "7dc92f7b5883f909d4517b07fe29d3a3"},
      {"internvid", "16384", "free", "40a139a7d73342994ba0abd36aed8124"},
      {"internvid", "16384", "lockstep", "72c9a8d655ec8ebd594199b57f5aedec"},
  };
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  for (const Recorded& one : recorded) {
    const Batch batch = read_batch(test::case_file(std::string("batch_") + one.data + "_512.json"));
    const CostModel cost = read_cost_model(test::case_file(std::string("cost_qwen3-vl-8b_") + one.tokens + ".json"));
    const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {.planner = one.planner}));
    EXPECT_EQ(plan.hash, one.hash) << one.data << ", " << one.tokens << ", " << one.planner;
  }
}

TEST(PlanCases, OrderOfEqualSequencesIsById) {
  // Equal sequences in two arrival orders: `paper` by length sees the same batch, the tasks name ids in rising order.
  const Cluster cluster = test::make_cluster(1, 4, 256);
  const Batch batch = test::make_batch(std::vector<std::int64_t>(16, 64));
  const Plan plan = test::plan_of(plan_batch(batch, cluster, test::make_cost(), {}));
  for (const Task& task : plan.tasks) EXPECT_TRUE(std::is_sorted(task.sequences.begin(), task.sequences.end()));
}

}  // namespace
}  // namespace dhp::plan_cases_test
