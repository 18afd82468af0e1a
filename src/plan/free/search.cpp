#include "plan/free/search.h"
#include "base/number_limits.h"
#include "base/random.h"

#include <algorithm>

namespace dhp::plan {
namespace {

// Found by trial on bench/cases with build/release/bench/plan_quality; the results move little around these values.
constexpr double kReached = 1e-6;         // of the bound: as good as it gets
constexpr double kFarOff = 1.02;          // times the target: something stands out that can be relieved
constexpr double kWorthwhile = 2e-5;      // of the makespan: smaller gains are not looked for
constexpr int kLevelSteps = 200;          // swaps that level the ends of ranks, at most
constexpr std::int64_t kTicksOfSeed = 2;  // an item

// A task may take at most so much of the bound: longer ones get more ranks. Short tasks end more evenly and hide more
// of their transfers or less; which share is best depends on the data.
constexpr double kLongestTask[] = {kInfinity, 1.4, 1.15, 1.0, 0.7, 0.5, 0.35, 0.25, 0.2};
constexpr int kRoundings = 3;  // of degrees wider than a node: none, whole nodes, an even share of the ranks

static_assert(std::size(kLongestTask) * kRoundings == CellSearch::kKinds);

}  // namespace

CellSearch::CellSearch(const FreeCell& cell, std::vector<SearchItem> items, double bound_s)
    : cell_(cell),
      items_(std::move(items)),
      bound_s_(bound_s),
      best_s_(kInfinity),
      placer_(cell),
      filler_(cell.model(), cell.lanes(), items_, false) {
  least_s_.reserve(items_.size());
  for (const SearchItem& item : items_) {
    least_s_.push_back(cell_.best_seconds(item, item.min_degree));
    longest_least_s_ = std::max(longest_least_s_, least_s_.back());
  }
}

/// The smallest degree at which the item takes at most so long; where there is none, the one at which it is quickest.
int CellSearch::degree_within(std::size_t which, double longest_task_s) const {
  const SearchItem& item = items_[which];
  int best = item.min_degree;
  double best_s = least_s_[which];
  const int widest = std::min(item.max_degree, cell_.widest());
  for (int degree = best + 1; degree <= widest && best_s > longest_task_s; ++degree) {
    if (!cell_.model().limits().allows(degree)) continue;
    const double seconds = cell_.best_seconds(item, degree);
    if (seconds >= best_s) continue;
    best = degree;
    best_s = seconds;
  }
  return best;
}

int CellSearch::round_degree(int degree, int rounding, const SearchItem& item) const {
  const int node = cell_.largest_pool();
  if (rounding == 0 || degree <= node) return degree;
  int rounded = rounding == 1 ? (degree + node - 1) / node * node : cell_.ranks() / (cell_.ranks() / degree);
  rounded = std::min({rounded, item.max_degree, cell_.widest()});
  return rounded >= degree && cell_.model().limits().allows(rounded) ? rounded : degree;
}

/// No plan with these degrees ends earlier: rank time of all tasks, and the longest one.
double CellSearch::floor_s(const FreeCandidate& candidate) const {
  double area = 0.0;
  double need = 0.0;
  double longest = 0.0;
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const int degree = candidate.degrees[i];
    if (degree == 1) {
      area += items_[i].alone_s;
      need += cell_.model().need(items_[i]);
      continue;
    }
    const bool least = degree == items_[i].min_degree;
    const double seconds = least ? least_s_[i] : cell_.best_seconds(items_[i], degree);
    area += degree * seconds * cell_.top_speed();
    longest = std::max(longest, seconds);
  }
  return std::max((area + need * cell_.model().pack_s()) / cell_.total_speed(), longest);
}

/// Widest first, long before short.
void CellSearch::sort_order(FreeCandidate& candidate) const {
  std::sort(candidate.order.begin(), candidate.order.end(), [&](std::int32_t a, std::int32_t b) {
    const int degree_a = candidate.degrees[index(a)];
    const int degree_b = candidate.degrees[index(b)];
    return degree_a != degree_b ? degree_a > degree_b : a < b;
  });
}

FreeCandidate CellSearch::seed(int kind) const {
  const double longest_task_s = kLongestTask[index(kind) / kRoundings] * bound_s_;
  FreeCandidate seed;
  seed.kind = kind;
  seed.degrees.reserve(items_.size());
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const int degree = round_degree(degree_within(i, longest_task_s), kind % kRoundings, items_[i]);
    seed.degrees.push_back(degree);
    if (degree > 1) seed.order.push_back(static_cast<std::int32_t>(i));
  }
  sort_order(seed);
  seed.target_s = floor_s(seed);
  return seed;
}

void CellSearch::make_seeds() {
  seeded_ = true;
  for (int kind = 0; kind < kKinds; ++kind) {
    // Where no task is so long, the kind equals the first.
    if (kind >= kRoundings && longest_least_s_ <= kLongestTask[kind / kRoundings] * bound_s_) continue;
    ticks_ += kTicksOfSeed * std::ssize(items_);
    FreeCandidate made = seed(kind);
    const bool known = std::any_of(seeds_.begin(), seeds_.end(),
                                   [&](const FreeCandidate& other) { return other.degrees == made.degrees; });
    if (!known) seeds_.push_back(std::move(made));
  }
  std::stable_sort(seeds_.begin(), seeds_.end(),
                   [](const FreeCandidate& a, const FreeCandidate& b) { return a.target_s < b.target_s; });
}

void CellSearch::try_kind(int kind, double enough_s) {
  most_seeds_ = 1;
  ticks_ += kTicksOfSeed * std::ssize(items_);
  try_candidate(seed(kind), enough_s);
}

double CellSearch::build(const FreeCandidate& candidate, double limit_s, double enough_s) {
  best_is_built_ = false;
  alone_.clear();
  for (std::size_t i = 0; i < items_.size(); ++i) {
    if (candidate.degrees[i] == 1) alone_.push_back(static_cast<std::int32_t>(i));
  }
  const double shortest = alone_.empty() ? 0.0 : items_[index(alone_.back())].alone_s + cell_.model().pack_s();
  placer_.start(candidate.target_s, shortest);
  for (const std::int32_t which : candidate.order) {
    placer_.place(items_[index(which)], which, candidate.degrees[index(which)]);
    if (placer_.last_end_s() >= limit_s) return kInfinity;
  }
  if (filler_.fill(alone_, placer_.ready_s(), placer_.holes()) * (1.0 + kWorthwhile) >= limit_s) return kInfinity;
  return filler_.level(kLevelSteps, enough_s);
}

void CellSearch::try_candidate(const FreeCandidate& candidate, double enough_s) {
  const double seconds = build(candidate, best_s_, enough_s);
  if (seconds >= best_s_) return;
  best_s_ = seconds;
  best_ = candidate;
  enough_s_ = enough_s;
  best_is_built_ = true;
  last_item_ = find_last_item();
  reliefs_tried_ = 0;
}

/// The item to relieve the rank that ends last of: the longest that it runs alone behind its groups, else its last
/// group's.
std::int32_t CellSearch::find_last_item() const {
  const int rank = filler_.last_rank();
  if (!filler_.tail(rank).empty()) return filler_.tail(rank).front();
  std::int32_t last = -1;
  for (const FreeGroup& group : placer_.groups()) {
    const int* members = placer_.members().data() + group.first_member;
    if (std::find(members, members + group.degree, rank) != members + group.degree) last = group.item;
  }
  return last;
}

void CellSearch::set_degree(FreeCandidate& candidate, std::int32_t which, int degree) const {
  const SearchItem& item = items_[index(which)];
  degree = std::min({std::max(degree, item.min_degree), item.max_degree, cell_.widest()});
  degree = cell_.model().limits().next_allowed(degree);
  if (degree == 0 || degree > std::min(item.max_degree, cell_.widest())) return;
  int& current = candidate.degrees[index(which)];
  auto& order = candidate.order;
  if (degree == 1 && current > 1) order.erase(std::find(order.begin(), order.end(), which));
  if (degree > 1 && current == 1) {
    const auto wider = [&](std::int32_t other) { return candidate.degrees[index(other)] > degree; };
    order.insert(std::find_if_not(order.begin(), order.end(), wider), which);
  }
  current = degree;
}

/// More ranks for what ends last: all of them, twice as many, a node, one more.
void CellSearch::relieve_last(FreeCandidate& candidate, std::uint64_t way) const {
  const int degree = candidate.degrees[index(last_item_)];
  const int wider[kReliefs] = {cell_.ranks(), 2 * degree, cell_.largest_pool(), degree + 1};
  set_degree(candidate, last_item_, wider[way]);
}

/// The same numbers everywhere: SplitMix64, whose state grows by this step from one number to the next.
std::uint64_t CellSearch::random(std::uint64_t below) {
  constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15U;
  return splitmix64(changes_++ * kStep) % below;
}

void CellSearch::change_degree(FreeCandidate& candidate) {
  constexpr std::uint64_t kMostStep = 3;
  const std::int32_t which = candidate.order[random(candidate.order.size())];
  const int step = static_cast<int>(random(kMostStep)) + 1;
  set_degree(candidate, which, candidate.degrees[index(which)] + (random(2) == 0 ? step : -step));
}

FreeCandidate CellSearch::changed() {
  constexpr double kTighter[] = {0.985, 0.995};  // than the best so far
  constexpr std::uint64_t kMostChanges = 3;
  FreeCandidate candidate = best_;
  candidate.target_s = best_s_ * kTighter[random(2)];
  for (std::uint64_t left = 1 + random(kMostChanges); left > 0; --left) {
    const std::uint64_t choice = random(8);
    if (choice == 0 && last_item_ >= 0) {
      relieve_last(candidate, random(kReliefs));
    } else if (candidate.order.empty()) {
      continue;
    } else if (choice < 5) {
      change_degree(candidate);
    } else {
      std::swap(candidate.order[random(candidate.order.size())], candidate.order[random(candidate.order.size())]);
    }
  }
  return candidate;
}

void CellSearch::search(std::int64_t ticks) {
  const std::int64_t end = this->ticks() + ticks;
  while (!finished_ && (this->ticks() < end || best_.degrees.empty())) {
    const bool far_off = last_item_ >= 0 && best_s_ > best_.target_s * kFarOff;
    if (far_off && reliefs_tried_ < kReliefs) {
      FreeCandidate candidate = best_;
      relieve_last(candidate, reliefs_tried_++);
      try_candidate(candidate, 0.0);
      continue;
    }
    if (!seeded_) make_seeds();
    try_candidate(next_seed_ < std::min(seeds_.size(), most_seeds_) ? seeds_[next_seed_++] : changed(), 0.0);
    const double hoped_s = std::max(bound_s_ * (1.0 + kReached), seeds_.front().target_s * (1.0 + kWorthwhile));
    finished_ = best_s_ <= hoped_s;
  }
}

void CellSearch::append_to(std::vector<Task>& tasks) {
  if (!best_is_built_) build(best_, kInfinity, enough_s_);
  const AlonePacks alone = filler_.packs();
  const std::vector<FreeGroup>& groups = placer_.groups();
  // Groups first, then packs, both by number.
  std::vector<std::pair<double, std::size_t>> by_start;
  by_start.reserve(groups.size() + alone.packs.size());
  for (const FreeGroup& group : groups) by_start.emplace_back(group.start_s, by_start.size());
  for (const AlonePack& pack : alone.packs) by_start.emplace_back(pack.start_s, by_start.size());
  std::sort(by_start.begin(), by_start.end());
  const auto rank_of = [&](int rank) { return cell_.model().limits().live()[index(cell_.first_position() + rank)]; };
  const auto id_of = [&](std::int32_t which) { return items_[index(which)].id; };
  for (const auto& [start_s, number] : by_start) {
    Task& task = tasks.emplace_back();
    if (number < groups.size()) {
      const FreeGroup& group = groups[number];
      task.ranks.reserve(index(group.degree));
      for (int i = 0; i < group.degree; ++i) {
        task.ranks.push_back(rank_of(placer_.members()[index(group.first_member + i)]));
      }
      std::sort(task.ranks.begin(), task.ranks.end());
      task.sequences.assign(1, id_of(group.item));
      task.exchange = group.exchange;
    } else {
      const AlonePack& pack = alone.packs[number - groups.size()];
      task.ranks.assign(1, rank_of(pack.rank));
      task.sequences.reserve(pack.count);
      for (std::size_t i = 0; i < pack.count; ++i) task.sequences.push_back(id_of(alone.items[pack.first + i]));
    }
  }
}

}  // namespace dhp::plan
