// How planning time grows: processor seconds of plan_batch() for 8 to 65,536 ranks, in steps of four times as many, and
// 0.5 to 16 sequences a rank, at both levels of effort. Behind each time stands how many times longer it is than for a
// quarter of the ranks: four is what the work grows by, and more than six, where it takes over a tenth of a second, is
// marked. A shape that takes longer than the limit ends its column.
//
// Lengths are log-normal on 910B-like nodes (bench/cases), the same with nine short texts in ten, the same on ranks of
// all speeds from 0.95 to 1 and a few of 0.6, and with a longer tail on nodes of H100, where most sequences want
// several ranks. Times under a second are the least of three.
//
//     build/release/bench/planner_scale                     free, at most 20 s a plan
//     build/release/bench/planner_scale lockstep 5 16384    another planner, limit in seconds, most ranks
//     build/release/bench/planner_scale free 20 65536 fast  one level of effort, or default
//
// And what else is done about a batch on the first rank, for eight sequences a rank: the least of three times of
// planning, check, hash, tighter bound, plan as JSON and back from its file, with the peak of memory.
//
//     build/release/bench/planner_scale around              to 65,536 ranks
//     build/release/bench/planner_scale around 1024

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

#include "cases.h"
#include "dhp/bound.h"
#include "dhp/peers.h"
#include "dhp/plan_options.h"

namespace {

using namespace dhp;

constexpr int kRanks[] = {8, 16, 64, 256, 1024, 4096, 16384, 65536};
constexpr double kShapes[] = {0.5, 1, 2, 4, 8, 16};  // sequences a rank
constexpr double kMostGrowth = 6.0;
constexpr double kTelling = 0.1;  // seconds: what is quicker is not marked
constexpr double kShort = 1.0;    // seconds: what is quicker is timed three times

enum class Kind { log_normal, short_texts, speeds, long_tail };
constexpr std::pair<Kind, const char*> kKinds[] = {{Kind::log_normal, "log-normal on 910B"},
                                                   {Kind::short_texts, "nine short texts in ten on 910B"},
                                                   {Kind::speeds, "log-normal on 910B, every rank of its own speed"},
                                                   {Kind::long_tail, "long tail on H100"}};

bench::Case make_case(Kind kind, int ranks, int count) {
  const bool long_tail = kind == Kind::long_tail;
  bench::Case one = long_tail ? bench::h100_case(ranks) : bench::shared_case("910b_8x8", "8192", "lognormal");
  one.cluster.nodes = ranks / one.cluster.ranks_per_node;
  one.batch = long_tail ? bench::long_tailed(count, 1) : bench::drawn_from(one.batch, count, 1);
  bench::Uniform uniform(2);
  for (Sequence& sequence : one.batch.sequences) {
    if (kind != Kind::short_texts || sequence.id % 10 == 0) continue;
    sequence = {sequence.id, 60 + static_cast<std::int64_t>(100 * uniform.next()), 0};
  }
  for (int rank = 0; kind == Kind::speeds && rank < ranks; ++rank) {
    one.cluster.rank_speed.push_back(rank % 97 == 0 ? 0.6 : 0.95 + 0.05 * uniform.next());
  }
  return one;
}

/// Seconds of the processor: other programs do not count.
template <typename Call>
double seconds_of(const Call& call) {
  const std::clock_t begin = std::clock();
  call();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

double planning_seconds(const bench::Case& one, const PlanOptions& options) {
  PlanResult result;
  const auto time = [&] { return seconds_of([&] { result = plan_batch(one.batch, one.cluster, one.cost, options); }); };
  double seconds = time();
  for (int more = 0; more < 2 && seconds < kShort; ++more) seconds = std::min(seconds, time());
  if (const auto* none = std::get_if<Infeasible>(&result)) {
    std::fprintf(stderr, "planner_scale: %s: %s\n", one.name.c_str(), none->reason.c_str());
  }
  return seconds;
}

void print_curves(const PlanOptions& options, Kind kind, const char* name, double limit_s, int most_ranks) {
  std::printf("%s, effort %s, %s: processor seconds, and times those of a quarter of the ranks\n%8s",
              options.planner.c_str(), options.effort == kEffortFast ? "fast" : "default", name, "ranks");
  for (const double shape : kShapes) std::printf("%14g/rank", shape);
  std::printf("\n");
  double before[std::size(kShapes)] = {};
  for (const int ranks : kRanks) {
    if (ranks > most_ranks) break;
    std::printf("%8d", ranks);
    for (std::size_t i = 0; i < std::size(kShapes); ++i) {
      if (before[i] > limit_s) {
        std::printf("%19s", "-");
        continue;
      }
      const bench::Case one = make_case(kind, ranks, static_cast<int>(kShapes[i] * ranks));
      const double seconds = planning_seconds(one, options);
      const double growth = before[i] > 0.0 && ranks >= 4 * kRanks[0] ? seconds / before[i] : 0.0;
      std::printf("%10.4f %6.1fx%s", seconds, growth, growth > kMostGrowth && seconds > kTelling ? "!" : " ");
      std::fflush(stdout);
      before[i] = seconds;
    }
    std::printf("\n");
  }
}

/// One line of the table: milliseconds of each step, the least of three.
void print_around(const bench::Case& one, const std::string& file) {
  constexpr int kRuns = 3;
  constexpr std::size_t kSteps = 7;  // the columns
  double ms[kSteps];
  std::fill(std::begin(ms), std::end(ms), 1e300);
  double gap = 0.0;
  for (int run = 0; run < kRuns; ++run) {
    std::size_t step = 0;
    const auto time = [&](const auto& call) { ms[step] = std::min(ms[step], 1e3 * seconds_of(call)), ++step; };
    Plan plan;
    std::string text;
    const auto make = [&](std::int64_t effort) {
      plan = std::get<Plan>(plan_batch(one.batch, one.cluster, one.cost, {.planner = "free", .effort = effort}));
    };
    time([&] { make(kEffortFast); });
    time([&] { make(kEffortDefault); });
    time([&] {
      if (!check_plan(plan, one.batch, one.cluster, one.cost).empty()) throw std::logic_error("the plan is wrong");
    });
    time([&] { plan_hash(plan, one.batch); });
    time([&] { gap = plan.predicted->makespan_s / tighter_lower_bound_s(one.batch, one.cluster, one.cost); });
    time([&] { text = to_json(plan); });
    std::ofstream(file) << text;
    time([&] { read_plan(file); });
  }
  std::printf("%8d %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f %9.2f %9.4f", one.cluster.ranks(), ms[0], ms[1], ms[2],
              ms[3], ms[4], ms[1] + ms[2] + ms[3] + ms[4], ms[5], ms[6], gap);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(" %8ld\n", usage.ru_maxrss >> 10);
  std::fflush(stdout);
}

void print_around(int most_ranks) {
  std::printf(
      "free, OpenVid, 8 sequences a rank: processor milliseconds; makespan / tighter bound; peak MiB\n"
      "   ranks      fast      plan     check      hash     bound   the four  JSON out   JSON in       gap     peak\n");
  const std::string file = std::filesystem::temp_directory_path() / "planner_scale.json";
  for (const int ranks : {8, 64, 128, 256, 512, 1024, 2048, 4096, 16384, 65536}) {
    if (ranks <= most_ranks) print_around(bench::large_case(ranks, "openvid"), file);
  }
  std::filesystem::remove(file);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    dhp::add_peers();
    const std::string planner = argc > 1 ? argv[1] : "free";
    if (planner == "around") {
      print_around(argc > 2 ? std::stoi(argv[2]) : 65536);
      return 0;
    }
    const double limit_s = argc > 2 ? std::stod(argv[2]) : 20.0;
    const int most_ranks = argc > 3 ? std::stoi(argv[3]) : 65536;
    const std::string level = argc > 4 ? argv[4] : "";
    for (const std::int64_t effort : {kEffortFast, kEffortDefault}) {
      if (effort == kEffortDefault && !uses_option(planner, "effort")) continue;
      if (!level.empty() && level != (effort == kEffortFast ? "fast" : "default")) continue;
      for (const auto& [kind, name] : kKinds) {
        print_curves({.planner = planner, .effort = effort}, kind, name, limit_s, most_ranks);
      }
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "planner_scale: %s\n", error.what());
    return 2;
  }
}
