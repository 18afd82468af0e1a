#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "plan/allocate.h"
#include "plan/pack.h"
#include "plan/place.h"
#include "plan/planners.h"

namespace dhp {
namespace {

/// How full micro-batches are made: the share of the ranks that their bins' minimum degrees may take. 1 gives the
/// fewest micro-batches that memory allows and the least overhead; 1/2 gives about twice as many, whose bins have twice
/// their minimum degree to share. These six, in both orders, come within 0.5 % (geometric mean) of every count tried.
constexpr double kShares[] = {1.0, 7.0 / 8, 3.0 / 4, 1.0 / 2, 1.0 / 4, 1.0 / 8};

using Indices = std::vector<std::int32_t>;  // of items

/// Sequences that run at once, each bin on ranks of its own.
struct MicroBatch {
  Indices items;  ///< by falling memory
  Packing packing;
  std::vector<int> degrees;  ///< one a bin
  std::vector<Rank> first;   ///< one a bin: it has ranks first, first + 1, …
  double seconds = 0.0;      ///< of its slowest bin
};

class PaperPlanner {
 public:
  PaperPlanner(const Batch& batch, const Cluster& cluster, const CostModel& cost, int min_shard_tokens)
      : cluster_(cluster),
        cost_(cost),
        budget_bytes_(activation_budget_bytes(cost, cluster)),
        items_(make_items(batch, cluster, cost, min_shard_tokens)) {
    for (const Item& one : items_) total_work_s_ += work_s(one);
    for (int degree = 1; degree <= cluster.ranks(); ++degree) shapes_.push_back(consecutive_shape(cluster, 0, degree));
  }

  Plan plan() const {
    std::vector<MicroBatch> best;
    double best_s = std::numeric_limits<double>::infinity();
    // By length first: it wins more often, and a good plan early cuts the rest short.
    for (const Indices& order : {by_length(), in_order()}) {
      int last_ranks = 0;
      for (const double share : kShares) {
        const int ranks = std::max(1, static_cast<int>(cluster_.ranks() * share));
        if (ranks == last_ranks) continue;
        last_ranks = ranks;
        std::vector<MicroBatch> candidate;
        const double seconds = fill_micro_batches(order, ranks, best_s, candidate);
        if (seconds >= best_s) continue;
        best = std::move(candidate);
        best_s = seconds;
      }
    }
    return to_plan(best);
  }

 private:
  const Item& item(std::int32_t index) const { return items_[static_cast<std::size_t>(index)]; }

  /// Seconds that the item takes at least of a micro-batch: its work, without any overhead, shared by all ranks.
  double work_s(const Item& one) const {
    const auto tokens = static_cast<double>(one.sequence.tokens);
    const double token_s = cost_.forward.token_s + cost_.backward.token_s;
    const double pair_s = cost_.forward.pair_s + cost_.backward.pair_s;
    const double all_s =
        token_s * tokens + pair_s * tokens * tokens / 2 + cost_.patch_s * static_cast<double>(one.sequence.patches);
    return all_s / cluster_.ranks();
  }

  Indices in_order() const {
    Indices order(items_.size());
    for (std::size_t i = 0; i < items_.size(); ++i) {
      order[static_cast<std::size_t>(items_[i].place)] = static_cast<std::int32_t>(i);
    }
    return order;
  }

  Indices by_length() const {
    Indices order(items_.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return std::tuple(-item(a).sequence.tokens, item(a).sequence.id) <
             std::tuple(-item(b).sequence.tokens, item(b).sequence.id);
    });
    return order;
  }

  /// Cuts an order into micro-batches as long as fit `ranks`. Returns their seconds; gives up once those reach
  /// `limit_s`.
  double fill_micro_batches(std::span<const std::int32_t> order, int ranks, double limit_s,
                            std::vector<MicroBatch>& out) const {
    double total_s = 0.0;
    double left_s = total_work_s_;
    double guess = 1.0;
    while (!order.empty() && total_s + left_s < limit_s) {
      MicroBatch& micro_batch = out.emplace_back();
      pack_longest_fit(order, ranks, guess, micro_batch);
      share_ranks(micro_batch);
      total_s += micro_batch.seconds;
      for (const std::int32_t index : micro_batch.items) left_s -= work_s(item(index));
      order = order.subspan(micro_batch.items.size());
    }
    return order.empty() ? total_s : limit_s;
  }

  bool pack(std::span<const std::int32_t> part, int ranks, MicroBatch& out) const {
    out.items.assign(part.begin(), part.end());
    std::sort(out.items.begin(), out.items.end());
    return best_fit_decreasing(items_, out.items, cost_, budget_bytes_, ranks, out.packing);
  }

  /// Packs the longest beginning of the order, one item at least, that fits `ranks`: the search widens from `guess`,
  /// the share of what memory alone would hold, and leaves there what it found.
  void pack_longest_fit(std::span<const std::int32_t> order, int ranks, double& guess, MicroBatch& out) const {
    std::size_t most = 1;
    for (double left = ranks * budget_bytes_ - item(order[0]).memory_bytes; most < order.size(); ++most) {
      left -= item(order[most]).memory_bytes;
      if (left < 0.0) break;
    }
    // A sequence alone may need more than the share, never more than the cluster.
    pack(order.first(1), cluster_.ranks(), out);
    std::size_t low = 1;          // fits, and is packed in `out`
    std::size_t high = most + 1;  // does not fit
    std::size_t probe = std::clamp<std::size_t>(static_cast<std::size_t>(guess * static_cast<double>(most)), 1, most);
    MicroBatch scratch;
    for (std::size_t up = 1, down = 1; low + 1 < high;) {
      if (probe <= low || probe >= high) probe = low + (high - low) / 2;
      if (pack(order.first(probe), ranks, scratch)) {
        std::swap(out, scratch);
        low = probe;
        probe += std::exchange(up, up * 2);
      } else {
        high = probe;
        probe -= std::min(probe, std::exchange(down, down * 2));
      }
    }
    guess = static_cast<double>(low) / static_cast<double>(most);
  }

  /// Degrees for groups at the best place there is, then places, then the true time there.
  void share_ranks(MicroBatch& micro_batch) const {
    const std::vector<Bin>& bins = micro_batch.packing.bins;
    std::vector<DegreeLimits> limits;
    limits.reserve(bins.size());
    for (const Bin& bin : bins) limits.push_back({bin.min_degree, bin.max_degree});
    const auto seconds_of = [&](int bin, int degree) {
      return seconds(bins[static_cast<std::size_t>(bin)], shapes_[static_cast<std::size_t>(degree) - 1]);
    };
    micro_batch.degrees = allocate_degrees(limits, cluster_.ranks(), seconds_of).value().degrees;
    const auto straddled_s = [&](int bin) {
      const int degree = micro_batch.degrees[static_cast<std::size_t>(bin)];
      return seconds(bins[static_cast<std::size_t>(bin)],
                     consecutive_shape(cluster_, cluster_.ranks_per_node - degree / 2, degree));
    };
    micro_batch.first = place_consecutive(micro_batch.degrees, cluster_, straddled_s);
    for (std::size_t bin = 0; bin < bins.size(); ++bin) {
      const GroupShape shape = consecutive_shape(cluster_, micro_batch.first[bin], micro_batch.degrees[bin]);
      micro_batch.seconds = std::max(micro_batch.seconds, seconds(bins[bin], shape));
    }
  }

  double seconds(const Bin& bin, const GroupShape& shape) const {
    return task_seconds(cost_, cluster_, bin.load, shape, Exchange::ring);
  }

  Plan to_plan(const std::vector<MicroBatch>& micro_batches) const {
    Plan plan;
    plan.schedule = Schedule::lockstep;
    for (std::size_t number = 0; number < micro_batches.size(); ++number) {
      append_tasks(micro_batches[number], static_cast<int>(number), plan);
    }
    return plan;
  }

  /// In the order of their ranks.
  void append_tasks(const MicroBatch& micro_batch, int number, Plan& plan) const {
    std::vector<Task> tasks(micro_batch.packing.bins.size());
    for (std::size_t bin = 0; bin < tasks.size(); ++bin) {
      tasks[bin].micro_batch = number;
      tasks[bin].ranks.resize(static_cast<std::size_t>(micro_batch.degrees[bin]));
      std::iota(tasks[bin].ranks.begin(), tasks[bin].ranks.end(), micro_batch.first[bin]);
    }
    for (std::size_t i = 0; i < micro_batch.items.size(); ++i) {
      const auto bin = static_cast<std::size_t>(micro_batch.packing.bin_of[i]);
      tasks[bin].sequences.push_back(item(micro_batch.items[i]).sequence.id);
    }
    std::sort(tasks.begin(), tasks.end(),
              [](const Task& a, const Task& b) { return a.ranks.front() < b.ranks.front(); });
    for (Task& task : tasks) {
      task.id = static_cast<int>(plan.tasks.size());
      plan.tasks.push_back(std::move(task));
    }
  }

  const Cluster& cluster_;
  const CostModel& cost_;
  double budget_bytes_;
  std::vector<Item> items_;  // by falling memory
  double total_work_s_ = 0.0;
  std::vector<GroupShape> shapes_;  // by degree - 1, from the start of a node
};

}  // namespace

PlanResult plan_paper(const Batch& batch, const Limits& limits, const PlanOptions& options,
                      std::optional<int> /*argument*/) {
  return PaperPlanner(batch, limits.cluster(), limits.cost(), options.min_shard_tokens).plan();
}

}  // namespace dhp
