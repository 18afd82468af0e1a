// How good plans are: makespan over the simple bound of docs/design.md, as Markdown tables. Planned for the makespan
// alone (expect_error 0), which is what is compared; bench/robust.py compares under errors.
//
//     build/release/bench/plan_quality cases     every planner on the shared cases, 64 ranks, batches of 512
//     build/release/bench/plan_quality effort    free and lockstep: quality against effort
//     build/release/bench/plan_quality scale     free at 1,024 and 16,384 ranks
//     build/release/bench/plan_quality shapes    clusters that are no powers of two, batches at the edge
//     build/release/bench/plan_quality pipelines lockstep for pipelines of 2 to 64 stages
//     build/release/bench/plan_quality all       free against every peer on all combinations of the files there
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <exception>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <string>

#include "cases.h"
#include "dhp/bound.h"
#include "dhp/metrics.h"
#include "dhp/peers.h"

namespace {

using namespace dhp;
using bench::Case;

struct Result {
  double ratio = 0.0;  ///< makespan over the simple bound; 0: infeasible
  double median_ms = 0.0;
  double least_ms = 0.0;
  double most_ms = 0.0;
};

/// CPU time of `runs`; planning is one thread. The ratio is to the simple bound also where the planner itself knows
/// none.
Result run(const Case& one, PlanOptions options, int runs) {
  options.expect_error = ErrorSizes{0.0, 0.0, 0.0};
  Result result;
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const std::clock_t start = std::clock();
    const PlanResult plan = plan_batch(one.batch, one.cluster, one.cost, options);
    times.push_back(1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
    if (const auto* made = std::get_if<Plan>(&plan)) {
      result.ratio = made->predicted->makespan_s / simple_lower_bound_s(one.batch, one.cluster, one.cost);
    }
  }
  std::sort(times.begin(), times.end());
  result.median_ms = times[times.size() / 2];
  result.least_ms = times.front();
  result.most_ms = times.back();
  return result;
}

std::string cell(double ratio) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", ratio);
  return ratio > 0.0 ? text : "-";
}

/// Names of all planners, those with an argument once.
std::vector<std::string> planner_names() {
  std::vector<std::string> names;
  for (const PlannerInfo& planner : planners()) {
    if (planner.name.find(':') == std::string::npos) names.push_back(planner.name);
  }
  return names;
}

/// Geometric mean of what is above zero in both.
std::optional<double> mean_over(const std::vector<double>& of, const std::vector<double>& over) {
  double sum = 0.0;
  int count = 0;
  for (std::size_t i = 0; i < of.size(); ++i) {
    if (of[i] <= 0.0 || over[i] <= 0.0) continue;
    sum += std::log(of[i] / over[i]);
    ++count;
  }
  return count == 0 ? std::nullopt : std::optional(std::exp(sum / count));
}

void header(const std::vector<std::string>& columns) {
  for (const std::string& column : columns) std::printf("| %s ", column.c_str());
  std::printf("|\n");
  for (std::size_t i = 0; i < columns.size(); ++i) std::printf("|---");
  std::printf("|\n");
}

void cases() {
  const std::vector<std::string> names = planner_names();
  std::vector<std::string> columns = {"cluster", "tokens a rank", "data"};
  columns.insert(columns.end(), names.begin(), names.end());
  header(columns);
  std::map<std::string, std::vector<double>> ratios;
  std::vector<double> ones;
  for (const char* cluster : {"910b_8x8", "910b_8x8_slow_network"}) {
    for (const std::string& tokens : bench::kTokens) {
      for (const std::string& data : bench::kData) {
        const Case one = bench::shared_case(cluster, tokens, data);
        std::printf("| %s | %s | %s ", cluster, tokens.c_str(), data.c_str());
        for (const std::string& name : names) {
          ratios[name].push_back(run(one, {.planner = name}, 1).ratio);
          std::printf("| %s ", cell(ratios[name].back()).c_str());
        }
        std::printf("|\n");
        ones.push_back(1.0);
      }
    }
  }
  std::printf("| geometric mean | | ");
  for (const std::string& name : names) std::printf("| %s ", cell(mean_over(ratios[name], ones).value_or(0.0)).c_str());
  std::printf("|\n| over free | | ");
  for (const std::string& name : names) {
    std::printf("| %s ", cell(mean_over(ratios[name], ratios["free"]).value_or(0.0)).c_str());
  }
  std::printf("|\n\n");
  std::vector<double> megatron;
  for (std::size_t i = 0; i < ones.size(); ++i) {
    megatron.push_back(std::min(ratios["megatron-hybrid"][i], ratios["megatron-dynamic"][i]));
  }
  std::printf("The better of Megatron's two, case by case, over free: %s.\n",
              cell(mean_over(megatron, ratios["free"]).value_or(0.0)).c_str());
  for (const std::string& name : names) {
    int worse = 0;
    for (std::size_t i = 0; i < ones.size(); ++i) {
      if (ratios[name][i] > 0.0 && ratios["free"][i] > ratios[name][i] * (1 + 1e-9)) ++worse;
    }
    if (worse > 0) std::printf("free is worse than %s on %d cases.\n", name.c_str(), worse);
  }
}

void effort() {
  header({"planner", "effort", "geometric mean", "worst", "mean ms", "most ms", "least to most of a case's runs"});
  for (const char* name : {"free", "lockstep"}) {
    for (const std::int64_t level : {std::int64_t{1}, std::int64_t{30}, kEffortFast, std::int64_t{120},
                                     std::int64_t{300}, kEffortDefault, std::int64_t{5000}, std::int64_t{50000}}) {
      std::vector<double> ratios;
      double sum_ms = 0.0;
      double most_ms = 0.0;
      double widest = 1.0;  // most over least
      for (const char* cluster : {"910b_8x8", "910b_8x8_slow_network"}) {
        for (const std::string& tokens : bench::kTokens) {
          for (const std::string& data : bench::kData) {
            const Result result = run(bench::shared_case(cluster, tokens, data), {.planner = name, .effort = level},
                                      level > 2000 ? 3 : 5);
            ratios.push_back(result.ratio);
            sum_ms += result.median_ms;
            most_ms = std::max(most_ms, result.median_ms);
            widest = std::max(widest, result.most_ms / result.least_ms);
          }
        }
      }
      const std::vector<double> ones(ratios.size(), 1.0);
      const char* label = level == kEffortFast ? " (fast)" : level == kEffortDefault ? " (default)" : "";
      std::printf("| %s | %ld%s | %s | %s | %.2f | %.2f | at most %.2f times |\n", name, static_cast<long>(level),
                  label, cell(*mean_over(ratios, ones)).c_str(),
                  cell(*std::max_element(ratios.begin(), ratios.end())).c_str(),
                  sum_ms / static_cast<double>(ratios.size()), most_ms, widest);
    }
  }
}

void scale() {
  header({"ranks", "sequences", "data", "free", "ms", "least to most ms"});
  for (const int ranks : {1024, 16384}) {
    for (const std::string& data : bench::kData) {
      const Result result = run(bench::large_case(ranks, data), {.planner = "free"}, 5);
      std::printf("| %d | %d | %s | %s | %.1f | %.1f to %.1f |\n", ranks, 8 * ranks, data.c_str(),
                  cell(result.ratio).c_str(), result.median_ms, result.least_ms, result.most_ms);
    }
  }
}

Batch batch_of(const std::vector<std::int64_t>& tokens) {
  Batch batch;
  for (const std::int64_t length : tokens) batch.sequences.push_back({std::ssize(batch.sequences), length, 0});
  return batch;
}

void shapes() {
  header({"nodes × ranks", "batch", "free / simple bound", "free / tighter bound", "lockstep / tighter bound"});
  for (const auto& [nodes, per_node] :
       {std::pair{1, 6}, std::pair{3, 8}, std::pair{5, 8}, std::pair{7, 8}, std::pair{25, 4}, std::pair{61, 1}}) {
    const int ranks = nodes * per_node;
    const auto times = [&](int count, std::int64_t tokens) {
      return std::vector<std::int64_t>(static_cast<std::size_t>(count), tokens);
    };
    std::vector<std::int64_t> tiny_and_giant = times(200, 100);
    tiny_and_giant.push_back(4000LL * ranks);
    const std::vector<std::pair<std::string, Batch>> batches = {
        {"one of 6,000", batch_of({6000})},
        {"half as many as ranks, 4,000", batch_of(times(ranks / 2, 4000))},
        {"ranks + 1 of 4,000", batch_of(times(ranks + 1, 4000))},
        {"2,000 of 70", batch_of(times(2000, 70))},
        {"200 of 100, one of 4,000 a rank", batch_of(tiny_and_giant)},
        {"OpenVid-like 512", bench::shared_case("910b_8x8", "8192", "openvid").batch}};
    for (const auto& [name, batch] : batches) {
      Case one = bench::shared_case("910b_8x8", "8192", "openvid");
      one.batch = batch;
      one.cluster.nodes = nodes;
      one.cluster.ranks_per_node = per_node;
      const double simple = simple_lower_bound_s(one.batch, one.cluster, one.cost);
      const double tighter = tighter_lower_bound_s(one.batch, one.cluster, one.cost);
      const double free = run(one, {.planner = "free"}, 1).ratio;
      const double lockstep = run(one, {.planner = "lockstep"}, 1).ratio;
      std::printf("| %d × %d | %s | %s | %s | %s |\n", nodes, per_node, name.c_str(), cell(free).c_str(),
                  cell(free * simple / tighter).c_str(), cell(lockstep * simple / tighter).c_str());
    }
  }
}

/// Names of the files in bench/cases that begin so.
std::vector<std::string> files_of(const std::string& kind) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(DHP_DATA_DIR "/../bench/cases")) {
    const std::string name = entry.path().stem().string();
    if (name.starts_with(kind)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// Seconds of a plan in a pipeline; infinite where it is none of micro-batches.
double pipeline_s(const Case& one, const PlanOptions& options, int stages) {
  const PlanResult result = plan_batch(one.batch, one.cluster, one.cost, options);
  const auto* plan = std::get_if<Plan>(&result);
  if (plan == nullptr || plan->schedule != Schedule::lockstep) return std::numeric_limits<double>::infinity();
  return plan_metrics(*plan, one.batch, one.cluster, one.cost).pipeline_s(stages);
}

void pipelines() {
  header({"tokens a rank", "data", "stages", "made for the least sum, s", "made for the pipeline, s",
          "best of paper and six caps on tokens, s", "planning, ms"});
  constexpr int kRuns = 5;
  for (const char* tokens : {"4096", "8192"}) {
    for (const std::string& data : bench::kData) {
      const Case one = bench::shared_case("910b_8x8", tokens, data);
      for (const int stages : {2, 8, 64}) {
        const PlanOptions options{.planner = "lockstep", .pipeline_stages = stages};
        double other = pipeline_s(one, {.planner = "paper"}, stages);
        for (const std::int64_t cap : {1000, 1500, 2000, 2500, 3500, 5000}) {
          other = std::min(other, pipeline_s(one, {.planner = "lockstep", .max_tokens_per_rank = cap}, stages));
        }
        const Result timed = run(one, options, kRuns);
        std::printf("| %s | %s | %d | %.2f | %.2f | %.2f | %.0f (%.0f to %.0f) |\n", tokens, data.c_str(), stages,
                    pipeline_s(one, {.planner = "lockstep"}, stages), pipeline_s(one, options, stages), other,
                    timed.median_ms, timed.least_ms, timed.most_ms);
      }
    }
  }
}

void all() {
  std::vector<double> free;
  std::vector<double> ones;
  std::map<std::string, int> better;  // than free
  int lockstep_behind = 0;            // paper
  for (const std::string& cluster : files_of("cluster_")) {
    for (const std::string& cost : files_of("cost_")) {
      for (const std::string& batch : files_of("batch_")) {
        const Case one{"", read_batch(bench::case_file(batch)), read_cluster(bench::case_file(cluster)),
                       read_cost_model(bench::case_file(cost))};
        std::map<std::string, double> ratios;
        for (const std::string& name : planner_names()) ratios[name] = run(one, {.planner = name}, 1).ratio;
        if (ratios["free"] <= 0.0) continue;
        free.push_back(ratios["free"]);
        ones.push_back(1.0);
        for (const auto& [name, ratio] : ratios) {
          if (ratio <= 0.0 || ratio >= ratios["free"] * (1 - 1e-9)) continue;
          ++better[name];
          std::printf("%s %s %s: %s %s, free %s\n", cluster.c_str(), cost.c_str(), batch.c_str(), name.c_str(),
                      cell(ratio).c_str(), cell(ratios["free"]).c_str());
        }
        if (ratios["lockstep"] > ratios["paper"] * (1 + 1e-9)) ++lockstep_behind;
      }
    }
  }
  std::printf("%zu cases that can be planned: geometric mean of free %s, worst %s.\n", free.size(),
              cell(*mean_over(free, ones)).c_str(), cell(*std::max_element(free.begin(), free.end())).c_str());
  for (const auto& [name, count] : better) std::printf("%s is better than free on %d.\n", name.c_str(), count);
  std::printf("lockstep is behind paper on %d.\n", lockstep_behind);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    dhp::add_peers();
    const std::string what = argc == 2 ? argv[1] : "";
    if (what == "cases") {
      cases();
    } else if (what == "effort") {
      effort();
    } else if (what == "scale") {
      scale();
    } else if (what == "shapes") {
      shapes();
    } else if (what == "pipelines") {
      pipelines();
    } else if (what == "all") {
      all();
    } else {
      std::fprintf(stderr, "usage: plan_quality cases|effort|scale|shapes|pipelines|all\n");
      return 2;
    }
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "plan_quality: %s\n", error.what());
    return 2;
  }
}
