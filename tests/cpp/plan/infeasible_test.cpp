// Which sequences no plan holds, whatever else is in the batch.

#include <algorithm>

#include "plan_support.h"
#include "random_case.h"

namespace dhp::infeasible_test {
namespace {

/// By id, what plan_batch() says of every sequence alone.
std::vector<Infeasible> alone(const test::Case& made) {
  std::vector<Infeasible> answers;
  for (const Sequence& sequence : made.batch.sequences) {
    PlanResult result = plan_batch({{sequence}}, made.cluster, made.cost, made.options);
    if (auto* answer = std::get_if<Infeasible>(&result)) answers.push_back(std::move(*answer));
  }
  return answers;
}

test::Case case_of(std::uint64_t seed, const std::string& planner) {
  test::Case made = test::random_case(seed, planner);
  made.options.no_idle_ranks = false;  // no matter of one sequence
  if (seed % 3 == 0)
    made.cluster.memory_bytes = made.cost.state_bytes + (made.cluster.memory_bytes - made.cost.state_bytes) / 8;
  return made;
}

TEST(InfeasibleSequences, AreThoseThatCannotBePlannedAlone) {
  constexpr std::uint64_t kCases = 200;
  for (const char* planner : {"free", "lockstep", "paper", "static", "static:2", "balanced-static", "balanced-static:4",
                              "ulysses", "ulysses:2"}) {
    int some = 0;
    for (std::uint64_t seed = 1; seed <= kCases; ++seed) {
      test::Case made = case_of(seed, planner);
      made.options.effort = 1;
      SCOPED_TRACE(std::string(planner) + ", seed " + std::to_string(seed));
      const std::size_t colon = made.options.planner.find(':');
      if (colon != std::string::npos && made.cluster.ranks() % std::stoi(made.options.planner.substr(colon + 1)) != 0) {
        continue;
      }
      const std::vector<Infeasible> expected = alone(made);
      const std::vector<Infeasible> found = infeasible_sequences(made.batch, made.cluster, made.cost, made.options);
      some += !found.empty() && found.size() < made.batch.sequences.size() ? 1 : 0;
      const auto of_all = std::find_if(expected.begin(), expected.end(),
                                       [](const Infeasible& answer) { return !answer.sequence.has_value(); });
      const bool nothing_fits = !found.empty() && !found.front().sequence;
      ASSERT_TRUE(nothing_fits || of_all == expected.end());
      if (nothing_fits) {
        EXPECT_EQ(found.size(), 1U);
        EXPECT_EQ(expected.size(), made.batch.sequences.size());
        if (of_all != expected.end()) {
          EXPECT_EQ(found.front().reason, of_all->reason);
        }
        continue;
      }
      ASSERT_EQ(found.size(), expected.size());
      for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i].reason, expected[i].reason);
        EXPECT_EQ(found[i].sequence, expected[i].sequence);
        EXPECT_EQ(found[i].needed_ranks, expected[i].needed_ranks);
        EXPECT_EQ(found[i].needed_bytes, expected[i].needed_bytes);
      }
      const auto first = first_infeasible(made.batch, made.cluster, made.cost, made.options);
      ASSERT_EQ(first.has_value(), !found.empty());
      if (first) {
        EXPECT_EQ(first->reason, found.front().reason);
      }
    }
    EXPECT_GT(some, 5) << planner;  // the cases ask something
  }
}

/// Their rules for filling ranks look at the whole batch: of one sequence alone they may say more, never less.
TEST(InfeasibleSequences, OfMegatronCannotBePlannedAlone) {
  constexpr std::uint64_t kCases = 200;
  for (const char* planner : {"megatron-hybrid", "megatron-dynamic", "megatron-dynamic:1000"}) {
    int some = 0;
    for (std::uint64_t seed = 1; seed <= kCases; ++seed) {
      const test::Case made = case_of(seed, planner);
      SCOPED_TRACE(std::string(planner) + ", seed " + std::to_string(seed));
      for (const Infeasible& one : infeasible_sequences(made.batch, made.cluster, made.cost, made.options)) {
        ++some;
        for (const Sequence& sequence : made.batch.sequences) {
          if (one.sequence && sequence.id != *one.sequence) continue;
          const PlanResult result = plan_batch({{sequence}}, made.cluster, made.cost, made.options);
          EXPECT_TRUE(std::holds_alternative<Infeasible>(result)) << sequence.id << ": " << one.reason;
        }
      }
    }
    EXPECT_GT(some, 5) << planner;
  }
}

/// What is held together is what is left when those are taken away.
TEST(InfeasibleSequences, WithoutThemTheBatchIsPlanned) {
  constexpr std::uint64_t kCases = 200;
  for (const char* planner : {"free", "paper", "static", "ulysses"}) {
    for (std::uint64_t seed = 1; seed <= kCases; ++seed) {
      test::Case made = case_of(seed, planner);
      made.options.effort = 1;
      const std::vector<Infeasible> found = infeasible_sequences(made.batch, made.cluster, made.cost, made.options);
      if (!found.empty() && !found.front().sequence) continue;
      std::erase_if(made.batch.sequences, [&](const Sequence& sequence) {
        return std::any_of(found.begin(), found.end(),
                           [&](const Infeasible& one) { return one.sequence == sequence.id; });
      });
      const PlanResult result = plan_batch(made.batch, made.cluster, made.cost, made.options);
      const auto* infeasible = std::get_if<Infeasible>(&result);
      EXPECT_EQ(infeasible, nullptr) << planner << ", seed " << seed << ": " << (infeasible ? infeasible->reason : "");
    }
  }
}

TEST(InfeasibleSequences, EmptyBatchAndBadOptions) {
  const Cluster cluster = test::make_cluster(1, 2, 100.0);
  CostModel cost = test::make_cost();
  EXPECT_TRUE(infeasible_sequences({}, cluster, cost, {}).empty());
  EXPECT_THROW(infeasible_sequences({}, cluster, cost, {.max_degree = -1}), InputError);
  EXPECT_THROW(infeasible_sequences({}, cluster, cost, {.planner = "best"}), InputError);
}

TEST(InfeasibleSequences, CapacityInTokensSpeaksOfTokens) {
  const Cluster cluster = test::make_cluster(1, 2, 512.0);
  CostModel cost = test::make_cost();
  cost.token_bytes = 1.0;
  cost.patch_bytes = cost.state_bytes = 0.0;
  ASSERT_TRUE(counts_tokens(cost));
  const Batch batch{{{.id = 7, .tokens = 1024}, {.id = 101, .tokens = 2150}}};
  const auto answer = first_infeasible(batch, cluster, cost, {});
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->reason,
            "sequence 101 has 2,150 tokens; 2 ranks hold 1,024 (the smallest degree that holds it is 5)");
  EXPECT_EQ(first_infeasible(batch, cluster, cost, {.max_degree = 1})->reason,
            "sequence 7 has 1,024 tokens; 1 rank holds 512 (the smallest degree that holds it is 2)");
}

}  // namespace
}  // namespace dhp::infeasible_test
