// The plan hash: frozen digests, and what does and does not change it.
#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "dhp/plan.h"
#include "support.h"

namespace dhp::plan_hash_test {
namespace {

Batch small_batch() { return {.sequences = {{11, 1880, 6160}, {-7, 500, 0}, {5, 64, 0}}}; }

Plan small_plan() {
  Plan plan;
  plan.schedule = Schedule::free;
  plan.ranks = 4;
  plan.tasks.push_back({.id = 0, .ranks = {2, 0, 3}, .sequences = {11, -7}, .exchange = Exchange::direct});
  plan.tasks.push_back({.id = 1, .ranks = {1}, .sequences = {5}, .micro_batch = 2});
  return plan;
}

TEST(PlanHash, FrozenDigests) {
  // Computed by a Python implementation of the algorithm in plan.h.
  EXPECT_EQ(plan_hash(small_plan(), small_batch()), "99b8a140ef615da74cdac3e5360f2959");
  EXPECT_EQ(plan_hash({.schedule = Schedule::free, .ranks = 1}, {}), "fc122e9fec077d431cbf311c5fbd209f");
}

TEST(PlanHash, EveryHashedFieldChangesIt) {
  using Change = std::function<void(Plan&, Batch&)>;
  const std::vector<Change> changes = {
      [](Plan& plan, Batch&) { plan.schedule = Schedule::lockstep; },
      [](Plan& plan, Batch&) { plan.schedule = Schedule::rounds; },
      [](Plan& plan, Batch&) { plan.ranks = 5; },
      [](Plan& plan, Batch&) { plan.tasks[0].id = 7; },
      [](Plan& plan, Batch&) {
        plan.tasks[0].ranks = {0, 2, 3};
      },
      [](Plan& plan, Batch&) {
        plan.tasks[0].ranks = {2, 0};
      },
      [](Plan& plan, Batch&) {
        plan.tasks[0].ranks = {2, 0, 3, 1};
      },
      [](Plan& plan, Batch&) {
        plan.tasks[0].sequences = {-7, 11};
      },
      [](Plan& plan, Batch&) { plan.tasks[0].sequences = {11}; },
      [](Plan& plan, Batch&) { plan.tasks[1].micro_batch = 3; },
      [](Plan& plan, Batch&) { plan.tasks[0].exchange = Exchange::ring; },
      [](Plan& plan, Batch&) { plan.tasks[0].exchange = Exchange::hierarchical; },
      [](Plan& plan, Batch&) { plan.tasks[0].exchange = Exchange::all_to_all; },
      [](Plan& plan, Batch&) { std::swap(plan.tasks[0], plan.tasks[1]); },
      [](Plan& plan, Batch&) { plan.tasks.pop_back(); },
      [](Plan&, Batch& batch) { batch.sequences[1].id = 8; },
      [](Plan&, Batch& batch) { batch.sequences[1].tokens = 501; },
      [](Plan&, Batch& batch) { batch.sequences[0].patches = 6164; },
      [](Plan&, Batch& batch) { batch.sequences[0].frame_patches = 7; },
      [](Plan&, Batch& batch) { batch.sequences[0].frame_patches = 8; },
      [](Plan&, Batch& batch) { batch.sequences[1].frame_patches = 7; },
      [](Plan&, Batch& batch) { std::swap(batch.sequences[0], batch.sequences[2]); },
      [](Plan&, Batch& batch) { batch.sequences.pop_back(); },
      // The same numbers, cut differently.
      [](Plan& plan, Batch&) {
        plan.tasks[0].ranks = {2, 0};
        plan.tasks[0].sequences = {3, 11, -7};
      },
  };
  std::set<std::string> digests = {plan_hash(small_plan(), small_batch())};
  for (std::size_t i = 0; i < changes.size(); ++i) {
    Plan plan = small_plan();
    Batch batch = small_batch();
    changes[i](plan, batch);
    EXPECT_TRUE(digests.insert(plan_hash(plan, batch)).second) << "change " << i;
  }
}

TEST(PlanHash, PredictionsNamesAndUnknownFieldsDoNot) {
  const std::string digest = plan_hash(small_plan(), small_batch());
  Plan plan = small_plan();
  plan.planner = "paper";
  plan.hash = "not a digest";
  plan.predicted = Prediction{.makespan_s = 1, .lower_bound_s = 1, .gap = 0};
  plan.tasks[0].start_s = 3.0;
  plan.tasks[0].end_s = 4.0;
  EXPECT_EQ(plan_hash(plan, small_batch()), digest);
  std::string text = to_json(small_plan());
  text.replace(text.find("\"id\""), 4, R"("note": [1, {"id": 9}], "id")");
  text.insert(1, R"("comment": "by hand", )");
  EXPECT_EQ(plan_hash(parse_plan(text, "plan.json"), small_batch()), digest);
}

TEST(PlanHash, SingleBitsSpread) {
  // Every bit of a length moves about half of the 128 digest bits; 25 to 103 is beyond any chance.
  const auto digest_bits = [](std::int64_t tokens) {
    const std::string digest = plan_hash(small_plan(), {.sequences = {{1, tokens, 0}}});
    std::vector<unsigned> nibbles;
    for (const char c : digest) nibbles.push_back(static_cast<unsigned>(std::stoi(std::string(1, c), nullptr, 16)));
    return nibbles;
  };
  const auto base = digest_bits(0);
  for (int bit = 0; bit < 63; ++bit) {
    const auto changed = digest_bits(std::int64_t{1} << bit);
    int different = 0;
    for (std::size_t i = 0; i < base.size(); ++i) different += __builtin_popcount(base[i] ^ changed[i]);
    EXPECT_GT(different, 25) << "bit " << bit;
    EXPECT_LT(different, 103) << "bit " << bit;
  }
}

}  // namespace
}  // namespace dhp::plan_hash_test
