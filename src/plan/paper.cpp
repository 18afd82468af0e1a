#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "plan/allocate.h"
#include "plan/feasible.h"
#include "plan/pack.h"
#include "plan/place.h"
#include "plan/planners.h"

namespace dhp {
namespace {

/// Sequences that run at once, each bin on ranks of its own.
struct MicroBatch {
  std::vector<Bin> bins;
  std::vector<int> degrees;  ///< one a bin
  std::vector<Rank> first;   ///< one a bin: it has ranks first, first + 1, …
  double seconds = 0.0;      ///< of its slowest bin
};

/// Numbers of micro-batches that are tried, beginning with the fewest that memory allows: some more, since fuller
/// micro-batches share overhead while emptier ones leave more freedom in degrees.
std::vector<int> micro_batch_counts(int fewest, int sequences) {
  std::vector<int> counts;
  for (const int more : {0, 1, 2, 3}) counts.push_back(fewest + more);
  for (const double factor : {1.25, 1.5, 2.0, 3.0, 4.0}) counts.push_back(static_cast<int>(std::ceil(fewest * factor)));
  for (int& count : counts) count = std::min(count, sequences);
  std::sort(counts.begin(), counts.end());
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  return counts;
}

class PaperPlanner {
 public:
  PaperPlanner(const Batch& batch, const Cluster& cluster, const CostModel& cost, int min_shard_tokens)
      : cluster_(cluster),
        cost_(cost),
        budget_bytes_(activation_budget_bytes(cost, cluster)),
        items_(make_items(batch, cluster, cost, min_shard_tokens)),
        place_in_memory_order_(items_.size()) {
    for (int degree = 1; degree <= cluster.ranks(); ++degree) shapes_.push_back(consecutive_shape(cluster, 0, degree));
    std::vector<std::int32_t> order = in_order();
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return std::tuple(-item(a).memory_bytes, item(a).sequence.id) <
             std::tuple(-item(b).memory_bytes, item(b).sequence.id);
    });
    for (std::size_t place = 0; place < order.size(); ++place) {
      place_in_memory_order_[static_cast<std::size_t>(order[place])] = static_cast<std::int32_t>(place);
    }
  }

  Plan plan() {
    double total_bytes = 0.0;
    for (const Item& one : items_) total_bytes += one.memory_bytes;
    const double fewest = std::ceil(total_bytes / (budget_bytes_ * cluster_.ranks()));
    const int sequences = static_cast<int>(items_.size());
    std::vector<MicroBatch> best;
    double best_s = std::numeric_limits<double>::infinity();
    for (const std::vector<std::int32_t>& order : {in_order(), by_length()}) {
      for (const int count : micro_batch_counts(std::clamp(static_cast<int>(fewest), 1, sequences), sequences)) {
        std::vector<MicroBatch> candidate;
        double candidate_s = 0.0;
        for (const auto& part : cut(order, count)) {
          candidate_s = append(part, candidate_s, best_s, candidate);
          if (candidate_s >= best_s) break;
        }
        if (candidate_s >= best_s) continue;
        best = std::move(candidate);
        best_s = candidate_s;
      }
    }
    return to_plan(best);
  }

 private:
  using Order = std::vector<std::int32_t>;  // item indices

  const Item& item(std::int32_t index) const { return items_[static_cast<std::size_t>(index)]; }

  Order in_order() const {
    Order order(items_.size());
    std::iota(order.begin(), order.end(), 0);
    return order;
  }

  Order by_length() const {
    Order order = in_order();
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return std::tuple(-item(a).sequence.tokens, item(a).sequence.id) <
             std::tuple(-item(b).sequence.tokens, item(b).sequence.id);
    });
    return order;
  }

  /// Cuts an order into at most `count` parts of about equal memory.
  std::vector<Order> cut(std::span<const std::int32_t> order, int count) const {
    double total = 0.0;
    for (const std::int32_t index : order) total += item(index).memory_bytes;
    const bool weightless = total <= 0.0;
    if (weightless) total = static_cast<double>(order.size());
    std::vector<Order> parts(static_cast<std::size_t>(count));
    double before = 0.0;
    for (const std::int32_t index : order) {
      const double weight = weightless ? 1.0 : item(index).memory_bytes;
      const double part = std::floor((before + weight / 2) / total * count);
      parts[static_cast<std::size_t>(std::clamp(part, 0.0, count - 1.0))].push_back(index);
      before += weight;
    }
    std::erase_if(parts, [](const Order& part) { return part.empty(); });
    return parts;
  }

  /// Plans a part as one micro-batch, or in two halves where its bins do not fit the ranks. Returns the running total;
  /// gives up once that reaches `limit_s`.
  double append(const Order& part, double total_s, double limit_s, std::vector<MicroBatch>& out) const {
    if (total_s >= limit_s) return total_s;
    Order by_memory = part;
    std::sort(by_memory.begin(), by_memory.end(), [&](std::int32_t a, std::int32_t b) {
      return place_in_memory_order_[static_cast<std::size_t>(a)] < place_in_memory_order_[static_cast<std::size_t>(b)];
    });
    auto bins = best_fit_decreasing(items_, by_memory, cost_, budget_bytes_, cluster_.ranks());
    if (bins) {
      out.push_back(share_ranks(std::move(*bins)));
      return total_s + out.back().seconds;
    }
    // A single sequence always fits, so halving ends.
    const auto middle = part.begin() + std::ssize(part) / 2;
    total_s = append(Order(part.begin(), middle), total_s, limit_s, out);
    return append(Order(middle, part.end()), total_s, limit_s, out);
  }

  /// Degrees for groups at the best place there is, then places, then the true time there.
  MicroBatch share_ranks(std::vector<Bin> bins) const {
    std::vector<DegreeLimits> limits;
    limits.reserve(bins.size());
    for (const Bin& bin : bins) limits.push_back({bin.min_degree, bin.max_degree});
    const auto seconds_of = [&](int bin, int degree) {
      return seconds(bins[static_cast<std::size_t>(bin)], shapes_[static_cast<std::size_t>(degree) - 1]);
    };
    MicroBatch result;
    Allocation allocation = allocate_degrees(limits, cluster_.ranks(), seconds_of).value();
    result.degrees = std::move(allocation.degrees);
    const auto straddled_s = [&](int bin) {
      const int degree = result.degrees[static_cast<std::size_t>(bin)];
      return seconds(bins[static_cast<std::size_t>(bin)],
                     consecutive_shape(cluster_, cluster_.ranks_per_node - degree / 2, degree));
    };
    result.first = place_consecutive(result.degrees, cluster_, straddled_s);
    for (std::size_t bin = 0; bin < bins.size(); ++bin) {
      const GroupShape shape = consecutive_shape(cluster_, result.first[bin], result.degrees[bin]);
      result.seconds = std::max(result.seconds, seconds(bins[bin], shape));
    }
    result.bins = std::move(bins);
    return result;
  }

  double seconds(const Bin& bin, const GroupShape& shape) const {
    return task_seconds(cost_, cluster_, bin.load, shape, Exchange::ring);
  }

  /// Tasks of a micro-batch stand in the order of their ranks.
  Plan to_plan(const std::vector<MicroBatch>& micro_batches) const {
    Plan plan;
    plan.schedule = Schedule::lockstep;
    for (std::size_t number = 0; number < micro_batches.size(); ++number) {
      const MicroBatch& micro_batch = micro_batches[number];
      std::vector<std::size_t> bins(micro_batch.bins.size());
      std::iota(bins.begin(), bins.end(), std::size_t{0});
      std::sort(bins.begin(), bins.end(),
                [&](std::size_t a, std::size_t b) { return micro_batch.first[a] < micro_batch.first[b]; });
      for (const std::size_t bin : bins) {
        Task task;
        task.id = static_cast<int>(plan.tasks.size());
        task.micro_batch = static_cast<int>(number);
        task.ranks.resize(static_cast<std::size_t>(micro_batch.degrees[bin]));
        std::iota(task.ranks.begin(), task.ranks.end(), micro_batch.first[bin]);
        for (const std::int32_t index : micro_batch.bins[bin].members)
          task.sequences.push_back(item(index).sequence.id);
        plan.tasks.push_back(std::move(task));
      }
    }
    return plan;
  }

  const Cluster& cluster_;
  const CostModel& cost_;
  double budget_bytes_;
  std::vector<Item> items_;
  std::vector<std::int32_t> place_in_memory_order_;  // by falling memory, ties by id
  std::vector<GroupShape> shapes_;                   // by degree - 1, from the start of a node
};

}  // namespace

PlanResult plan_paper(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options) {
  if (auto infeasible = find_infeasible(batch, cluster, cost, cluster.ranks())) return std::move(*infeasible);
  return PaperPlanner(batch, cluster, cost, options.min_shard_tokens).plan();
}

}  // namespace dhp
