// The zigzag algebra against brute force.
#include "dhp/shard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <vector>

#include "support.h"

namespace dhp::shard_test {
namespace {

/// Global token index of every local token of a position.
std::vector<std::int64_t> tokens_of(std::int64_t tokens, int degree, int position) {
  std::vector<std::int64_t> result;
  for (const TokenRange& range : shard_ranges(tokens, degree, position)) {
    for (std::int64_t token = range.begin; token < range.end; ++token) result.push_back(token);
  }
  return result;
}

TEST(Shard, ExampleOfTheHeader) {
  EXPECT_EQ(tokens_of(12, 3, 0), (std::vector<std::int64_t>{0, 1, 10, 11}));
  EXPECT_EQ(tokens_of(12, 3, 1), (std::vector<std::int64_t>{2, 3, 8, 9}));
  EXPECT_EQ(tokens_of(12, 3, 2), (std::vector<std::int64_t>{4, 5, 6, 7}));
}

void check_against_brute_force(std::int64_t tokens, int degree) {
  SCOPED_TRACE("tokens " + std::to_string(tokens) + ", degree " + std::to_string(degree));
  const std::int64_t padded = padded_tokens(tokens, degree);
  // The least multiple of 2 * degree that holds them, by counting up.
  const std::int64_t multiple = std::int64_t{2} * degree;
  std::int64_t expected = tokens;
  while (degree > 1 && expected % multiple != 0) ++expected;
  ASSERT_EQ(padded, expected);
  ASSERT_EQ(shard_tokens(tokens, degree) * degree, padded);
  std::vector<int> owners(static_cast<std::size_t>(padded), -1);
  std::vector<std::int64_t> pairs;  // (query, key) pairs of the causal triangle a position has work for
  for (int position = 0; position < degree; ++position) {
    const auto local = tokens_of(tokens, degree, position);
    ASSERT_EQ(static_cast<std::int64_t>(local.size()), shard_tokens(tokens, degree));
    ASSERT_TRUE(std::is_sorted(local.begin(), local.end()));
    std::int64_t work = 0;
    for (std::size_t i = 0; i < local.size(); ++i) {
      const auto token = static_cast<std::size_t>(local[i]);
      ASSERT_EQ(owners.at(token), -1) << "token " << token << " twice";
      owners[token] = position;
      ASSERT_EQ(owner_of(tokens, degree, local[i]), position);
      ASSERT_EQ(local_index_of(tokens, degree, local[i]), static_cast<std::int64_t>(i));
      work += local[i] + 1;
    }
    pairs.push_back(work);
  }
  ASSERT_EQ(std::count(owners.begin(), owners.end(), -1), 0);
  // Over the padded sequence all positions have exactly the same work.
  for (const std::int64_t work : pairs) ASSERT_EQ(work, pairs.front());
}

TEST(Shard, EveryTokenHasOneOwnerAndWorkIsEven) {
  for (int degree = 1; degree <= 17; ++degree) {
    for (std::int64_t tokens = 0; tokens <= std::int64_t{2} * degree + 3; ++tokens)
      check_against_brute_force(tokens, degree);
    const std::uint64_t seed = 4711U + static_cast<std::uint64_t>(degree);
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    for (int i = 0; i < 20; ++i) check_against_brute_force(random.whole(1, 3000), degree);
  }
}

TEST(Shard, RealWorkIsEvenUpToPads) {
  // Without pads the positions differ by no more than the pads could have weighed.
  test::Random random(99);
  for (int i = 0; i < 200; ++i) {
    const int degree = static_cast<int>(random.whole(2, 17));
    const std::int64_t tokens = random.whole(1, 2000);
    SCOPED_TRACE("seed 99, case " + std::to_string(i));
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    std::int64_t most = 0;
    for (int position = 0; position < degree; ++position) {
      std::int64_t work = 0;
      for (const std::int64_t token : tokens_of(tokens, degree, position)) work += token < tokens ? token + 1 : 0;
      least = std::min(least, work);
      most = std::max(most, work);
    }
    const std::int64_t pads = padded_tokens(tokens, degree) - tokens;
    EXPECT_LE(most - least, pads * padded_tokens(tokens, degree));
  }
}

TEST(Shard, HugeLengthsDoNotOverflow) {
  const std::int64_t tokens = std::int64_t{1} << 40;
  EXPECT_EQ(padded_tokens(tokens, 1 << 20), tokens);
  EXPECT_EQ(shard_tokens(tokens + 1, 3), (tokens + 1 + 5) / 6 * 2);
  EXPECT_EQ(owner_of(tokens, 1 << 20, tokens - 1), 0);
  EXPECT_EQ(local_index_of(tokens, 1 << 20, tokens - 1), (tokens >> 20) - 1);
}

TEST(Shard, WrongArguments) {
  EXPECT_THROW(padded_tokens(5, 0), std::invalid_argument);
  EXPECT_THROW(padded_tokens(-1, 2), std::invalid_argument);
  EXPECT_THROW(shard_tokens(5, -3), std::invalid_argument);
  EXPECT_THROW(shard_ranges(5, 2, 2), std::invalid_argument);
  EXPECT_THROW(shard_ranges(5, 2, -1), std::invalid_argument);
  EXPECT_THROW(owner_of(5, 2, 8), std::invalid_argument);
  EXPECT_THROW(owner_of(5, 2, -1), std::invalid_argument);
  EXPECT_THROW(local_index_of(5, 1, 5), std::invalid_argument);
}

}  // namespace
}  // namespace dhp::shard_test
