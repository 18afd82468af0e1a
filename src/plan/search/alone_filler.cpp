#include "plan/search/alone_filler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/number_limits.h"
#include "plan/search/idle_bins.h"

namespace dhp::plan {
namespace {

// Found by trial on bench/cases with build/release/bench/plan_quality; the results move little around these values.
constexpr int kMostTries = 8;           // at items that fit a hole's time but not the memory of its pack
constexpr double kGoodEnough = 0.35;    // of the distance between two ends: a swap that wins so much is taken at once
constexpr std::size_t kMostRanks = 32;  // that a rank may exchange with, the earliest first
constexpr std::size_t kMostMoves = 6;   // kept for when no swap is good enough
constexpr double kLevel = 1e-5;         // of the mean end: as level as it need be
constexpr double kNothing = 1e-9;       // of the mean end: no gain

}  // namespace

AloneFiller::AloneFiller(const SearchModel& model, const Lanes& ranks, std::span<const SearchItem> items, bool one_pack)
    : model_(model), ranks_(ranks), items_(items), one_pack_(one_pack) {
  tails_.resize(index(ranks.count()));
  end_s_.resize(index(ranks.count()));
}

double AloneFiller::fill(std::span<const std::int32_t> alone, std::span<const double> ready_s,
                         std::span<const Hole> holes) {
  in_holes_.packs.clear();
  in_holes_.items.clear();
  next_.resize(alone.size() + 1);
  std::iota(next_.begin(), next_.end(), 0);
  for (int rank = 0; rank < ranks_.count(); ++rank) {
    Tail& tail = tails_[index(rank)];
    tail.ready_s = end_s_[index(rank)] = ready_s[index(rank)];
    tail.sum_s = 0.0;
    tail.items.clear();
    tail.packs.clear();
  }
  holes_.assign(holes.begin(), holes.end());
  ticks_ += 10 * (std::ssize(alone) + std::ssize(holes_) + std::ssize(ranks_.speed));
  if (!alone.empty()) fill_holes(alone, holes_);
  if (!fill_tails(alone)) return kInfinity;
  mean_end_s_ = 0.0;
  for (int rank = 0; rank < ranks_.count(); ++rank) mean_end_s_ += end_s_[index(rank)] * speed(rank);
  mean_end_s_ /= ranks_.total_speed;
  return mean_end_s_;
}

/// The first position at or after this one whose item is not placed; the number of items if there is none.
int AloneFiller::unplaced_from(int position) {
  while (next_[index(position)] != position) {
    next_[index(position)] = next_[index(next_[index(position)])];
    position = next_[index(position)];
  }
  return position;
}

/// Largest hole first, so that large items find room.
void AloneFiller::fill_holes(std::span<const std::int32_t> alone, std::vector<Hole>& holes) {
  std::sort(holes.begin(), holes.end(), [](const Hole& a, const Hole& b) {
    if (a.seconds != b.seconds) return a.seconds > b.seconds;
    return a.begin_s != b.begin_s ? a.begin_s < b.begin_s : a.rank < b.rank;
  });
  const double shortest = items_[index(alone.back())].alone_s + model_.pack_s();
  for (const Hole& hole : holes) {
    if (hole.seconds * speed(hole.rank) >= shortest) fill_hole(alone, hole);
  }
}

/// Position of the longest unplaced item that takes at most `room_s` and fits the pack.
int AloneFiller::first_that_fits(std::span<const std::int32_t> alone, double room_s, const Room* pack) {
  const auto first = std::partition_point(alone.begin(), alone.end(),
                                          [&](std::int32_t item) { return items_[index(item)].alone_s > room_s; });
  const int count = static_cast<int>(alone.size());
  int position = unplaced_from(static_cast<int>(first - alone.begin()));
  if (pack == nullptr) return position;
  for (int looks = 0; position < count && looks < kMostTries; ++looks) {
    const SearchItem& item = items_[index(alone[index(position)])];
    if (model_.holds(pack->tokens + item.tokens, pack->patches + item.patches)) return position;
    position = unplaced_from(position + 1);
  }
  return count;
}

/// Longest fitting item first; further ones join its pack, or open one of their own.
void AloneFiller::fill_hole(std::span<const std::int32_t> alone, const Hole& hole) {
  const int count = static_cast<int>(alone.size());
  double left_s = hole.seconds * speed(hole.rank);
  Room room;
  Room* pack = nullptr;
  while (true) {
    int position = pack == nullptr ? count : first_that_fits(alone, left_s, pack);
    if (position == count) {
      pack = nullptr;
      left_s -= model_.pack_s();
      position = first_that_fits(alone, left_s, nullptr);
      if (left_s <= 0.0 || position == count) return;
      room = {};
      pack = &room;
      in_holes_.packs.push_back({hole.rank, hole.begin_s, in_holes_.items.size(), 0});
    }
    const std::int32_t which = alone[index(position)];
    pack->tokens += items_[index(which)].tokens;
    pack->patches += items_[index(which)].patches;
    in_holes_.items.push_back(which);
    ++in_holes_.packs.back().count;
    left_s -= items_[index(which)].alone_s;
    next_[index(position)] = position + 1;
  }
}

/// Adds the item to the fullest pack that holds it, or to a new one. Returns the pack's number.
std::size_t AloneFiller::put(Rooms& rooms, const SearchItem& item) const {
  // Packs too full even if they had no patches come first.
  auto pack = std::partition_point(rooms.begin(), rooms.end(), [&](const Room& room) {
    return !model_.holds(room.tokens + item.tokens, item.patches);
  });
  while (pack != rooms.end() && !model_.holds(pack->tokens + item.tokens, pack->patches + item.patches)) ++pack;
  Room grown{item.tokens, item.patches, rooms.size()};
  if (pack == rooms.end()) {
    pack = rooms.insert(pack, grown);
  } else {
    grown = {pack->tokens + item.tokens, pack->patches + item.patches, pack->number};
  }
  const auto fuller = [&](const Room& other) {
    return other.tokens != grown.tokens ? other.tokens > grown.tokens : other.number < grown.number;
  };
  const auto place = std::partition_point(rooms.begin(), pack, fuller);
  std::move_backward(place, pack, pack + 1);
  *place = grown;
  return grown.number;
}

/// Adds the item to the rank's packs. Returns when the rank ends then.
double AloneFiller::add_to_tail(int rank, std::int32_t which) {
  const SearchItem& item = items_[index(which)];
  Tail& tail = tails_[index(rank)];
  double seconds = item.alone_s;
  const std::size_t packs = tail.packs.size();
  if (put(tail.packs, item) == packs) seconds += model_.pack_s();
  tail.items.push_back(which);
  tail.sum_s += item.alone_s;
  return end_s_[index(rank)] + seconds / speed(rank);
}

/// The same as fill_tails() for many ranks, where a look at all of them for every item would take long.
bool AloneFiller::fill_many_tails(std::span<const std::int32_t> alone) {
  IdleBins bins(model_, ranks_, end_s_, one_pack_);
  const int count = static_cast<int>(alone.size());
  for (int position = unplaced_from(0); position < count; position = unplaced_from(position + 1)) {
    const std::int32_t which = alone[index(position)];
    const int rank = bins.find(items_[index(which)]);
    if (rank < 0) return false;
    end_s_[index(rank)] = add_to_tail(rank, which);
    bins.put(rank, items_[index(which)], end_s_[index(rank)]);
  }
  return true;
}

/// Longest item first, to the rank that is free first.
bool AloneFiller::fill_tails(std::span<const std::int32_t> alone) {
  constexpr int kMany = 512;
  if (ranks_.count() > kMany && (one_pack_ || !ranks_.uniform)) return fill_many_tails(alone);
  const auto later = [&](int a, int b) {
    return end_s_[index(a)] != end_s_[index(b)] ? end_s_[index(a)] > end_s_[index(b)] : a > b;
  };
  heap_.resize(index(ranks_.count()));
  std::iota(heap_.begin(), heap_.end(), 0);
  std::make_heap(heap_.begin(), heap_.end(), later);
  const int count = static_cast<int>(alone.size());
  for (int position = unplaced_from(0); position < count; position = unplaced_from(position + 1)) {
    const std::int32_t which = alone[index(position)];
    const int rank = choose_rank(items_[index(which)]);
    if (rank < 0) return false;
    raise_end(rank, add_to_tail(rank, which));
  }
  return true;
}

/// The first that is free, or would end first; of those that can take the item where a rank runs one task only. -1:
/// none.
int AloneFiller::choose_rank(const SearchItem& item) {
  const auto takes = [&](int rank) {
    const std::vector<Room>& packs = tails_[index(rank)].packs;
    return !one_pack_ || packs.empty() || model_.holds(packs[0].tokens + item.tokens, packs[0].patches + item.patches);
  };
  if (ranks_.uniform && takes(heap_.front())) return heap_.front();
  const auto end_with = [&](int rank) { return end_s_[index(rank)] + item.alone_s / speed(rank); };
  int best = -1;
  for (int rank = 0; rank < ranks_.count(); ++rank) {
    if (takes(rank) && (best < 0 || end_with(rank) < end_with(best))) best = rank;
  }
  return best;
}

/// The rank, as a rule the top of the heap, ends later now.
void AloneFiller::raise_end(int rank, double end_s) {
  end_s_[index(rank)] = end_s;
  const std::size_t size = heap_.size();
  auto hole = static_cast<std::size_t>(std::find(heap_.begin(), heap_.end(), rank) - heap_.begin());
  const auto earlier = [&](int a, int b) {
    return end_s_[index(a)] != end_s_[index(b)] ? end_s_[index(a)] < end_s_[index(b)] : a < b;
  };
  while (true) {
    std::size_t child = 2 * hole + 1;
    if (child >= size) break;
    if (child + 1 < size && earlier(heap_[child + 1], heap_[child])) ++child;
    if (!earlier(heap_[child], rank)) break;
    heap_[hole] = heap_[child];
    hole = child;
  }
  heap_[hole] = rank;
}

void AloneFiller::sort_ranks_by_end() {
  by_end_.resize(index(ranks_.count()));
  std::iota(by_end_.begin(), by_end_.end(), 0);
  std::sort(by_end_.begin(), by_end_.end(), [&](int a, int b) {
    return end_s_[index(a)] != end_s_[index(b)] ? end_s_[index(a)] < end_s_[index(b)] : a < b;
  });
}

double AloneFiller::level(int steps, double enough_s) {
  sort_ranks_by_end();
  while (true) {
    last_rank_ = by_end_.back();
    const double last_s = end_s_[index(last_rank_)];
    if (steps-- <= 0 || last_s <= enough_s || last_s <= mean_end_s_ * (1.0 + kLevel) || !improve(last_rank_))
      return last_s;
  }
}

/// One move that makes the last end earlier; false if none is found.
bool AloneFiller::improve(int last) {
  if (tails_[index(last)].items.empty()) return false;
  ticks_ += ranks_.count();
  moves_.clear();
  const double last_s = end_s_[index(last)];
  const std::size_t looks = std::min(by_end_.size() - 1, kMostRanks);
  for (std::size_t i = 0; i < looks; ++i) {
    const int rank = by_end_[i];
    const double space = last_s - end_s_[index(rank)];
    if (space <= kNothing * mean_end_s_) break;
    if (moves_.size() == kMostMoves && last_s - space / 2 >= moves_.back().end_s) break;
    find_moves(last, rank);
    if (moves_.empty() || moves_.front().rank != rank) continue;
    if (moves_.front().end_s > last_s - kGoodEnough * space) continue;
    if (apply(last, moves_.front())) return true;
    moves_.erase(moves_.begin());
  }
  return std::any_of(moves_.begin(), moves_.end(), [&](const Move& move) { return apply(last, move); });
}

/// Adds the most promising moves between the two ranks to the sorted list of moves.
void AloneFiller::find_moves(int last, int rank) {
  const std::vector<std::int32_t>& give = tails_[index(last)].items;
  const std::vector<std::int32_t>& take = tails_[index(rank)].items;
  ticks_ += 4 * std::ssize(give) + std::ssize(take);
  const double last_s = end_s_[index(last)];
  const double rank_s = end_s_[index(rank)];
  const double last_speed = speed(last);
  const double rank_speed = speed(rank);
  // What should move for both to end at once.
  const double ideal = (last_s - rank_s) / (1.0 / last_speed + 1.0 / rank_speed);
  const auto offer = [&](std::int32_t given, std::int32_t taken) {
    const double moved = items_[index(given)].alone_s - (taken < 0 ? 0.0 : items_[index(taken)].alone_s);
    if (moved <= 0.0) return;
    const double end = std::max(last_s - moved / last_speed, rank_s + moved / rank_speed);
    if (end >= last_s || (moves_.size() == kMostMoves && end >= moves_.back().end_s)) return;
    if (moves_.size() == kMostMoves) moves_.pop_back();
    auto at = moves_.end();
    while (at != moves_.begin() && (at - 1)->end_s > end) --at;
    moves_.insert(at, {end, rank, given, taken});
  };
  std::size_t next = 0;  // the first of `take` that is not too long
  for (const std::int32_t given : give) {
    const double wanted = items_[index(given)].alone_s - ideal;
    while (next < take.size() && items_[index(take[next])].alone_s > wanted) ++next;
    if (next > 0) offer(given, take[next - 1]);
    offer(given, next < take.size() ? take[next] : -1);
  }
}

/// The rank's end with one item less (-1: none) and one more (-1: none), packed anew.
double AloneFiller::end_after(int rank, std::int32_t without, std::int32_t with) {
  const Tail& tail = tails_[index(rank)];
  ticks_ += 8 * std::ssize(tail.items);
  double sum = tail.sum_s;
  rooms_.clear();
  const auto pack = [&](std::int32_t which) { put(rooms_, items_[index(which)]); };
  if (without >= 0) sum -= items_[index(without)].alone_s;
  bool pending = with >= 0;
  if (pending) sum += items_[index(with)].alone_s;
  for (const std::int32_t which : tail.items) {
    if (which == without) continue;
    if (pending && with < which) {
      pack(with);
      pending = false;
    }
    pack(which);
  }
  if (pending) pack(with);
  if (one_pack_ && rooms_.size() > 1) return kInfinity;
  return tail.ready_s + (sum + model_.pack_s() * static_cast<double>(rooms_.size())) / speed(rank);
}

bool AloneFiller::apply(int last, const Move& move) {
  const double limit = end_s_[index(last)] - kNothing * mean_end_s_;
  const double last_end = end_after(last, move.give, move.take);
  if (last_end >= limit) return false;
  const double rank_end = end_after(move.rank, move.take, move.give);
  if (rank_end >= limit) return false;
  const auto exchange = [&](Tail& tail, std::int32_t out, std::int32_t in) {
    if (out >= 0) {
      tail.items.erase(std::lower_bound(tail.items.begin(), tail.items.end(), out));
      tail.sum_s -= items_[index(out)].alone_s;
    }
    if (in >= 0) {
      tail.items.insert(std::lower_bound(tail.items.begin(), tail.items.end(), in), in);
      tail.sum_s += items_[index(in)].alone_s;
    }
  };
  exchange(tails_[index(last)], move.give, move.take);
  exchange(tails_[index(move.rank)], move.take, move.give);
  const int other = move.rank;  // `move` may stand in moves_
  end_s_[index(last)] = last_end;
  end_s_[index(other)] = rank_end;
  move_rank(last);
  move_rank(other);
  return true;
}

/// Brings one rank whose end has changed to its position in by_end_.
void AloneFiller::move_rank(int rank) {
  const auto before = [&](int a, int b) {
    return end_s_[index(a)] != end_s_[index(b)] ? end_s_[index(a)] < end_s_[index(b)] : a < b;
  };
  auto here = std::find(by_end_.begin(), by_end_.end(), rank);
  for (; here != by_end_.begin() && before(rank, *(here - 1)); --here) *here = *(here - 1);
  for (; here + 1 != by_end_.end() && before(*(here + 1), rank); ++here) *here = *(here + 1);
  *here = rank;
}

AlonePacks AloneFiller::packs() const {
  AlonePacks all = in_holes_;
  Rooms rooms;
  std::vector<std::size_t> pack_of;  // by position in the tail: in `all`
  for (int rank = 0; rank < ranks_.count(); ++rank) {
    const Tail& tail = tails_[index(rank)];
    rooms.clear();
    pack_of.clear();
    const std::size_t first_pack = all.packs.size();
    for (const std::int32_t which : tail.items) {
      pack_of.push_back(first_pack + put(rooms, items_[index(which)]));
      if (pack_of.back() == all.packs.size()) all.packs.push_back({rank, tail.ready_s, 0, 0});
      ++all.packs[pack_of.back()].count;
    }
    std::size_t first = all.items.size();
    for (std::size_t pack = first_pack; pack < all.packs.size(); ++pack) {
      all.packs[pack].first = first;
      first += std::exchange(all.packs[pack].count, 0);
    }
    all.items.resize(first);
    for (std::size_t i = 0; i < pack_of.size(); ++i) {
      AlonePack& pack = all.packs[pack_of[i]];
      all.items[pack.first + pack.count++] = tail.items[i];
    }
  }
  return all;
}

}  // namespace dhp::plan
