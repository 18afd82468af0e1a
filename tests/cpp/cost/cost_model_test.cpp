// Shapes, degrees and bounds against brute force.
#include "dhp/cost_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "cost/transfer.h"
#include "dhp/plan.h"
#include "support.h"

namespace dhp::cost_model_test {
namespace {

Cluster grid(int nodes, int ranks_per_node) {
  return {.nodes = nodes,
          .ranks_per_node = ranks_per_node,
          .memory_bytes = 100,
          .intra_node = {.bandwidth_bytes_per_s = 8e9, .latency_s = 1e-5, .links = 3},
          .inter_node = {.bandwidth_bytes_per_s = 2e9, .latency_s = 4e-5}};
}

TEST(Shape, CountsMembersOfEveryNode) {
  const Cluster cluster = grid(4, 4);
  const auto expect_shape = [&](std::vector<Rank> ranks, int nodes, int most, int fewest) {
    const GroupShape shape = shape_of(cluster, ranks);
    EXPECT_EQ(shape.degree, static_cast<int>(ranks.size()));
    EXPECT_EQ(shape.nodes, nodes);
    EXPECT_EQ(shape.most_on_node, most);
    EXPECT_EQ(shape.fewest_on_node, fewest);
  };
  expect_shape({5}, 1, 1, 1);
  expect_shape({3, 0, 2}, 1, 3, 3);
  expect_shape({15, 0, 8, 9, 10, 11}, 3, 4, 1);
  EXPECT_THROW(shape_of(cluster, std::vector<Rank>{}), std::invalid_argument);
  EXPECT_THROW(shape_of(cluster, std::vector<Rank>{16}), std::invalid_argument);
  EXPECT_THROW(shape_of(cluster, std::vector<Rank>{-1}), std::invalid_argument);
}

TEST(Shape, ConsecutiveEqualsCounting) {
  for (int nodes = 1; nodes <= 4; ++nodes) {
    for (int per_node = 1; per_node <= 5; ++per_node) {
      const Cluster cluster = grid(nodes, per_node);
      for (Rank first = 0; first < cluster.ranks(); ++first) {
        for (int degree = 1; degree <= cluster.ranks() - first; ++degree) {
          std::vector<Rank> ranks(static_cast<std::size_t>(degree));
          std::iota(ranks.begin(), ranks.end(), first);
          const GroupShape counted = shape_of(cluster, ranks);
          const GroupShape direct = consecutive_shape(cluster, first, degree);
          ASSERT_EQ(direct.degree, counted.degree);
          ASSERT_EQ(direct.nodes, counted.nodes);
          ASSERT_EQ(direct.most_on_node, counted.most_on_node);
          ASSERT_EQ(direct.fewest_on_node, counted.fewest_on_node);
        }
      }
      EXPECT_THROW(consecutive_shape(cluster, 0, cluster.ranks() + 1), std::invalid_argument);
      EXPECT_THROW(consecutive_shape(cluster, 1, cluster.ranks()), std::invalid_argument);
      EXPECT_THROW(consecutive_shape(cluster, -1, 1), std::invalid_argument);
      EXPECT_THROW(consecutive_shape(cluster, 0, 0), std::invalid_argument);
    }
  }
}

/// One pass that does everything in round numbers.
CostModel round_cost() {
  CostModel cost;
  cost.layers = 2;
  cost.task_s = 1;
  cost.patch_s = 0.5;
  cost.forward = {.token_s = 0.25, .pair_s = 0.125, .step_s = 2, .sequence_step_s = 1, .ring_bytes_per_token = 8e9};
  cost.token_bytes = 10;
  cost.patch_bytes = 5;
  cost.state_bytes = 20;
  return cost;
}

TEST(TaskTime, RingByHand) {
  // Two sequences of 4 and 8 tokens and 6 patches on 2 ranks of one node.
  Load load;
  load.add({.id = 0, .tokens = 4, .patches = 6});
  load.add({.id = 1, .tokens = 8});
  EXPECT_EQ(load.sequences, 2);
  EXPECT_EQ(load.tokens, 12);
  EXPECT_EQ(load.tokens_squared, 80);
  const double fixed = 2 + 2 * 1;                          // one attention step
  const double attention = 0.125 * 80 / 4;                 // of a rank
  const double transfer = 1 * (2 * 1e-5 + 8e9 * 6 / 8e9);  // one hop: two layers' latency, 6 tokens of KV
  const double hidden = attention / 2 + fixed;
  const double backward = 2 * 1e-5;  // free, but for the latency, which nothing hides
  const double expected = 1 + 6 * 0.5 / 2 + 0.25 * 12 / 2 + attention + 2 * fixed + (transfer - hidden) + backward;
  ASSERT_GT(transfer, hidden);
  test::expect_relative(task_seconds(round_cost(), grid(1, 4), load, {2, 1, 2, 2}, Exchange::ring), expected, 1e-15);
  EXPECT_EQ(task_memory_bytes(round_cost(), load, 2), (12 * 10 + 6 * 5) / 2.0);
}

TEST(TaskTime, ResidualFactorsAreOfComputeTimeInGroups) {
  CostModel cost = round_cost();
  Load load;
  load.add({.id = 0, .tokens = 4, .patches = 6});
  load.add({.id = 1, .tokens = 8});
  EXPECT_EQ(load.longest, 8);
  const auto seconds = [&](int degree, Exchange exchange = Exchange::ring) {
    return task_seconds(cost, grid(1, 4), load, {degree, 1, degree, degree}, exchange);
  };
  const double alone = seconds(1);
  const double wide = seconds(4);
  cost.residuals = {{2, 4, 9.0}, {2, 8, 1.5}, {2, 16, 9.0}, {3, 8, 0.5}};
  // As in RingByHand, all that computes half as long again; what hides transfers does, too.
  const double fixed = 1.5 * (2 + 2 * 1);
  const double attention = 1.5 * (0.125 * 80 / 4);
  const double transfer = 2 * 1e-5 + 6;
  const double expected = 1.5 * (1 + 6 * 0.5 / 2 + 0.25 * 12 / 2) + attention + 2 * fixed +
                          std::max(0.0, transfer - (attention / 2 + fixed)) + 2 * 1e-5;
  test::expect_relative(seconds(2), expected, 1e-15);
  EXPECT_EQ(seconds(1), alone);
  EXPECT_EQ(seconds(4), wide) << "no factor is known";
  EXPECT_EQ(residual_factor(cost, 2, 7), 9.0) << "4 to 7 tokens";
  EXPECT_EQ(residual_factor(cost, 2, 15), 1.5);
  EXPECT_EQ(residual_factor(cost, 2, 32), 1.0);
  EXPECT_EQ(residual_factor(cost, 2, 3), 1.0);
  EXPECT_EQ(residual_factor(cost, 3, 8), 0.5);
  EXPECT_EQ(residual_factor(cost, 1, 8), 1.0);
  EXPECT_EQ(least_residual_factor(cost), 0.5);
  cost.residuals.pop_back();
  EXPECT_EQ(least_residual_factor(cost), 1.0);
  EXPECT_EQ(residual_factor({}, 2, 8), 1.0);
  // A group of slow ranks: both count.
  const double slow = task_seconds(cost, grid(1, 4), load, {2, 1, 2, 2, 0.5}, Exchange::ring);
  cost.residuals = {{2, 8, 3.0}};
  test::expect_relative(seconds(2), slow, 1e-15);
  // Now 3 * (2.5 / 2 + 4) s hide the 6 s of forward; the latency of backward stays.
  test::expect_relative(exposed_transfer_s(cost, grid(1, 4), load, {2, 1, 2, 2}, Exchange::ring), 2e-5, 1e-12);
}

TEST(TaskTime, NoTwoRanksShareAFrame) {
  CostModel cost;
  cost.layers = 1;
  cost.patch_s = 0.5;
  cost.patch_pair_s = 0.25;
  // A clip of 3 frames of 4 patches: 12*0.5 + 12*4*0.25 = 18 s. A picture of 6 patches: 3 + 9 = 12 s, on one rank.
  Load load;
  load.add({.id = 0, .tokens = 4, .patches = 12, .frame_patches = 4});
  load.add({.id = 1, .tokens = 4, .patches = 6, .frame_patches = 6});
  load.add({.id = 2, .tokens = 4, .patches = 2});  // 1 s, with no frame told
  EXPECT_EQ(load.patches, 20);
  EXPECT_EQ(load.patch_pairs, 84);
  EXPECT_EQ(load.largest_frame, 6);
  const auto seconds = [&](int degree) {
    return task_seconds(cost, grid(1, 4), load, {degree, 1, degree, degree}, Exchange::direct) -
           task_seconds({.layers = 1}, grid(1, 4), load, {degree, 1, degree, degree}, Exchange::direct);
  };
  EXPECT_DOUBLE_EQ(seconds(1), 31);
  EXPECT_EQ(load.largest_frames, 1);
  EXPECT_EQ(load.frames, 4);
  // Work whose frames nobody told is counted to the others, which then take 19/3 s each: one of them fits beside the
  // picture; the second frame of a rank is as level as frames allow.
  EXPECT_NEAR(seconds(2), 12 + 19.0 / 3, 1e-12);
  EXPECT_NEAR(seconds(3), 31.0 / 3 + 19.0 / 3 * 2 / 3, 1e-12);
  EXPECT_NEAR(seconds(4), 12, 1e-12);
  // A slow rank is as slow at a frame.
  EXPECT_DOUBLE_EQ(task_seconds(cost, grid(1, 4), load, {1, 1, 1, 1, 0.5}, Exchange::direct), 62);
}

/// Each frame, the largest first, to the rank with the least work.
double dealt_s(std::vector<double> frames_s, int degree) {
  std::vector<double> ranks_s(static_cast<std::size_t>(degree), 0.0);
  std::sort(frames_s.begin(), frames_s.end(), std::greater<>());
  for (const double frame_s : frames_s) *std::min_element(ranks_s.begin(), ranks_s.end()) += frame_s;
  return *std::max_element(ranks_s.begin(), ranks_s.end());
}

TEST(TaskTime, VisionLastsAsLongAsTheFullestShareOfFrames) {
  CostModel cost;
  cost.patch_s = 0.5;
  cost.patch_pair_s = 0.25;
  double error = 0.0;
  double error_of_even = 0.0;
  int mixed = 0;
  for (int seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(static_cast<std::uint64_t>(seed));
    const int sequences = seed % 4 == 0 ? 1 : static_cast<int>(random.whole(1, 5));
    const int degree = static_cast<int>(random.whole(1, 9));
    const bool one_size = seed % 2 == 1;
    const std::int64_t size = random.whole(1, 40);
    Load load;
    std::vector<double> frames_s;
    for (int i = 0; i < sequences; ++i) {
      const std::int64_t frame = one_size ? size : random.whole(1, 40);
      const std::int64_t patches = one_size ? frame * random.whole(1, 20) : random.whole(frame, 20 * frame);
      load.add({.id = i, .tokens = 4, .patches = patches, .frame_patches = frame});
      const double patch_s = 0.5 + 0.25 * static_cast<double>(frame);
      for (std::int64_t left = patches; left > 0; left -= frame) {
        frames_s.push_back(patch_s * static_cast<double>(std::min(left, frame)));
      }
    }
    const VisionSeconds vision = vision_seconds(cost, load);
    const double exact_s = dealt_s(frames_s, degree);
    const double seconds = vision.on(degree);
    const double even_s = vision.work_s / degree;
    const VisionSeconds::Share share = vision.fullest_share(degree);
    EXPECT_NEAR(share.work * vision.work_s + share.frame * vision.frame_s, seconds, 1e-9 * seconds);
    // Bounds count on these.
    EXPECT_GE(seconds, even_s * (1 - 1e-12));
    EXPECT_GE(seconds, vision.frame_s * (1 - 1e-12));
    EXPECT_LE(seconds, (even_s + vision.frame_s) * (1 + 1e-12));
    if (one_size || sequences == 1) {
      EXPECT_NEAR(seconds, exact_s, 1e-9 * exact_s);
    } else if (degree > 1) {
      ++mixed;
      error += std::abs(seconds / exact_s - 1);
      error_of_even += std::abs(std::max(even_s, vision.frame_s) / exact_s - 1);
    }
  }
  // Two sizes stand for all: 1.4 % off on average; the larger of an even share and one frame is 4.5 %.
  std::cout << "frames of several sizes: " << mixed << " tasks, off by " << error / mixed << ", formerly by "
            << error_of_even / mixed << '\n';
  EXPECT_GT(mixed, 300);
  EXPECT_LT(error / mixed, 0.035);
  EXPECT_LT(error, error_of_even);
}

TEST(TaskTime, DegreeOneHasNoTransfer) {
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b.json"));
  Load load;
  load.add({.id = 0, .tokens = 5000, .patches = 100});
  const double ring = task_seconds(cost, cluster, load, {}, Exchange::ring);
  for (const Exchange exchange : {Exchange::direct, Exchange::hierarchical, Exchange::all_to_all}) {
    EXPECT_EQ(task_seconds(cost, cluster, load, {}, exchange), ring);
  }
}

TEST(TaskTime, AllToAllNeedsItsFigures) {
  const Cluster cluster = grid(1, 4);
  CostModel cost = round_cost();
  cost.name = "m";
  const auto message = [&] {
    return test::input_error([&] { task_seconds(cost, cluster, {}, {2, 1, 2, 2}, Exchange::all_to_all); });
  };
  EXPECT_EQ(message(), "cost model \"m\": query_heads: missing; exchange all_to_all needs it");
  cost.query_heads = 4;
  EXPECT_EQ(message(), "cost model \"m\": forward.all_to_all_bytes_per_token: missing; exchange all_to_all needs it");
}

TEST(MinDegree, EqualsCountingUp) {
  const Cluster cluster = grid(1, 4);  // 100 bytes
  const CostModel cost = round_cost();
  for (std::int64_t tokens = 1; tokens <= 100; ++tokens) {
    for (std::int64_t patches = 0; patches <= 5; ++patches) {
      int expected = 1;
      while (static_cast<double>(10 * tokens + 5 * patches) / expected > 80) ++expected;
      EXPECT_EQ(min_degree(cost, cluster, {.id = 0, .tokens = tokens, .patches = patches}), expected);
    }
  }
}

TEST(MinDegree, IsTheSmallestThatFitsForAnyDoubles) {
  test::Random random(5);
  for (int i = 0; i < 20000; ++i) {
    SCOPED_TRACE("seed 5, case " + std::to_string(i));
    Cluster cluster = grid(1, 4);
    CostModel cost = round_cost();
    cost.token_bytes = random.unit() * 10;
    cost.patch_bytes = random.unit();
    // Budgets that sit on the edge: a whole fraction of what the sequence needs.
    const Sequence sequence{.id = 0, .tokens = random.whole(1, 100000), .patches = random.whole(0, 1000)};
    Load load;
    load.add(sequence);
    cost.state_bytes = 0;
    cluster.memory_bytes = task_memory_bytes(cost, load, static_cast<int>(random.whole(1, 64)));
    const int degree = min_degree(cost, cluster, sequence);
    ASSERT_GE(degree, 1);
    ASSERT_LE(task_memory_bytes(cost, load, degree), activation_budget_bytes(cost, cluster));
    if (degree > 1) {
      ASSERT_GT(task_memory_bytes(cost, load, degree - 1), activation_budget_bytes(cost, cluster));
    }
  }
}

TEST(MinDegree, Edges) {
  const Sequence sequence{.id = 0, .tokens = kMaxTokens};
  CostModel cost = round_cost();
  cost.state_bytes = 100;
  EXPECT_EQ(min_degree(cost, grid(1, 4), sequence), 0);  // nothing left
  cost.state_bytes = 200;
  EXPECT_EQ(min_degree(cost, grid(1, 4), sequence), 0);
  cost.state_bytes = 99;
  EXPECT_EQ(min_degree(cost, grid(1, 4), sequence), std::numeric_limits<int>::max());
  cost.token_bytes = 0;
  EXPECT_EQ(min_degree(cost, grid(1, 4), sequence), 1);
}

TEST(SimpleBound, EmptyAndSingle) {
  EXPECT_EQ(simple_lower_bound_s({}, grid(2, 4), round_cost()), 0);
  // One sequence that no split helps: its own time on one rank.
  CostModel cost = round_cost();
  cost.forward.step_s = 1000;
  const Batch batch{.sequences = {{0, 4, 2}}};
  const Load load = load_of(batch.sequences);
  test::expect_relative(simple_lower_bound_s(batch, grid(1, 4), cost),
                        task_seconds(cost, grid(1, 4), load, {}, Exchange::ring), 1e-15);
}

TEST(SimpleBound, LongestEqualsTryingEveryDegree) {
  const Cluster cluster = read_cluster(test::case_file("cluster_h100_8x8.json"));
  test::Random random(17);
  CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b.json"));
  for (int i = 0; i < 900; ++i) {
    SCOPED_TRACE("seed 17, case " + std::to_string(i));
    Sequence sequence{.id = 0, .tokens = random.whole(1, 300000), .patches = random.whole(0, 100000)};
    if (i % 3 != 0) sequence.frame_patches = random.whole(0, std::min<std::int64_t>(sequence.patches, 16384));
    cost.patch_pair_s = i % 3 == 2 ? cost.patch_s * random.unit() * 1e-2 : 0.0;
    cost.backward.step_s = (i % 2) * 1e-3 * random.unit();
    const double frame = static_cast<double>(sequence.frame_patches);
    const double patch_s = cost.patch_s + cost.patch_pair_s * frame;
    const auto tokens = static_cast<double>(sequence.tokens);
    const double work = (cost.forward.token_s + cost.backward.token_s) * tokens +
                        (cost.forward.pair_s + cost.backward.pair_s) * tokens * tokens / 2;
    const double vision = patch_s * static_cast<double>(sequence.patches);
    const double fixed =
        cost.forward.step_s + cost.backward.step_s + cost.forward.sequence_step_s + cost.backward.sequence_step_s;
    double longest = std::numeric_limits<double>::infinity();
    for (int degree = std::max(1, min_degree(cost, cluster, sequence)); degree <= 64; ++degree) {
      longest =
          std::min(longest, cost.task_s + work / degree + std::max(vision / degree, patch_s * frame) + degree * fixed);
    }
    // A batch of one: its area is below its length.
    test::expect_relative(simple_lower_bound_s({.sequences = {sequence}}, cluster, cost), longest, 1e-12);
  }
}

TEST(SimpleBound, UnequalSpeedsEqualTryingEveryDegree) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    Cluster cluster = grid(2, 4);
    CostModel cost = round_cost();
    cost.forward.step_s = random.unit() * 50;
    for (int rank = 0; rank < 8; ++rank) {
      cluster.rank_speed.push_back(static_cast<double>(random.whole(0, 3)) / (random.whole(0, 1) == 0 ? 3 : 4));
    }
    cluster.rank_speed[5] = 0.9;
    std::vector<double> falling = cluster.rank_speed;
    std::sort(falling.rbegin(), falling.rend());
    while (falling.back() == 0.0) falling.pop_back();
    const double speed = std::accumulate(falling.begin(), falling.end(), 0.0);
    Batch batch;
    double work = 0.0;
    double need = 0.0;
    double longest = 0.0;
    for (int id = 0; id < 5; ++id) {
      Sequence sequence{id, random.whole(1, 16), random.whole(0, 20)};
      if (min_degree(cost, cluster, sequence) > std::ssize(falling)) sequence = {id, 1, 0};
      batch.sequences.push_back(sequence);
      const auto tokens = static_cast<double>(sequence.tokens);
      const auto patches = static_cast<double>(sequence.patches);
      const double own = 0.25 * tokens + 0.125 * tokens * tokens / 2 + 0.5 * patches;
      const int least = min_degree(cost, cluster, sequence);
      double shortest = std::numeric_limits<double>::infinity();
      for (int degree = least; degree <= std::ssize(falling); ++degree) {
        const double slowest = falling[static_cast<std::size_t>(degree) - 1];
        shortest = std::min(shortest, (1 + own / degree + degree * (cost.forward.step_s + 1)) / slowest);
      }
      longest = std::max(longest, shortest);
      work += own + least * least;
      need += (10 * tokens + 5 * patches) / 80;
    }
    const double area = (work + (1 + cost.forward.step_s) * std::max(speed, std::ceil(need - 1e-9))) / speed;
    test::expect_relative(simple_lower_bound_s(batch, cluster, cost), std::max(area, longest), 1e-12);
    // Ranks of nominal speed bound as a cluster that states none.
    Cluster nominal = cluster;
    nominal.rank_speed.assign(8, 1.0);
    cluster.rank_speed.clear();
    EXPECT_EQ(simple_lower_bound_s(batch, nominal, cost), simple_lower_bound_s(batch, cluster, cost));
  }
}

TEST(SimpleBound, NoRandomPlanBeatsIt) {
  // Random valid plans of random batches, all ring-like exchanges: the bound stays below every one.
  const Cluster cluster = grid(2, 3);
  for (std::uint64_t seed = 1; seed <= 3000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    CostModel cost;
    cost.layers = 2;
    cost.task_s = random.unit() * 0.1;
    cost.patch_s = random.unit() * 1e-3;
    cost.patch_pair_s = seed % 2 == 0 ? 0.0 : random.unit() * 1e-3;
    cost.forward = {random.unit() * 1e-2, random.unit() * 1e-4, random.unit() * 0.05, random.unit() * 0.01, 1e6};
    cost.backward = {random.unit() * 1e-2, random.unit() * 1e-4, random.unit() * 0.05, random.unit() * 0.01, 1e6};
    cost.token_bytes = 0.5;
    Batch batch;
    Plan plan;
    plan.ranks = cluster.ranks();
    std::vector<Rank> order = {0, 1, 2, 3, 4, 5};
    const std::int64_t count = random.whole(1, 8);
    for (int id = 0; id < count; ++id) {
      batch.sequences.push_back({.id = id, .tokens = random.whole(1, 600), .patches = random.whole(0, 50)});
      if (seed % 3 != 0) batch.sequences.back().frame_patches = random.whole(0, batch.sequences.back().patches);
      const int least = min_degree(cost, cluster, batch.sequences.back());
      ASSERT_LE(least, 6);
      const int degree = static_cast<int>(random.whole(least, 6));
      for (std::size_t i = 5; i > 0; --i) {
        std::swap(order[i], order[static_cast<std::size_t>(random.whole(0, static_cast<std::int64_t>(i)))]);
      }
      plan.tasks.push_back({.id = id,
                            .ranks = {order.begin(), order.begin() + degree},
                            .sequences = {id},
                            .exchange = static_cast<Exchange>(random.whole(0, 2))});
    }
    annotate(plan, batch, cluster, cost);
    ASSERT_EQ(check_plan(plan, batch, cluster, cost), std::vector<std::string>{});
    ASSERT_GE(plan.predicted->gap, -1e-12);
  }
}

}  // namespace
}  // namespace dhp::cost_model_test
