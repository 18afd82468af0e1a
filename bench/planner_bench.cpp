// Time of plan_batch() alone (no parsing, no check, one thread): the shared cases, 64 ranks, batches of 512; and 1,024
// and 16,384 ranks with eight sequences a rank. Of five repetitions: mean, median, deviation, least and most.
//
//     build/release/bench/planner_bench --benchmark_filter=paper

#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>

#include "cases.h"
#include "run_benchmarks.h"

namespace {

using namespace dhp;

constexpr int kRepetitions = 5;
constexpr double kSeconds = 0.1;  // of a repetition, at least

void plan(benchmark::State& state, const bench::Case& one, const PlanOptions& options) {
  double gap = 0.0;
  for ([[maybe_unused]] auto _ : state) {
    PlanResult result = plan_batch(one.batch, one.cluster, one.cost, options);
    benchmark::DoNotOptimize(result);
    if (const auto* made = std::get_if<Plan>(&result)) gap = made->predicted->gap;
  }
  state.counters["makespan/bound"] = 1.0 + gap;
}

void add(const std::string& prefix, const bench::Case& one, const PlanOptions& options) {
  std::string name = prefix + '/' + one.name;
  std::replace(name.begin(), name.end(), ' ', '/');
  benchmark::RegisterBenchmark(name.c_str(), [one, options](benchmark::State& state) { plan(state, one, options); })
      ->Unit(benchmark::kMillisecond)
      ->MinTime(kSeconds)
      ->Repetitions(kRepetitions)
      ->ReportAggregatesOnly()
      ->ComputeStatistics("least",
                          [](const std::vector<double>& of) { return *std::min_element(of.begin(), of.end()); })
      ->ComputeStatistics("most",
                          [](const std::vector<double>& of) { return *std::max_element(of.begin(), of.end()); });
}

void add_all() {
  for (const char* planner :
       {"free", "lockstep", "paper", "static", "balanced-static", "ulysses", "megatron-hybrid", "megatron-dynamic"}) {
    for (const std::string& tokens : bench::kTokens) {
      for (const std::string& data : bench::kData) {
        const bench::Case one = bench::shared_case("910b_8x8", tokens, data);
        if (std::string(planner) == "free") add("free:fast", one, {.planner = planner, .effort = kEffortFast});
        add(planner, one, {.planner = planner});
      }
    }
  }
  for (const int ranks : {1024, 16384}) {
    for (const std::string& data : bench::kData) add("free", bench::large_case(ranks, data), {.planner = "free"});
  }
}

}  // namespace

int main(int argc, char** argv) { return dhp::bench::run_benchmarks("planner_bench", argc, argv, add_all); }
