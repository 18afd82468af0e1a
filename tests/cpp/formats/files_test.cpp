// Round trips of all files, and defaults of optional fields.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>

#include "dhp/plan.h"
#include "support.h"
#include "temporary_folder.h"

namespace dhp::files_test {
namespace {

namespace fs = std::filesystem;

/// Any positive finite double: random bits, so that exponents cover the whole range.
double any_double(test::Random& random) {
  const double value = std::ldexp(1.0 + random.unit(), static_cast<int>(random.whole(-1000, 1000)));
  return random.whole(0, 9) == 0 ? static_cast<double>(random.whole(1, 1'000'000)) : value;
}

/// The same up to what files of costs and clusters may hold.
double any_cost(test::Random& random) { return std::min(any_double(random), 1e6); }

PassCost any_pass(test::Random& random) {
  return {any_cost(random), any_cost(random), any_cost(random), any_cost(random), any_cost(random), any_cost(random)};
}

Batch any_batch(test::Random& random) {
  Batch batch;
  const std::int64_t count = random.whole(0, 20);
  for (std::int64_t i = 0; i < count; ++i) {
    batch.sequences.push_back(
        {.id = i * 7 - 30, .tokens = random.whole(1, kMaxTokens), .patches = random.whole(0, 99)});
    Sequence& sequence = batch.sequences.back();
    if (i % 2 == 0) sequence.frame_patches = random.whole(0, sequence.patches);
  }
  return batch;
}

Plan any_plan(test::Random& random) {
  Plan plan;
  plan.schedule = static_cast<Schedule>(random.whole(0, 2));
  plan.ranks = static_cast<int>(random.whole(1, 64));
  const std::int64_t tasks = random.whole(0, 6);
  for (int id = 0; id < tasks; ++id) {
    Task task{.id = id, .micro_batch = id / 2, .exchange = static_cast<Exchange>(random.whole(0, 3))};
    for (std::int64_t i = random.whole(0, 4); i >= 0; --i) task.ranks.push_back(static_cast<Rank>(random.whole(0, 63)));
    for (std::int64_t i = random.whole(0, 4); i >= 0; --i) task.sequences.push_back(random.whole(-5, 500));
    if (random.whole(0, 1) == 1) {
      task.start_s = any_double(random);
      task.end_s = any_double(random);
    }
    plan.tasks.push_back(std::move(task));
  }
  if (random.whole(0, 1) == 1) plan.hash = plan_hash(plan, {});
  if (random.whole(0, 1) == 1) plan.planner = "static:4 \"quoted\"\n";
  if (random.whole(0, 1) == 1) plan.predicted = Prediction{any_double(random), any_double(random), -random.unit()};
  return plan;
}

TEST(RoundTrip, RandomFilesReadBackExactly) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    const Batch batch = any_batch(random);
    EXPECT_EQ(parse_batch_json(to_json(batch), "batch"), batch);
    const Cluster cluster{
        .nodes = static_cast<int>(random.whole(1, 1000)),
        .ranks_per_node = static_cast<int>(random.whole(1, 1000)),
        .memory_bytes = any_cost(random),
        .intra_node = {1.0 + any_cost(random), any_cost(random), static_cast<int>(random.whole(1, 9))},
        .inter_node = {1.0 + any_cost(random), 0.0, 1}};
    EXPECT_EQ(parse_cluster(to_json(cluster), "cluster"), cluster);
    const CostModel cost{.name = "model \"x\" \\ \t \xc3\xa9",
                         .layers = static_cast<int>(random.whole(1, 100)),
                         .task_s = any_cost(random),
                         .patch_s = any_cost(random),
                         .patch_pair_s = any_cost(random),
                         .forward = any_pass(random),
                         .backward = any_pass(random),
                         .query_heads = static_cast<int>(random.whole(0, 64)),
                         .kv_heads = static_cast<int>(random.whole(0, 8)),
                         .token_bytes = any_cost(random),
                         .patch_bytes = any_cost(random),
                         .state_bytes = any_cost(random)};
    EXPECT_EQ(parse_cost_model(to_json(cost), "cost"), cost);
    CostModel with_error = cost;
    with_error.expected_error = ErrorSizes{random.unit(), random.unit(), random.unit()};
    EXPECT_EQ(parse_cost_model(to_json(with_error), "cost"), with_error);
    EXPECT_NE(with_error, cost);
    CostModel with_residuals = cost;
    with_residuals.residuals = {{2, 1, 0.25 + random.unit()}, {2, 1024, 1.5}, {7, 64, 0.25 + 2 * random.unit()}};
    EXPECT_EQ(parse_cost_model(to_json(with_residuals), "cost"), with_residuals);
    EXPECT_NE(with_residuals, cost);
    const Plan plan = any_plan(random);
    EXPECT_EQ(parse_plan(to_json(plan), "plan"), plan);
  }
}

TEST(RoundTrip, SharedCasesReadBackExactly) {
  int files = 0;
  for (const auto& entry : fs::directory_iterator(test::case_file(""))) {
    const std::string name = entry.path().filename().string();
    const std::string file = entry.path().string();
    if (name.rfind("batch_", 0) == 0) {
      const Batch batch = read_batch(file);
      EXPECT_EQ(batch.sequences.size(), 512U) << name;
      EXPECT_EQ(parse_batch_json(to_json(batch), name), batch);
    } else if (name.rfind("cluster_", 0) == 0) {
      EXPECT_EQ(parse_cluster(to_json(read_cluster(file)), name), read_cluster(file));
    } else if (name.rfind("cost_", 0) == 0) {
      EXPECT_EQ(parse_cost_model(to_json(read_cost_model(file)), name), read_cost_model(file));
    } else {
      continue;
    }
    ++files;
  }
  EXPECT_EQ(files, 6 + 4 + 9);
}

TEST(Files, OneSequenceAndOneTaskALine) {
  EXPECT_EQ(to_json(Batch{}), "{\"format\": \"dhp.batch/1\", \"sequences\": []}\n");
  EXPECT_EQ(to_json(Batch{.sequences = {{0, 5, 0}, {3, 6, 8}}}),
            "{\"format\": \"dhp.batch/1\", \"sequences\": [\n {\"id\": 0, \"tokens\": 5, \"patches\": 0},\n "
            "{\"id\": 3, \"tokens\": 6, \"patches\": 8}\n]}\n");
  EXPECT_EQ(to_json(Batch{.sequences = {{3, 6, 8, 4}}}),
            "{\"format\": \"dhp.batch/1\", \"sequences\": [\n {\"id\": 3, \"tokens\": 6, \"patches\": 8, "
            "\"frame_patches\": 4}\n]}\n");
  Plan plan;
  plan.ranks = 2;
  plan.tasks = {{.id = 0, .ranks = {1, 0}, .sequences = {4}, .start_s = 0.0, .end_s = 0.1}};
  EXPECT_EQ(to_json(plan),
            "{\"format\": \"dhp.plan/1\", \"schedule\": \"free\", \"ranks\": 2,\n \"tasks\": [\n  {\"id\": 0, "
            "\"ranks\": [1, 0], \"sequences\": [4], \"micro_batch\": 0, \"exchange\": \"ring\", \"start_s\": 0, "
            "\"end_s\": 0.1}\n ]}\n");
  plan.tasks.clear();
  plan.most_peers = 1;
  EXPECT_EQ(to_json(plan),
            "{\"format\": \"dhp.plan/1\", \"schedule\": \"free\", \"ranks\": 2,\n \"most_peers\": 1,\n "
            "\"tasks\": []}\n");
  EXPECT_EQ(parse_plan(to_json(plan), "plan"), plan);
}

TEST(Files, OptionalFieldsHaveDefaults) {
  const Batch batch = parse_batch_json(R"({"format": "dhp.batch/1", "sequences": [{"id": 1, "tokens": 2}]})", "b");
  EXPECT_EQ(batch.sequences[0].patches, 0);
  EXPECT_EQ(batch.sequences[0].frame_patches, 0);
  const Cluster cluster = parse_cluster(R"({"format": "dhp.cluster/1", "nodes": 1, "ranks_per_node": 2,
      "memory_bytes": 5, "intra_node": {"bandwidth_bytes_per_s": 1, "latency_s": 0},
      "inter_node": {"bandwidth_bytes_per_s": 1, "latency_s": 0}})",
                                        "c");
  EXPECT_EQ(cluster.intra_node.links, 1);
  const CostModel cost = parse_cost_model(R"({"format": "dhp.cost/1", "name": "", "layers": 1, "task_s": 0,
      "patch_s": 0, "forward": {"token_s": 1, "pair_s": 0, "step_s": 0, "ring_bytes_per_token": 0},
      "backward": {"token_s": 1, "pair_s": 0, "step_s": 0, "ring_bytes_per_token": 0}, "token_bytes": 1,
      "state_bytes": 0})",
                                          "k");
  EXPECT_EQ(cost.forward.sequence_step_s, 0);
  EXPECT_EQ(cost.backward.all_to_all_bytes_per_token, 0);
  EXPECT_EQ(cost.patch_bytes, 0);
  EXPECT_EQ(cost.patch_pair_s, 0);
  EXPECT_EQ(cost.query_heads, 0);
  EXPECT_FALSE(cost.expected_error);
  EXPECT_TRUE(cost.residuals.empty());
  const Plan plan = parse_plan(
      R"({"format": "dhp.plan/1", "schedule": "rounds", "ranks": 2,
          "tasks": [{"id": 0, "ranks": [1], "sequences": [9]}]})",
      "p");
  EXPECT_EQ(plan.schedule, Schedule::rounds);
  EXPECT_EQ(plan.tasks[0].exchange, Exchange::ring);
  EXPECT_EQ(plan.tasks[0].micro_batch, 0);
  EXPECT_FALSE(plan.tasks[0].start_s || plan.tasks[0].end_s || plan.predicted);
  EXPECT_EQ(plan.hash, "");
}

TEST(Files, UnknownFieldsAreIgnored) {
  const Batch batch = parse_batch_json(
      R"({"comment": {"deep": [1, {"id": 0}]}, "format": "dhp.batch/1", "sequences": [
          {"id": 1, "tokens": 2, "caption": "a cat", "patches": 3}], "made_by": null})",
      "b");
  EXPECT_EQ(batch, (Batch{.sequences = {{1, 2, 3}}}));
}

TEST(Files, NumbersThatJsonCannotHoldAreRefused) {
  Plan plan;
  plan.ranks = 1;
  plan.predicted = Prediction{std::numeric_limits<double>::quiet_NaN(), 0, 0};
  EXPECT_THROW(to_json(plan), std::invalid_argument);
  plan.predicted = Prediction{std::numeric_limits<double>::infinity(), 0, 0};
  EXPECT_THROW(to_json(plan), std::invalid_argument);
}

TEST(Names, RoundTrip) {
  for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical, Exchange::all_to_all}) {
    EXPECT_EQ(parse_exchange(to_string(exchange), "s", "p"), exchange);
  }
  for (const Schedule schedule : {Schedule::lockstep, Schedule::free, Schedule::rounds}) {
    EXPECT_EQ(parse_schedule(to_string(schedule), "s", "p"), schedule);
  }
  EXPECT_EQ(test::input_error([] { parse_exchange("", "s", "p"); }),
            "s: p: found \"\", expected one of ring, direct, hierarchical, all_to_all");
}

}  // namespace
}  // namespace dhp::files_test
