#include "torch/attention/accumulate.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>

namespace dhp::rt::accumulate_test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

double worst(const at::Tensor& found, const at::Tensor& expected) {
  return (found.to(at::kDouble) - expected).abs().max().item<double>();
}

using Merge = void (*)(Accumulator&, const BlockOutput&);

const Segment kOneRow{0, 1, 0, 1};

/// On the CPU, and what other devices do.
class Merges : public testing::TestWithParam<Merge> {};

INSTANTIATE_TEST_SUITE_P(Accumulate, Merges, testing::Values(&merge_block, &merge_block_by_algebra));

// Blocks are means with known weights: merging them all gives the weighted mean and the log of the sum of weights.
TEST_P(Merges, MergesWeightedMeans) {
  at::manual_seed(3);
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
    const auto sum_type = accumulate_type(type);
    Accumulator all{at::zeros({9, 2, 5}, sum_type), at::zeros({9, 2}, sum_type)};
    auto numerator = at::zeros({9, 2, 5}, at::kDouble);
    auto denominator = at::zeros({9, 2}, at::kDouble);
    for (int block = 0; block < 4; ++block) {
      std::vector<Segment> segments{{0, 9, 0, 1}};
      if (block > 0) segments = {{block, 2, 0, 1}, {block + 2, 1, 1, 1}, {block + 4, 2, 2, 1}};  // part of the rows
      const std::int64_t rows = block == 0 ? 9 : 5;
      const auto out = at::randn({rows, 2, 5}, at::kDouble).to(type);
      const auto lse = (at::randn({rows, 2}, at::kDouble) * 3).to(sum_type);
      const auto weight = lse.to(at::kDouble).exp();
      const auto weighted = out.to(at::kDouble) * weight.unsqueeze(-1);
      std::int64_t from = 0;
      for (const Segment& segment : segments) {
        numerator.narrow(0, segment.q_begin, segment.q_rows).add_(weighted.narrow(0, from, segment.q_rows));
        denominator.narrow(0, segment.q_begin, segment.q_rows).add_(weight.narrow(0, from, segment.q_rows));
        from += segment.q_rows;
      }
      const BlockOutput output{segments, out, lse};
      block == 0 ? place_block(all, output) : GetParam()(all, output);
    }
    const double tolerance = sum_type == at::kDouble ? 1e-14 : 2e-6;
    EXPECT_LT(worst(all.out, numerator / denominator.unsqueeze(-1)), tolerance) << type;
    EXPECT_LT(worst(all.lse, at::log(denominator)), 4 * tolerance) << type;
  }
}

// A row that sees nothing has an lse of minus infinity; two such rows must not make a NaN.
TEST(Accumulate, RowsWithoutKeysStayHarmless) {
  const auto nothing = at::full({1, 1}, -kInfinity, at::kDouble);
  const auto something = at::full({1, 1}, 2.0, at::kDouble);
  const auto ones = at::ones({1, 1, 3}, at::kDouble);

  Accumulator empty{at::zeros({1, 1, 3}, at::kDouble), nothing.clone()};
  merge_block(empty, {{&kOneRow, 1}, ones, nothing});
  EXPECT_TRUE(empty.out.equal(at::zeros({1, 1, 3}, at::kDouble)));
  EXPECT_TRUE(empty.lse.equal(nothing));

  merge_block(empty, {{&kOneRow, 1}, ones, something});
  EXPECT_TRUE(empty.out.equal(ones));
  EXPECT_TRUE(empty.lse.equal(something));

  merge_block(empty, {{&kOneRow, 1}, ones * 5, nothing});
  EXPECT_TRUE(empty.out.equal(ones));
  EXPECT_TRUE(empty.lse.equal(something));
}

// exp() of the difference overflows in both directions.
TEST_P(Merges, WeightsFarApartDoNotOverflow) {
  for (const auto type : {at::kDouble, at::kFloat}) {
    for (const double far : {-2000.0, 2000.0}) {
      Accumulator all{at::zeros({1, 1, 3}, type), at::zeros({1, 1}, type)};
      GetParam()(all, {{&kOneRow, 1}, at::ones({1, 1, 3}, type), at::full({1, 1}, far, type)});
      EXPECT_EQ(all.out[0][0][0].item<double>(), far > 0 ? 1.0 : 0.0);
      EXPECT_EQ(all.lse.item<double>(), std::max(0.0, far));
    }
  }
}

}  // namespace
}  // namespace dhp::rt::accumulate_test
