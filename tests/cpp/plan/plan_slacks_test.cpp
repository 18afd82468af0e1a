// The slacks of bins: against std::set, change by change.

#include <limits>
#include <set>

#include "plan/peers/slacks.h"
#include "support.h"

namespace dhp::plan::plan_slacks_test {
namespace {

constexpr std::int32_t kFirstBin = std::numeric_limits<std::int32_t>::min();

/// All of them, in their order.
std::vector<Slack> all_of(const Slacks& slacks) {
  std::vector<Slack> result;
  for (auto place = slacks.at_least(-1.0); !slacks.is_end(place); place = slacks.next(place)) {
    result.push_back(slacks[place]);
  }
  return result;
}

void expect_same(const Slacks& slacks, const std::set<Slack>& reference) {
  ASSERT_EQ(slacks.empty(), reference.empty());
  EXPECT_EQ(all_of(slacks), std::vector<Slack>(reference.begin(), reference.end()));
  if (!reference.empty()) {
    EXPECT_EQ(slacks.largest(), *reference.rbegin());
  }
}

/// Changes as packing makes them, of slacks below `sizes`: few sizes make many ties.
void change_at_random(test::Random& random, int changes, std::int64_t sizes, Slacks& slacks) {
  std::set<Slack> reference;
  std::int32_t bins = 0;
  for (int change = 0; change < changes; ++change) {
    const auto least = static_cast<double>(random.whole(0, sizes));
    const auto expected = reference.lower_bound({least, kFirstBin});
    const auto found = slacks.at_least(least);
    ASSERT_EQ(slacks.is_end(found), expected == reference.end());
    // Grows for the first half, then shrinks; a bin that is found keeps a smaller slack or is dropped.
    const bool grow = random.whole(0, 9) < (change < changes / 2 ? 7 : 2);
    Slack slack(static_cast<double>(random.whole(0, sizes)), bins);
    if (expected != reference.end() && !grow) {
      ASSERT_EQ(slacks[found], *expected);
      slack = *expected;
      slack.first -= least;
      slacks.remove(found);
      reference.erase(expected);
      if (random.whole(0, 2) > 0) continue;
    } else {
      ++bins;
    }
    slacks.insert(slack);
    reference.insert(slack);
    if (change % 97 == 0) expect_same(slacks, reference);
  }
  expect_same(slacks, reference);
}

TEST(PlanSlacks, SameAsATreeAfterRandomChanges) {
  constexpr std::uint64_t kSeed = 11;
  test::Random random(kSeed);
  Slacks slacks;  // its storage is used again
  for (const std::int64_t sizes : {0, 1, 7, 1000, 1000000}) {
    for (const int changes : {10, 300, 5000}) {
      SCOPED_TRACE("seed " + std::to_string(kSeed) + ", " + std::to_string(sizes) + " sizes, " +
                   std::to_string(changes) + " changes");
      slacks.clear();
      ASSERT_NO_FATAL_FAILURE(change_at_random(random, changes, sizes, slacks));
    }
  }
}

TEST(PlanSlacks, RisingAndFallingAndEmptiedFromEitherEnd) {
  constexpr std::int32_t kBins = 1000;
  for (const bool rising : {true, false}) {
    for (const bool from_below : {true, false}) {
      Slacks slacks;
      std::set<Slack> reference;
      for (std::int32_t bin = 0; bin < kBins; ++bin) {
        const Slack slack(rising ? bin : kBins - bin, bin);
        slacks.insert(slack);
        reference.insert(slack);
      }
      while (!reference.empty()) {
        expect_same(slacks, reference);
        const auto slack = from_below ? reference.begin() : std::prev(reference.end());
        slacks.remove(slacks.at_least(slack->first));
        reference.erase(slack);
      }
      expect_same(slacks, reference);
      EXPECT_TRUE(slacks.is_end(slacks.at_least(0.0)));
    }
  }
}

}  // namespace
}  // namespace dhp::plan::plan_slacks_test
