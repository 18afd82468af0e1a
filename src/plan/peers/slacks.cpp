#include "plan/peers/slacks.h"

namespace dhp::plan {
namespace {

template <typename Vector>
auto at(Vector& vector, std::size_t number) {
  return vector.begin() + static_cast<std::ptrdiff_t>(number);
}

}  // namespace

void Slacks::open_run(std::size_t number) {
  const std::size_t used = lasts_.size();
  if (used == order_.size()) {
    order_.push_back(runs_.size());
    runs_.emplace_back();
  }
  std::rotate(at(order_, number), at(order_, used), at(order_, used + 1));
  lasts_.insert(at(lasts_, number), Slack{});
  run(number).size = 0;
}

void Slacks::split(std::size_t number) {
  open_run(number + 1);
  Run& low = run(number);
  Run& high = run(number + 1);
  low.size = Run::kMost / 2;
  high.size = Run::kMost - low.size;
  std::copy(at(low.slacks, low.size), low.slacks.end(), high.slacks.begin());
  lasts_[number + 1] = lasts_[number];
  lasts_[number] = low.slacks[low.size - 1];
}

void Slacks::insert(Slack slack) {
  if (empty()) open_run(0);
  std::size_t number = index(std::lower_bound(lasts_.begin(), lasts_.end(), slack) - lasts_.begin());
  number = std::min(number, lasts_.size() - 1);
  if (run(number).size == Run::kMost) {
    split(number);
    if (lasts_[number] < slack) ++number;
  }
  Run& into = run(number);
  const auto end = at(into.slacks, into.size++);
  const auto place = std::lower_bound(into.slacks.begin(), end, slack);
  std::copy_backward(place, end, end + 1);
  *place = slack;
  lasts_[number] = into.slacks[into.size - 1];
}

void Slacks::remove(Place place) {
  Run& from = run(place.run);
  std::copy(at(from.slacks, place.at + 1), at(from.slacks, from.size), at(from.slacks, place.at));
  --from.size;
  if (from.size > 0) {
    lasts_[place.run] = from.slacks[from.size - 1];
    return;
  }
  lasts_.erase(at(lasts_, place.run));
  std::rotate(at(order_, place.run), at(order_, place.run + 1), at(order_, lasts_.size() + 1));
}

}  // namespace dhp::plan
