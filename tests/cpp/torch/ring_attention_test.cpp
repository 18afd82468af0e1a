#include "torch/attention/ring_attention.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "ranks.h"
#include "torch/attention/accumulate.h"
#include "torch/attention/kernel.h"

namespace dhp::rt::ring_attention_test {
namespace {

using test::run_ranks;

struct Whole {
  at::Tensor q, k, v, dout;    // all tokens, fp64
  at::Tensor out, dq, dk, dv;  // what one process computes
};

struct Case {
  std::vector<std::int64_t> seq_tokens;
  std::vector<std::int64_t> ranks;
  std::int64_t q_heads;
  std::int64_t kv_heads;
  bool causal;
  std::string exchange;
  std::vector<std::int64_t> nodes;  // of `ranks`
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.exchange << ", ranks " << testing::PrintToString(c.ranks) << ", nodes "
             << testing::PrintToString(c.nodes) << ", tokens " << testing::PrintToString(c.seq_tokens) << ", heads "
             << c.q_heads << "/" << c.kv_heads << (c.causal ? ", causal" : "");
}

constexpr double kScale = 0.4;
constexpr std::int64_t kHeadSize = 8;

/// Attention of one sequence by the definition, and its gradients by the chain rule.
void attend(Whole& whole, const Case& c, std::int64_t begin, std::int64_t tokens) {
  const auto group = c.q_heads / c.kv_heads;
  const auto cut = [&](const at::Tensor& t) { return t.narrow(0, begin, tokens).transpose(0, 1); };
  const auto q = cut(whole.q);
  const auto k = cut(whole.k).repeat_interleave(group, 0);
  const auto v = cut(whole.v).repeat_interleave(group, 0);
  const auto dout = cut(whole.dout);
  auto scores = at::matmul(q, k.transpose(1, 2)) * kScale;
  if (c.causal) {
    const auto later = at::ones({tokens, tokens}, at::kBool).triu(1);
    scores = scores.masked_fill(later, -std::numeric_limits<double>::infinity());
  }
  const auto p = at::softmax(scores, -1);
  const auto dp = at::matmul(dout, v.transpose(1, 2));
  const auto ds = p * (dp - (p * dp).sum(-1, true)) * kScale;
  const auto per_kv_head = [&](const at::Tensor& t) {
    return t.reshape({c.kv_heads, group, tokens, kHeadSize}).sum(1).transpose(0, 1);
  };
  whole.out.narrow(0, begin, tokens).copy_(at::matmul(p, v).transpose(0, 1));
  whole.dq.narrow(0, begin, tokens).copy_(at::matmul(ds, k).transpose(0, 1));
  whole.dk.narrow(0, begin, tokens).copy_(per_kv_head(at::matmul(ds.transpose(1, 2), q)));
  whole.dv.narrow(0, begin, tokens).copy_(per_kv_head(at::matmul(p.transpose(1, 2), dout)));
}

Whole compute(const Case& c) {
  std::int64_t tokens = 0;
  for (const auto length : c.seq_tokens) tokens += length;
  const auto random = [&](std::int64_t heads) { return at::randn({tokens, heads, kHeadSize}, at::kDouble); };
  Whole whole{random(c.q_heads), random(c.kv_heads), random(c.kv_heads), random(c.q_heads), {}, {}, {}, {}};
  whole.out = at::zeros_like(whole.q);
  whole.dq = at::zeros_like(whole.q);
  whole.dk = at::zeros_like(whole.k);
  whole.dv = at::zeros_like(whole.v);
  std::int64_t begin = 0;
  for (const auto length : c.seq_tokens) {
    attend(whole, c, begin, length);
    begin += length;
  }
  return whole;
}

/// Rows of a position: chunks r and 2d-1-r of each sequence.
at::Tensor local_rows(const Case& c, std::int64_t position) {
  const auto degree = static_cast<std::int64_t>(c.ranks.size());
  std::vector<at::Tensor> rows;
  std::int64_t begin = 0;
  for (const auto length : c.seq_tokens) {
    const auto chunk = degree > 1 ? length / (2 * degree) : length;
    rows.push_back(at::arange(begin + position * chunk, begin + (position + 1) * chunk, at::kLong));
    if (degree > 1) {
      const auto mirrored = 2 * degree - 1 - position;
      rows.push_back(at::arange(begin + mirrored * chunk, begin + (mirrored + 1) * chunk, at::kLong));
    }
    begin += length;
  }
  return at::cat(rows);
}

double worst(const at::Tensor& found, const at::Tensor& expected) {
  return (found - expected).abs().max().item<double>();
}

/// Worst error of a rank's output and gradients.
double run_rank(const Case& c, const Whole& whole, int rank, const std::string& group) {
  std::int64_t position = 0;
  while (c.ranks[static_cast<std::size_t>(position)] != rank) ++position;
  const auto mine = local_rows(c, position);
  const auto cut = [&](const at::Tensor& t) { return t.index_select(0, mine); };
  const RingAttentionCall call{c.seq_tokens, c.ranks, group, kScale, c.causal, c.exchange, c.nodes, true};
  const auto forward = ring_attention_forward(cut(whole.q), cut(whole.k), cut(whole.v), call);
  const auto backward = ring_attention_backward(cut(whole.dout), forward, call);
  return std::max({worst(forward.out, cut(whole.out)), worst(backward.dq, cut(whole.dq)),
                   worst(backward.dk, cut(whole.dk)), worst(backward.dv, cut(whole.dv))});
}

class RingAttentionKernels : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { use_kernel(GetParam()); }
  void TearDown() override { use_kernel("auto"); }
};

/// Draws cases from a seed that failures print.
class Draw {
 public:
  Draw() { at::manual_seed(seed_); }

  unsigned seed() const { return seed_; }
  std::int64_t pick(std::int64_t least, std::int64_t most) {
    return least + static_cast<std::int64_t>(random_() % static_cast<unsigned>(most - least + 1));
  }

  std::vector<std::int64_t> order(int size) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(size));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    return order;
  }

  Case draw(std::vector<std::int64_t> ranks, std::string exchange, std::vector<std::int64_t> nodes) {
    const auto size = static_cast<std::int64_t>(ranks.size());
    const auto kv_heads = pick(1, 2);
    const auto q_heads = kv_heads * pick(1, 3);
    Case c{{}, std::move(ranks), q_heads, kv_heads, pick(0, 3) > 0, std::move(exchange), std::move(nodes)};
    for (auto sequences = pick(1, 3); sequences > 0; --sequences) {
      c.seq_tokens.push_back((size > 1 ? 2 * size : 1) * pick(1, 5));
    }
    return c;
  }

  /// Of any number of members on any number of nodes.
  std::vector<std::int64_t> any_nodes(std::size_t members) {
    std::vector<std::int64_t> nodes(members);
    const auto most = pick(0, 3);
    for (auto& node : nodes) node = pick(0, most);
    return nodes;
  }

 private:
  const unsigned seed_ = std::random_device{}();
  std::mt19937 random_{seed_};
};

/// Every rank walks the list of cases and runs its own.
void expect_equal_to_the_definition(const std::vector<Case>& cases, int size, unsigned seed) {
  std::vector<Whole> wholes;
  for (const Case& c : cases) wholes.push_back(compute(c));
  const auto errors = run_ranks("ring", size, [&](int rank) {
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const auto& ranks = cases[i].ranks;
      if (std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) continue;
      EXPECT_LT(run_rank(cases[i], wholes[i], rank, "ring/" + std::to_string(rank)), 1e-12)
          << "seed " << seed << ": " << cases[i];
    }
  });
  for (const auto& error : errors) EXPECT_EQ(error, "") << "seed " << seed;
}

const char* const kExchanges[] = {"ring", "direct", "hierarchical"};

// All degrees, MHA, GQA and MQA, 1 to 3 sequences, groups in any order, and the other ranks in a second group
// meanwhile.
TEST_P(RingAttentionKernels, EqualsTheDefinition) {
  constexpr int kSize = 7;
  Draw draw;
  for (const char* exchange : kExchanges) {
    for (int degree = 1; degree <= kSize; ++degree) {
      const auto order = draw.order(kSize);
      std::vector<Case> cases;
      for (const auto& ranks : {std::vector<std::int64_t>(order.begin(), order.begin() + degree),
                                std::vector<std::int64_t>(order.begin() + degree, order.end())}) {
        if (!ranks.empty()) cases.push_back(draw.draw(ranks, exchange, draw.any_nodes(ranks.size())));
      }
      expect_equal_to_the_definition(cases, kSize, draw.seed());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, RingAttentionKernels, testing::Values("cpu_flash", "reference"));

// Even and uneven nodes, one member a node, members of a node next to each other and not.
TEST(RingAttention, HierarchicalEqualsTheDefinitionOnAnyNodes) {
  constexpr int kSize = 9;
  Draw draw;
  std::vector<Case> cases;
  for (const auto& nodes : std::vector<std::vector<std::int64_t>>{{0, 0, 0, 1},
                                                                  {1, 0, 0, 0},
                                                                  {0, 1, 0, 0},
                                                                  {0, 0, 0, 0, 0, 1, 1, 2},
                                                                  {2, 1, 0, 0, 1, 0, 0, 0},
                                                                  {5, 4, 3, 2, 1, 0},
                                                                  {0, 0, 0, 1, 1, 1},
                                                                  {0, 1, 0, 1, 0, 1},
                                                                  {0, 0, 0, 1, 1, 1, 2, 2, 2},
                                                                  {0, 1, 2, 0, 1, 2, 0, 1, 2},
                                                                  {0, 0, 0, 0, 0, 0, 0, 0, 1}}) {
    for (int i = 0; i < 2; ++i) {
      auto ranks = draw.order(kSize);
      ranks.resize(nodes.size());
      cases.push_back(draw.draw(std::move(ranks), "hierarchical", nodes));
    }
  }
  expect_equal_to_the_definition(cases, kSize, draw.seed());
}

// A free list of tasks on overlapping groups: fast ranks run ahead, and exchanges follow each other on the same pairs.
TEST(RingAttention, ExchangesMixInOneList) {
  constexpr int kSize = 6;
  Draw draw;
  std::vector<Case> cases;
  for (int i = 0; i < 60; ++i) {
    auto ranks = draw.order(kSize);
    ranks.resize(static_cast<std::size_t>(draw.pick(1, kSize)));
    const char* exchange = kExchanges[static_cast<std::size_t>(draw.pick(0, 2))];
    const auto nodes = draw.any_nodes(ranks.size());
    cases.push_back(draw.draw(std::move(ranks), exchange, nodes));
  }
  expect_equal_to_the_definition(cases, kSize, draw.seed());
}

/// Of `kernel` on `block` and the reference on the same numbers in fp64 on the CPU.
void expect_equal_to_the_reference(const AttentionKernel& kernel, const BlockInputs& block, const at::Tensor& dout,
                                   double tolerance) {
  const auto exact = [](const at::Tensor& tensor) { return tensor.to(at::kCPU, at::kDouble); };
  const BlockInputs same{exact(block.q), exact(block.k), exact(block.v), block.segments, block.causal, block.scale};
  const auto found = kernel.forward(block);
  Accumulator whole{at::zeros_like(same.q), at::zeros({same.q.size(0), same.q.size(1)}, at::kDouble)};
  for (const auto& output : reference_kernel().forward(same)) place_block(whole, output);
  std::size_t segments = 0;
  for (const auto& output : found) {
    EXPECT_EQ(output.segments.data(), block.segments.data() + segments) << "in their order";
    segments += output.segments.size();
    EXPECT_LT(worst(exact(output.out), gather_rows(whole.out, q_runs(output.segments))), tolerance);
    EXPECT_LT(worst(exact(output.lse), gather_rows(whole.lse, q_runs(output.segments))), tolerance);
    EXPECT_TRUE(output.out.is_contiguous()) << "a copy in every step";
  }
  EXPECT_EQ(segments, block.segments.size());
  const auto sum_of = [&](const std::vector<BlockGradient>& gradients) {
    std::vector<at::Tensor> sums{at::zeros_like(same.q), at::zeros_like(same.k), at::zeros_like(same.v)};
    for (const auto& gradient : gradients) {
      add_rows(sums[0], exact(gradient.dq), q_runs(gradient.segments));
      add_rows(sums[1], exact(gradient.dk), kv_runs(gradient.segments));
      add_rows(sums[2], exact(gradient.dv), kv_runs(gradient.segments));
    }
    return sums;
  };
  const auto expected_gradient = sum_of(reference_kernel().backward(same, exact(dout), whole.out, whole.lse));
  const auto found_gradient = sum_of(
      kernel.backward(block, dout, whole.out.to(block.q.options()), whole.lse.to(found[0].lse.options()).contiguous()));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(worst(found_gradient[i], expected_gradient[i]), 10 * tolerance) << i;
}

void agree_on_every_kind_of_block(const AttentionKernel& kernel, const at::TensorOptions& options, double tolerance) {
  at::manual_seed(1);
  const auto random = [&](std::int64_t rows, std::int64_t heads) {
    return at::randn({rows, heads, 16}, at::kDouble).to(options);
  };
  const auto q = random(40, 6);
  const auto k = random(30, 2);
  const auto v = random(30, 2);
  const auto dout = random(40, 6);
  const std::vector<Segment> causal{{0, 10, 20, 10}, {30, 1, 0, 1}};
  const std::vector<Segment> full{{5, 20, 0, 7}, {25, 1, 7, 23}, {26, 14, 29, 1}};
  expect_equal_to_the_reference(kernel, {q, k, v, causal, true, 0.3}, dout, tolerance);
  const std::vector<Segment> equal{{0, 4, 0, 4},   {4, 4, 4, 4},   {8, 4, 8, 4},
                                   {14, 4, 12, 4}, {30, 4, 20, 4}, {34, 2, 26, 2}};
  const std::vector<Segment> apart{{0, 4, 0, 3}, {10, 4, 6, 3}, {20, 4, 12, 3}, {30, 4, 18, 3}, {34, 4, 24, 3}};
  expect_equal_to_the_reference(kernel, {q, k, v, full, false, 0.3}, dout, tolerance);
  expect_equal_to_the_reference(kernel, {q, k, v, equal, true, 0.3}, dout, tolerance);
  expect_equal_to_the_reference(kernel, {q, k, v, equal, false, 0.3}, dout, tolerance);
  expect_equal_to_the_reference(kernel, {q, k, v, apart, false, 0.3}, dout, tolerance);
}

TEST(Kernels, CpuFlashAgreesOnEveryKindOfBlock) {
  agree_on_every_kind_of_block(cpu_flash_kernel(), at::TensorOptions(at::kDouble), 1e-13);
}

// On a GPU. Without one, tests/python/ops/test_cuda_flash.py holds the calls against their contract.
TEST(Kernels, CudaFlashAgreesOnEveryKindOfBlock) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  agree_on_every_kind_of_block(cuda_flash_kernel(), at::TensorOptions(at::kHalf).device(at::kCUDA), 4e-3);
  agree_on_every_kind_of_block(cuda_flash_kernel(), at::TensorOptions(at::kBFloat16).device(at::kCUDA), 3e-2);
}

TEST(Kernels, AnUnknownNameIsRefused) { EXPECT_THROW(use_kernel("quick"), std::exception); }

TEST(RingAttention, AWrongCallEndsEveryRankAndNamesTheOne) {
  const auto errors = run_ranks("wrong", 4, [&](int rank) {
    const auto q = at::randn({rank == 2 ? 5 : 4, 2, 8});
    const auto k = at::randn({4, 2, 8});
    ring_attention_forward(q, k, k,
                           {{16}, {0, 1, 2, 3}, "wrong/" + std::to_string(rank), 1.0, true, "ring", {}, false});
  });
  EXPECT_EQ(errors[2].find("ring_attention: q: found 5 rows, expected 4"), 0U) << errors[2];
  for (const std::size_t rank : {0U, 1U, 3U}) {
    EXPECT_EQ(errors[rank].find("rank 2: ring_attention: q: found 5 rows"), 0U) << errors[rank];
  }
}

/// What the ranks of a group of four meet when rank 2 makes another call than the others.
std::vector<std::string> disagree(const RingAttentionCall& call, const RingAttentionCall& other) {
  return run_ranks("differ", 4, [&](int rank) {
    auto mine = rank == 2 ? other : call;
    mine.group = "differ/" + std::to_string(rank);
    const auto q = at::randn({4, 2, 8});
    ring_attention_forward(q, q, q, mine);
  });
}

TEST(RingAttention, ADisagreementNamesBoth) {
  for (const char* exchange : kExchanges) {
    const RingAttentionCall call{{16}, {0, 3, 2, 1}, "", 1.0, true, exchange, {0, 0, 1, 1}, false};
    std::map<std::string, RingAttentionCall> others{{"causal", call}, {"nodes", call}};
    others.at("causal").causal = false;
    others.at("nodes").nodes = {0, 1, 1, 1};
    for (const char* other : kExchanges) {
      if (other == std::string(exchange)) continue;
      auto& changed = others.emplace(std::string("exchange: ") + other, call).first->second;
      changed.exchange = other;
    }
    for (const auto& [what, other] : others) {
      for (const auto& error : disagree(call, other)) {
        EXPECT_NE(error.find("disagree about ring_attention forward: " + what.substr(0, what.find(':')) + ": "),
                  std::string::npos)
            << what << ": " << error;
        EXPECT_NE(error.find("rank 2 "), std::string::npos) << error;
      }
    }
  }
}

/// A call in a group of two without a token, which moves nothing but the comparison.
void attend_to_nothing(int rank, double scale) {
  const auto q = at::randn({0, 2, 8});
  ring_attention_forward(q, q, q, {{}, {0, 1}, "repeat/" + std::to_string(rank), scale, true, "ring", {}, false});
}

TEST(RingAttention, ARepeatedCallIsNotCompared) {
  const auto errors = run_ranks("repeat", 2, [](int rank) {
    for (int i = 0; i < (rank == 0 ? 3 : 1); ++i) attend_to_nothing(rank, 1.0);
  });
  EXPECT_EQ(errors, std::vector<std::string>(2));
}

TEST(RingAttention, TheNextComparisonFindsAMissingRepeat) {
  const auto errors = run_ranks("repeat", 2, [](int rank) {
    for (int i = 0; i < (rank == 0 ? 3 : 1); ++i) attend_to_nothing(rank, 1.0);
    attend_to_nothing(rank, 2.0);
  });
  for (const auto& error : errors) {
    EXPECT_NE(error.find("disagree about ring_attention forward: calls since the last comparison: "), std::string::npos)
        << error;
  }
}

TEST(RingAttention, AfterACollectiveCallsAreComparedAgain) {
  const auto errors = run_ranks("repeat", 2, [](int rank) {
    attend_to_nothing(rank, 1.0);
    find_transport("repeat/" + std::to_string(rank))->agreed_calls().clear();
    attend_to_nothing(rank, rank == 0 ? 1.0 : 2.0);  // without the collective, rank 0 would not look
  });
  for (const auto& error : errors) EXPECT_NE(error.find("forward: scale: "), std::string::npos) << error;
}

TEST(Operators, AreRegistered) {
  for (const char* name : {"dhp::ring_attention", "dhp::exchange_rows", "dhp::report_failure", "dhp::torch_version"}) {
    EXPECT_TRUE(c10::Dispatcher::singleton().findSchema({name, ""}).has_value()) << name;
  }
}

}  // namespace
}  // namespace dhp::rt::ring_attention_test
