#include <algorithm>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/number_limits.h"
#include "plan/peers/allocate.h"
#include "plan/peers/blocks.h"
#include "plan/peers/pack.h"
#include "plan/peers/peers.h"
#include "plan/peers/place.h"

namespace dhp::plan {
namespace {

/// How full micro-batches are made: the share of the ranks that their bins' minimum degrees may take. 1 gives the
/// fewest micro-batches that memory allows and the least overhead; 1/2 gives about twice as many, whose bins have twice
/// their minimum degree to share. These six, in both orders, come within 0.5 % (geometric mean) of every count tried.
constexpr double kShares[] = {1.0, 7.0 / 8, 3.0 / 4, 1.0 / 2, 1.0 / 4, 1.0 / 8};

constexpr const char* kIdleRanks =
    "no number of micro-batches tried gives every rank a task in each: sequences are too few or too short for the "
    "degrees and shards allowed";

using Indices = std::vector<std::int32_t>;  // of items

/// Sequences that run at once, each bin on ranks of its own.
struct MicroBatch {
  Indices items;  ///< by falling memory
  Packing packing;
  std::vector<int> block_of;  ///< one a bin
  std::vector<int> degrees;   ///< one a bin
  std::vector<int> first;     ///< one a bin: it has the positions first, first + 1, … of Limits::live()
  double seconds = 0.0;       ///< of its slowest bin; infinite if the options are broken
};

/// What the search for a micro-batch uses again.
struct Search {
  using Place = std::pair<std::int32_t, std::int32_t>;  ///< of an item: its index, and where it stands in the order

  BestFit best_fit;
  MicroBatch tried = {};
  std::vector<Place> beginning = {};  ///< of an order, by index
};

class PaperPlanner {
 public:
  PaperPlanner(const Batch& batch, const Limits& limits, bool no_idle_ranks)
      : limits_(limits),
        cluster_(limits.cluster()),
        cost_(limits.cost()),
        no_idle_ranks_(no_idle_ranks),
        items_(make_items(batch, limits)),
        blocks_(make_blocks(limits)) {
    for (const Item& one : items_) total_work_s_ += work_s(one);
    for (const Rank rank : limits.live()) quickest_ = std::max(quickest_, cluster_.speed_of(rank));
    for (int degree = 1; degree <= limits.ranks(); ++degree) shapes_.push_back(nominal_shape(0, degree));
  }

  PlanResult plan() const {
    Search search{{items_, limits_}};
    std::vector<MicroBatch> best;
    double best_s = kInfinity;
    // By length first: it wins more often, and a good plan early cuts the rest short.
    for (const Indices& order : {by_length(), in_order()}) {
      int last_ranks = 0;
      for (const double share : kShares) {
        const int ranks = std::max(1, static_cast<int>(limits_.ranks() * share));
        if (ranks == last_ranks) continue;
        last_ranks = ranks;
        std::vector<MicroBatch> candidate;
        const double seconds = fill_micro_batches(order, ranks, best_s, search, candidate);
        if (seconds >= best_s) continue;
        best = std::move(candidate);
        best_s = seconds;
      }
    }
    if (best.empty()) return Infeasible{.reason = kIdleRanks, .sequence = {}};
    return to_plan(best);
  }

 private:
  const Item& item(std::int32_t index) const { return items_[static_cast<std::size_t>(index)]; }

  /// Seconds that the item takes at least of a micro-batch: its work, without any overhead, shared by all ranks.
  double work_s(const Item& one) const {
    const auto tokens = static_cast<double>(one.sequence.tokens);
    const double token_s = cost_.forward.token_s + cost_.backward.token_s;
    const double pair_s = cost_.forward.pair_s + cost_.backward.pair_s;
    const double vision_s = vision_seconds(cost_, load_of(std::span(&one.sequence, 1))).work_s;
    return (token_s * tokens + pair_s * tokens * tokens / 2 + vision_s) / limits_.ranks();
  }

  /// Of `degree` consecutive ranks from `first` on, were they all in service and as quick as the quickest: what the
  /// paper's estimate knows. Slow ranks are only met where groups stand.
  GroupShape nominal_shape(Rank first, int degree) const {
    GroupShape shape = consecutive_shape(cluster_, first, degree);
    shape.speed = quickest_;
    return shape;
  }

  Indices in_order() const {
    Indices order(items_.size());
    for (std::size_t i = 0; i < items_.size(); ++i) {
      order[static_cast<std::size_t>(items_[i].position)] = static_cast<std::int32_t>(i);
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
  double fill_micro_batches(std::span<const std::int32_t> order, int ranks, double limit_s, Search& search,
                            std::vector<MicroBatch>& out) const {
    double total_s = 0.0;
    double left_s = total_work_s_;
    double guess = 1.0;
    while (!order.empty() && total_s + left_s < limit_s) {
      MicroBatch& micro_batch = out.emplace_back();
      pack_longest_fit(order, ranks, guess, search, micro_batch);
      share_ranks(micro_batch);
      total_s += micro_batch.seconds;
      for (const std::int32_t index : micro_batch.items) left_s -= work_s(item(index));
      order = order.subspan(micro_batch.items.size());
    }
    return order.empty() ? total_s : limit_s;
  }

  /// Whether the items of `out` fit `ranks`, packed and dealt to blocks.
  bool pack(int ranks, BestFit& best_fit, MicroBatch& out) const {
    if (best_fit.pack(out.items, ranks, out.packing) < out.items.size()) return false;
    out.block_of.assign(out.packing.bins.size(), 0);
    if (!limits_.confined()) return true;
    std::vector<Demand> demands;
    demands.reserve(out.packing.bins.size());
    for (const Bin& bin : out.packing.bins) {
      demands.push_back({bin.min_degree, bin.min_degree * seconds(bin, bin.min_degree)});
    }
    auto dealt = deal_to_blocks(demands, blocks_);
    if (!dealt) return false;
    out.block_of = std::move(*dealt);
    return true;
  }

  /// Packs the longest beginning of the order, one item at least, that fits `ranks`. `guess` is the share of what
  /// memory alone would hold: of the micro-batch before, then of this one.
  void pack_longest_fit(std::span<const std::int32_t> order, int ranks, double& guess, Search& search,
                        MicroBatch& out) const {
    std::size_t most = 1;
    for (double left = ranks * limits_.budget_bytes() - item(order[0]).memory_bytes; most < order.size(); ++most) {
      left -= item(order[most]).memory_bytes;
      if (left < 0.0) break;
    }
    order = order.first(most);
    // A sequence alone may need more than the share, never more than the cluster.
    out.items.assign(1, order[0]);
    pack(limits_.ranks(), search.best_fit, out);
    if (std::is_sorted(order.begin(), order.end()) && !limits_.confined()) {
      pack_by_memory(order, ranks, search, out);
    } else {
      search_longest_fit(order, ranks, guess, search, out);
    }
    guess = static_cast<double>(out.items.size()) / static_cast<double>(most);
  }

  /// For an order by falling memory: the whole is packed by way of all its beginnings.
  void pack_by_memory(std::span<const std::int32_t> order, int ranks, Search& search, MicroBatch& out) const {
    MicroBatch& tried = search.tried;
    tried.items.assign(order.begin(), order.end());
    tried.items.resize(search.best_fit.pack(tried.items, ranks, tried.packing));
    if (tried.items.size() <= 1) return;
    tried.block_of.assign(tried.packing.bins.size(), 0);
    std::swap(out, tried);
  }

  /// For any order: tries beginnings, wider and wider from the guess, then halving. `out` has the first item.
  void search_longest_fit(std::span<const std::int32_t> order, int ranks, double guess, Search& search,
                          MicroBatch& out) const {
    const std::size_t most = order.size();
    std::size_t low = 1;          // fits, and is packed in `out`
    std::size_t high = most + 1;  // does not fit
    std::size_t probe = std::clamp<std::size_t>(static_cast<std::size_t>(guess * static_cast<double>(most)), 1, most);
    search.beginning.clear();
    for (std::size_t up = 1, down = 1; low + 1 < high;) {
      if (probe <= low || probe >= high) probe = low + (high - low) / 2;
      choose(order, probe, search);
      if (pack(ranks, search.best_fit, search.tried)) {
        std::swap(out, search.tried);
        low = probe;
        probe += std::exchange(up, up * 2);
      } else {
        high = probe;
        probe -= std::min(probe, std::exchange(down, down * 2));
      }
    }
  }

  /// Makes the first `count` of the order, by falling memory, the items that are tried.
  static void choose(std::span<const std::int32_t> order, std::size_t count, Search& search) {
    std::vector<Search::Place>& sorted = search.beginning;
    if (sorted.size() < count) {
      // Some more, so that most tries need no sort of their own.
      sorted.resize(std::min(order.size(), 2 * count));
      for (std::size_t at = 0; at < sorted.size(); ++at) sorted[at] = {order[at], static_cast<std::int32_t>(at)};
      std::sort(sorted.begin(), sorted.end());
    }
    Indices& items = search.tried.items;
    items.resize(count + 1);  // what is not chosen is written behind, and overwritten
    std::size_t chosen = 0;
    for (const auto& [item, at] : sorted) {
      items[chosen] = item;
      chosen += static_cast<std::size_t>(at) < count ? 1 : 0;
    }
    items.resize(count);
  }

  /// Degrees for groups at the best place there is, then places, then the true time there; block by block.
  void share_ranks(MicroBatch& micro_batch) const {
    const std::size_t bins = micro_batch.packing.bins.size();
    micro_batch.degrees.assign(bins, 0);
    micro_batch.first.assign(bins, 0);
    std::vector<int> members;
    for (std::size_t block = 0; block < blocks_.size(); ++block) {
      members.clear();
      for (std::size_t bin = 0; bin < bins; ++bin) {
        if (micro_batch.block_of[bin] == static_cast<int>(block)) members.push_back(static_cast<int>(bin));
      }
      share_block(blocks_[block], members, micro_batch);
    }
  }

  void share_block(const Block& block, std::span<const int> members, MicroBatch& micro_batch) const {
    const auto bin_of = [&](int member) -> const Bin& {
      return micro_batch.packing.bins[static_cast<std::size_t>(members[static_cast<std::size_t>(member)])];
    };
    std::vector<DegreeLimits> degree_limits;
    degree_limits.reserve(members.size());
    for (int member = 0; member < std::ssize(members); ++member) {
      degree_limits.push_back({bin_of(member).min_degree, bin_of(member).max_degree});
    }
    const auto seconds_of = [&](int member, int degree) { return seconds(bin_of(member), degree); };
    std::vector<int> degrees = allocate_degrees(degree_limits, block.size, seconds_of).value().degrees;
    if (no_idle_ranks_ && !use_idle_ranks(degree_limits, block.size, seconds_of, degrees)) {
      micro_batch.seconds = kInfinity;
    }
    const auto straddled_s = [&](int member) {
      const int degree = degrees[static_cast<std::size_t>(member)];
      const GroupShape shape = nominal_shape(cluster_.ranks_per_node - degree / 2, degree);
      return seconds(bin_of(member), shape, limits_.exchange_for(shape));
    };
    const std::vector<int> first = place_consecutive(degrees, block.node_begins, straddled_s);
    for (std::size_t member = 0; member < members.size(); ++member) {
      const auto bin = static_cast<std::size_t>(members[member]);
      micro_batch.degrees[bin] = degrees[member];
      micro_batch.first[bin] = block.begin + first[member];
      const GroupShape shape = limits_.consecutive_shape(micro_batch.first[bin], degrees[member]);
      const double true_s = seconds(micro_batch.packing.bins[bin], shape, limits_.exchange_for(shape));
      micro_batch.seconds = std::max(micro_batch.seconds, true_s);
    }
  }

  /// Widens groups until no rank is left, where that costs least. False if no group can be widened any more.
  bool use_idle_ranks(std::span<const DegreeLimits> degree_limits, int ranks, const SecondsOf& seconds_of,
                      std::vector<int>& degrees) const {
    int left = ranks - std::accumulate(degrees.begin(), degrees.end(), 0);
    while (left > 0) {
      int best = -1;
      double best_s = kInfinity;
      for (int member = 0; member < std::ssize(degrees); ++member) {
        const auto at = static_cast<std::size_t>(member);
        const int wider = limits_.next_allowed(degrees[at] + 1);
        if (wider == 0 || wider > std::min(degree_limits[at].max, degrees[at] + left)) continue;
        const double wider_s = seconds_of(member, wider);
        if (wider_s >= best_s) continue;
        best = member;
        best_s = wider_s;
      }
      if (best < 0) return false;
      int& degree = degrees[static_cast<std::size_t>(best)];
      left -= limits_.next_allowed(degree + 1) - degree;
      degree = limits_.next_allowed(degree + 1);
    }
    return true;
  }

  /// Estimate for a degree; infinite for one that is not allowed.
  double seconds(const Bin& bin, int degree) const {
    if (!limits_.allows(degree)) return kInfinity;
    const GroupShape& shape = shapes_[static_cast<std::size_t>(degree) - 1];
    return seconds(bin, shape, limits_.exchange_for(shape));
  }
  double seconds(const Bin& bin, const GroupShape& shape, Exchange exchange) const {
    return task_seconds(cost_, cluster_, bin.load, shape, exchange);
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
      const int first = micro_batch.first[bin];
      const int degree = micro_batch.degrees[bin];
      tasks[bin].micro_batch = number;
      tasks[bin].ranks = limits_.consecutive_ranks(first, degree);
      tasks[bin].exchange = limits_.exchange_for(limits_.consecutive_shape(first, degree));
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

  const Limits& limits_;
  const Cluster& cluster_;
  const CostModel& cost_;
  bool no_idle_ranks_;
  std::vector<Item> items_;  // by falling memory
  std::vector<Block> blocks_;
  double total_work_s_ = 0.0;
  double quickest_ = 0.0;           // speed of the quickest rank
  std::vector<GroupShape> shapes_;  // by degree - 1, from the start of a node
};

}  // namespace

PlanResult plan_paper(const Batch& batch, const Limits& limits, const PlanOptions& options,
                      std::optional<int> /*argument*/) {
  return PaperPlanner(batch, limits, options.no_idle_ranks).plan();
}

}  // namespace dhp::plan
