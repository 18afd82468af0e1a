#include "torch/rows/row_exchange.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "ranks.h"

namespace dhp::rt::row_exchange_test {
namespace {

using Counts = std::vector<std::vector<std::int64_t>>;  // [source][destination]

constexpr std::int64_t kColumns = 3;

std::int64_t sum(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

at::Tensor rows_of(const Counts& counts, std::size_t source) {
  const auto rows = sum(counts[source]);
  return at::arange(rows * kColumns, at::kDouble).view({rows, kColumns}) + 1000.0 * static_cast<double>(source);
}

at::Tensor rows_for(const Counts& counts, std::size_t destination) {
  std::vector<at::Tensor> parts;
  for (std::size_t source = 0; source < counts.size(); ++source) {
    const auto& sent = counts[source];
    const auto begin =
        std::accumulate(sent.begin(), sent.begin() + static_cast<std::ptrdiff_t>(destination), std::int64_t{0});
    parts.push_back(rows_of(counts, source).narrow(0, begin, sent[destination]));
  }
  return at::cat(parts);
}

std::vector<std::int64_t> column(const Counts& counts, std::size_t destination) {
  std::vector<std::int64_t> result;
  for (const auto& row : counts) result.push_back(row[destination]);
  return result;
}

TEST(RowExchange, EqualsAGather) {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  for (const int size : {1, 2, 3, 7}) {
    for (int round = 0; round < 5; ++round) {
      const auto degree = static_cast<std::size_t>(size);
      Counts counts(degree, std::vector<std::int64_t>(degree));
      for (auto& row : counts) {
        for (auto& count : row) count = round == 0 ? 0 : static_cast<std::int64_t>(random() % 4);
      }
      std::vector<std::int64_t> ranks(degree);
      std::iota(ranks.begin(), ranks.end(), 0);
      std::shuffle(ranks.begin(), ranks.end(), random);
      const auto errors = test::run_ranks("rows", size, [&](int rank) {
        const auto position = static_cast<std::size_t>(std::find(ranks.begin(), ranks.end(), rank) - ranks.begin());
        const RowExchangeCall call{counts[position], column(counts, position), ranks, "rows/" + std::to_string(rank),
                                   true};
        const auto result = exchange_rows(rows_of(counts, position), call);
        EXPECT_TRUE(result.equal(rows_for(counts, position))) << "seed " << seed;
        // Sent back, every row comes home.
        EXPECT_TRUE(exchange_rows_backward(result, call).equal(rows_of(counts, position))) << "seed " << seed;
      });
      for (const auto& error : errors) EXPECT_EQ(error, "") << "seed " << seed;
    }
  }
}

TEST(RowExchange, CountsThatDoNotMatchAreAnErrorOfBoth) {
  const auto errors = test::run_ranks("counts", 2, [&](int rank) {
    const std::vector<std::int64_t> sends{1, 1};
    const std::vector<std::int64_t> receives = rank == 0 ? std::vector<std::int64_t>{1, 2} : sends;
    exchange_rows(at::arange(2 * kColumns, at::kDouble).view({2, kColumns}),
                  {sends, receives, {0, 1}, "counts/" + std::to_string(rank), false});
  });
  for (const auto& error : errors) {
    EXPECT_EQ(error.find("rank 0 and rank 1 disagree about exchange_rows forward: rows between them: 2 here, 1 there"),
              0U)
        << error;
  }
}

}  // namespace
}  // namespace dhp::rt::row_exchange_test
