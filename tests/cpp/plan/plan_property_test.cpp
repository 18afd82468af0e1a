// Random cases against what every planner promises. A case that breaks a promise is shrunk and written to a folder:
// move it to tests/golden/replay/ once the cause is found, and it is planned again with every run of the tests.
//
//     DHP_TEST_SHARE=100 core_tests --gtest_filter='Planners/*'            a hundred times as many
//     DHP_TEST_SEED=20260726 core_tests --gtest_filter='Planners/*'        others

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "plan_properties.h"
#include "replay_case.h"
#include "shrink.h"
#include "support.h"
#include "temporary_folder.h"

namespace dhp::test::plan_property_test {
namespace {

/// Sanitizers and builds that are not optimised take ten times as long a case.
constexpr bool is_slow_build() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
  return true;
#elif defined(__has_feature)  // clang
  return __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
  return false;
#endif
}

struct Promise {
  const char* planner;
  std::uint64_t cases;
};

std::ostream& operator<<(std::ostream& stream, const Promise& promise) { return stream << promise.planner; }

void report(const Case& found, const Broken& broken, std::uint64_t seed, const Promise& promise) {
  const auto still_broken = [&](const Case& candidate) {
    const std::optional<Broken> now = first_broken(candidate);
    return now && now->property == broken.property;
  };
  const Case smallest = shrink(found, still_broken);
  const char* chosen = std::getenv("DHP_REPLAY_DIR");
  const std::string folder = (chosen == nullptr ? testing::TempDir() : std::string(chosen) + "/") + promise.planner +
                             "-" + std::to_string(seed);
  write_case(smallest, folder);
  std::ifstream stream(folder + "/command.txt");
  std::string command;
  std::getline(stream, command);
  const std::optional<Broken> now = first_broken(smallest);
  ADD_FAILURE() << "seed " << seed << " (DHP_TEST_SEED=" << seed << " begins with it) breaks \"" << broken.property
                << "\": " << broken.detail << "\nshrunk to " << smallest.batch.sequences.size() << " sequences on "
                << smallest.cluster.ranks() << " ranks: " << (now ? now->detail : "") << "\ncd " << folder << " && "
                << command;
}

class Planners : public testing::TestWithParam<Promise> {};

TEST_P(Planners, KeepTheirPromisesOnRandomCases) {
  const Promise& promise = GetParam();
  const std::uint64_t cases = share_of(is_slow_build() ? promise.cases / 10 : promise.cases);
  const std::uint64_t first = first_seed(1);
  constexpr int kMostFailures = 5;
  int failures = 0;
  int planned = 0;
  for (std::uint64_t seed = first; seed < first + cases && failures < kMostFailures; ++seed) {
    const Case made = random_case(seed, promise.planner);
    ++planned;
    const std::optional<Broken> broken = first_broken(made);
    if (!broken) continue;
    ++failures;
    report(made, *broken, seed, promise);
  }
  std::printf("%s: %d cases from seed %llu on\n", promise.planner, planned, static_cast<unsigned long long>(first));
}

INSTANTIATE_TEST_SUITE_P(Planners, Planners,
                         testing::Values(Promise{"free", 15'000}, Promise{"lockstep", 15'000}, Promise{"paper", 3'000},
                                         Promise{"static", 3'000}, Promise{"balanced-static", 3'000},
                                         Promise{"ulysses", 3'000}, Promise{"megatron-hybrid", 3'000},
                                         Promise{"megatron-dynamic", 3'000}),
                         [](const auto& one) {
                           std::string name = one.param.planner;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(RandomCases, TheShareIsThatOfTheEnvironment) {
  const char* before = std::getenv("DHP_TEST_SHARE");
  const std::string kept = before == nullptr ? "" : before;
  setenv("DHP_TEST_SHARE", "0.1", 1);
  EXPECT_EQ(share_of(3'000), 300);
  EXPECT_EQ(share_of(15), 2);
  setenv("DHP_TEST_SHARE", "0", 1);
  EXPECT_EQ(share_of(3'000), 1) << "a test without a case would pass";
  unsetenv("DHP_TEST_SHARE");
  EXPECT_EQ(share_of(3'000), 3'000);
  if (before != nullptr) setenv("DHP_TEST_SHARE", kept.c_str(), 1);
}

/// Cases that once broke a promise.
TEST(PlanReplay, RecordedCasesKeepTheirPromises) {
  for (const auto& entry : std::filesystem::directory_iterator(golden_file("replay"))) {
    SCOPED_TRACE(entry.path().string());
    const std::optional<Broken> broken = first_broken(read_case(entry.path().string()));
    if (broken) ADD_FAILURE() << broken->property << ": " << broken->detail;
  }
}

TEST(PlanReplay, CasesSurviveTheirFiles) {
  const TemporaryFolder folder;
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const Case made = random_case(seed, "lockstep");
    write_case(made, folder.path());
    const Case back = read_case(folder.path());
    EXPECT_EQ(back.batch, made.batch);
    EXPECT_EQ(back.cluster, made.cluster);
    EXPECT_EQ(back.cost, made.cost);
    EXPECT_EQ(to_json(std::get<Plan>(plan_batch({}, back.cluster, back.cost, back.options))),
              to_json(std::get<Plan>(plan_batch({}, made.cluster, made.cost, made.options))));
  }
}

}  // namespace
}  // namespace dhp::test::plan_property_test
