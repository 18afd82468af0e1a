// Time of what follows the planning of a batch: task times, bounds, hash.
//
//     build/release/bench/bound_bench

#include <benchmark/benchmark.h>

#include <string>

#include "dhp/bound.h"
#include "dhp/cost_model.h"
#include "dhp/plan.h"
#include "run_benchmarks.h"

namespace {

const std::string kCases = DHP_DATA_DIR "/../bench/cases/";

/// The log-normal batch over and over, on as many nodes of eight ranks as asked for, four short sequences a task.
struct Large {
  dhp::Cluster cluster = dhp::read_cluster(kCases + "cluster_910b_8x8.json");
  dhp::CostModel cost = dhp::read_cost_model(kCases + "cost_qwen3-vl-8b_8192.json");
  dhp::Batch batch;
  dhp::Plan plan;

  Large(int sequences, int nodes) {
    const dhp::Batch shape = dhp::read_batch(kCases + "batch_lognormal_512.json");
    cluster.nodes = nodes;
    for (int i = 0; i < sequences; ++i) {
      dhp::Sequence sequence = shape.sequences[static_cast<std::size_t>(i) % shape.sequences.size()];
      sequence.id = i;
      batch.sequences.push_back(sequence);
    }
    plan.ranks = cluster.ranks();
    dhp::Rank next = 0;
    for (int i = 0; i < sequences; ++i) {
      const int degree = dhp::min_degree(cost, cluster, batch.sequences[static_cast<std::size_t>(i)]);
      if (i % 4 == 0 || degree > 1) {
        plan.tasks.push_back({.id = static_cast<int>(plan.tasks.size())});
        for (int k = 0; k < degree; ++k) plan.tasks.back().ranks.push_back(next++ % plan.ranks);
      }
      plan.tasks.back().sequences.push_back(i);
    }
  }
};

void annotate(benchmark::State& state) {
  Large large(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for ([[maybe_unused]] auto _ : state) dhp::annotate(large.plan, large.batch, large.cluster, large.cost);
}

void hash(benchmark::State& state) {
  const Large large(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for ([[maybe_unused]] auto _ : state) benchmark::DoNotOptimize(dhp::plan_hash(large.plan, large.batch));
}

/// The third argument: 0 nominal speed, 1 every rank its own.
void simple_bound(benchmark::State& state) {
  Large large(static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for (int rank = 0; state.range(2) == 1 && rank < large.cluster.ranks(); ++rank) {
    large.cluster.rank_speed.push_back(1.0 - 0.5 * ((rank * 7919) % large.cluster.ranks()) / large.cluster.ranks());
  }
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(dhp::simple_lower_bound_s(large.batch, large.cluster, large.cost));
  }
}

void tighter_bound(benchmark::State& state, const dhp::Batch& batch, const dhp::Cluster& cluster,
                   const dhp::CostModel& cost) {
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(dhp::tighter_lower_bound_s(batch, cluster, cost));
  }
  const double tighter = dhp::tighter_lower_bound_s(batch, cluster, cost);
  state.counters["tighter/simple"] = tighter / dhp::simple_lower_bound_s(batch, cluster, cost);
}

void add_tighter_bounds() {
  for (const char* network : {"910b_8x8", "910b_8x8_slow_network"}) {
    const dhp::Cluster cluster = dhp::read_cluster(kCases + "cluster_" + network + ".json");
    for (const char* tokens : {"4096", "8192", "16384"}) {
      const dhp::CostModel cost = dhp::read_cost_model(kCases + "cost_qwen3-vl-8b_" + tokens + ".json");
      for (const char* data : {"openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"}) {
        const dhp::Batch batch = dhp::read_batch(kCases + "batch_" + data + "_512.json");
        const std::string name = std::string("tighter_bound/") + network + '/' + tokens + '/' + data;
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
          tighter_bound(state, batch, cluster, cost);
        })->Unit(benchmark::kMillisecond);
      }
    }
  }
  for (const auto& [sequences, nodes] : {std::pair{4096, 128}, {131072, 2048}}) {
    const Large large(sequences, nodes);
    const std::string name = "tighter_bound/" + std::to_string(sequences) + '/' + std::to_string(nodes);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      tighter_bound(state, large.batch, large.cluster, large.cost);
    })->Unit(benchmark::kMillisecond);
  }
}

void add_all() {
  benchmark::RegisterBenchmark("annotate", annotate)
      ->Args({512, 8})
      ->Args({131072, 2048})
      ->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("plan_hash", hash)->Args({512, 8})->Args({131072, 2048})->Unit(benchmark::kMillisecond);
  benchmark::RegisterBenchmark("simple_bound", simple_bound)
      ->Args({512, 8, 0})
      ->Args({131072, 2048, 0})
      ->Args({131072, 2048, 1})
      ->Unit(benchmark::kMillisecond);
  add_tighter_bounds();
}

}  // namespace

int main(int argc, char** argv) { return dhp::bench::run_benchmarks("bound_bench", argc, argv, add_all); }
