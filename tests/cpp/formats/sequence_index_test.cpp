// Sequences by id, against a walk over the batch.
#include "formats/sequence_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace dhp::sequence_index_test {
namespace {

constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

Batch batch_of(const std::vector<std::int64_t>& ids) {
  Batch batch;
  for (const std::int64_t id : ids) batch.sequences.push_back({id, 1, 0});
  return batch;
}

TEST(SequenceIndex, FindsWhatAWalkFinds) {
  const std::vector<std::vector<std::int64_t>> batches = {
      {},
      {7},
      {0, 1, 2, 3, 4},         // positions
      {-2, -1, 0, 1},          // positions, from a negative one on
      {3, 1, 0, 2},            // a table
      {0, 1, 3, 4},            // a table with a gap
      {0, 1, 2, 1'000'000},    // sparse
      {kMost, kLeast, 0, -1},  // more apart than an int64_t holds
      {kLeast, kLeast + 1},
      {kMost - 1, kMost},
  };
  for (const std::vector<std::int64_t>& ids : batches) {
    const Batch batch = batch_of(ids);
    const SequenceIndex index(batch);
    std::vector<std::int64_t> asked = ids;
    asked.insert(asked.end(), {kLeast, kLeast + 2, -3, -1, 0, 2, 5, 999'999, kMost - 2, kMost});
    for (const std::int64_t id : asked) {
      const auto same = [&](const Sequence& sequence) { return sequence.id == id; };
      const auto found = std::find_if(batch.sequences.begin(), batch.sequences.end(), same);
      EXPECT_EQ(index.find(id), found == batch.sequences.end() ? nullptr : &*found)
          << id << " in a batch of " << ids.size();
    }
  }
}

}  // namespace
}  // namespace dhp::sequence_index_test
