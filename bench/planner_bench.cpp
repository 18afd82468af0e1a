// Time of plan_batch() alone, on the shared cases: 64 ranks, batches of 512.
//
//     build/release/bench/planner_bench --benchmark_filter=paper

#include <benchmark/benchmark.h>

#include <exception>
#include <iostream>
#include <string>

#include "dhp/planner.h"

namespace {

const std::string kCases = DHP_DATA_DIR "/cases/";

struct Case {
  dhp::Batch batch;
  dhp::Cluster cluster;
  dhp::CostModel cost;
  std::string schedule;
};

void plan(benchmark::State& state, const Case& one) {
  const dhp::PlanOptions options{.schedule = one.schedule};
  double gap = 0.0;
  for ([[maybe_unused]] auto _ : state) {
    dhp::PlanResult result = dhp::plan_batch(one.batch, one.cluster, one.cost, options);
    benchmark::DoNotOptimize(result);
    if (const auto* made = std::get_if<dhp::Plan>(&result)) gap = made->predicted->gap;
  }
  state.counters["makespan/bound"] = 1.0 + gap;
}

void add(const std::string& schedule, const std::string& cluster, const std::string& cost, const std::string& data) {
  const Case one{dhp::read_batch(kCases + "batch_" + data + "_512.json"),
                 dhp::read_cluster(kCases + "cluster_" + cluster + ".json"),
                 dhp::read_cost_model(kCases + "cost_" + cost + ".json"), schedule};
  const std::string name = schedule + '/' + cluster + '/' + cost + '/' + data;
  benchmark::RegisterBenchmark(name.c_str(), [one](benchmark::State& state) {
    plan(state, one);
  })->Unit(benchmark::kMillisecond);
}

void add_all() {
  for (const char* schedule :
       {"paper", "static", "balanced-static", "ulysses", "megatron-hybrid", "megatron-dynamic"}) {
    for (const char* cost : {"qwen3-vl-8b_4096", "qwen3-vl-8b_8192", "qwen3-vl-8b_16384"}) {
      for (const char* data : {"openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"}) {
        add(schedule, "910b_8x8", cost, data);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    add_all();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "planner_bench: " << error.what() << '\n';
    return 2;
  }
}
