#include "sim/shared_links.h"

#include <algorithm>

#include "base/number_limits.h"

namespace dhp::sim {

SharedLinks::SharedLinks(const Cluster& cluster)
    : node_bytes_per_s_(cluster.node_bandwidth_bytes_per_s),
      switch_bytes_per_s_(cluster.switch_bandwidth_bytes_per_s),
      nodes_(cluster.nodes) {
  if (!any()) return;
  links_.resize(2 * index(nodes_) + 1);
  for (Link& link : links_) link.bytes_per_s = node_bytes_per_s_;
  links_.back().bytes_per_s = switch_bytes_per_s_;
}

/// Its streams need another look.
void SharedLinks::touch(int link) {
  if (!links_[index(link)].changed) changed_.push_back(link);
  links_[index(link)].changed = true;
}

int SharedLinks::start(const NodeStream& stream, int owner, double now_s) {
  int number = static_cast<int>(streams_.size());
  if (unused_.empty()) {
    streams_.emplace_back();
    arrival_s_.push_back(kInfinity);
  } else {
    number = unused_.back();
    unused_.pop_back();
  }
  Stream& added = streams_[index(number)];
  added = {};
  added.owner = owner;
  added.left_bytes = stream.bytes;
  added.wanted_bytes_per_s = stream.pace_bytes_per_s;
  added.ranks = stream.ranks;
  added.since_s = now_s;
  const auto add_link = [&](int link) { added.links[index(added.link_count++)] = link; };
  if (node_bytes_per_s_ > 0.0) add_link(stream.from);
  if (node_bytes_per_s_ > 0.0) add_link(nodes_ + stream.to);
  if (switch_bytes_per_s_ > 0.0) add_link(2 * nodes_);
  for (std::size_t slot = 0; slot < added.on().size(); ++slot) {
    std::vector<int>& streams = links_[index(added.links[slot])].streams;
    added.places[slot] = streams.size();
    streams.push_back(number);
    touch(added.links[slot]);
  }
  return number;
}

/// The last of a link's streams takes its place there.
void SharedLinks::leave_links(int number) {
  const Stream& stream = streams_[index(number)];
  for (std::size_t slot = 0; slot < stream.on().size(); ++slot) {
    const int link = stream.links[slot];
    std::vector<int>& streams = links_[index(link)].streams;
    Stream& last = streams_[index(streams.back())];
    const auto slot_of_last = std::find(last.links.begin(), last.links.end(), link) - last.links.begin();
    last.places[index(slot_of_last)] = stream.places[slot];
    streams[stream.places[slot]] = streams.back();
    streams.pop_back();
    touch(link);
  }
}

std::vector<int> SharedLinks::arrive(double now_s) {
  std::vector<int> arrived;
  for (; !arrivals_.empty() && arrivals_.top().first <= now_s; arrivals_.pop()) {
    const auto [at_s, number] = arrivals_.top();
    if (arrival_s_[index(number)] != at_s) continue;  // it was said anew
    arrival_s_[index(number)] = kInfinity;
    arrived.push_back(number);
  }
  std::sort(arrived.begin(), arrived.end());
  std::vector<int> owners;
  for (const int number : arrived) {
    owners.push_back(streams_[index(number)].owner);
    leave_links(number);
    unused_.push_back(number);
  }
  return owners;
}

double SharedLinks::wanted_of(const Link& link) const {
  double wanted = 0.0;
  for (const int stream : link.streams) wanted += streams_[index(stream)].wanted_bytes_per_s;
  return wanted;
}

/// All streams whose pace may have changed, and the links that have a say in it. A link that carries what all of its
/// streams want has none: it does not tie them to each other.
void SharedLinks::reach() {
  ++call_;
  reached_streams_.clear();
  std::vector<int>& links = reached_links_;
  links = changed_;
  changed_.clear();
  for (const int number : links) {
    Link& link = links_[index(number)];
    link.seen = call_;
    link.changed = false;
    looks_ += std::ssize(link.streams);
    link.may_limit = wanted_of(link) > link.bytes_per_s;
  }
  for (std::size_t next = 0; next < links.size(); ++next) {
    looks_ += std::ssize(links_[index(links[next])].streams);
    for (const int number : links_[index(links[next])].streams) {
      Stream& stream = streams_[index(number)];
      if (stream.seen == call_) continue;
      stream.seen = call_;
      reached_streams_.push_back(number);
      for (const int at : stream.on()) {
        Link& link = links_[index(at)];
        if (link.seen == call_) continue;
        link.seen = call_;
        if (link.may_limit) links.push_back(at);
      }
    }
  }
  std::erase_if(links, [&](int link) { return !links_[index(link)].may_limit; });
  // By number, so that sums are taken in the same order whatever came before.
  std::sort(reached_streams_.begin(), reached_streams_.end());
}

double SharedLinks::level_of(const Link& link) { return link.free_bytes_per_s / link.open_ranks; }

/// Of the links that still have streams without a pace; -1 if none has.
int SharedLinks::fullest() const {
  int fullest = -1;
  double least = kInfinity;
  for (const int number : reached_links_) {
    const Link& link = links_[index(number)];
    if (link.open_streams == 0) continue;
    const double level = level_of(link);
    if (fullest >= 0 && !(level < least)) continue;
    fullest = number;
    least = level;
  }
  return fullest;
}

/// The stream has its pace, which its links no longer have to offer.
void SharedLinks::give(int stream, double bytes_per_s) {
  Stream& to = streams_[index(stream)];
  to.next_bytes_per_s = bytes_per_s;
  for (const int number : to.on()) {
    Link& link = links_[index(number)];
    link.free_bytes_per_s = std::max(0.0, link.free_bytes_per_s - bytes_per_s);
    link.open_ranks -= to.ranks;
    --link.open_streams;
  }
}

/// Progressive filling: the pace of a rank rises for all streams alike, until a stream has what it wants or a link is
/// full; those streams are settled, and it rises on for the others.
void SharedLinks::share() {
  for (const int number : reached_links_) {
    Link& link = links_[index(number)];
    link.free_bytes_per_s = link.bytes_per_s;
    link.open_streams = static_cast<int>(link.streams.size());
    link.open_ranks = 0.0;
  }
  for (const int number : reached_streams_) {
    for (const int link : streams_[index(number)].on()) links_[index(link)].open_ranks += streams_[index(number)].ranks;
  }
  open_ = reached_streams_;
  double level = 0.0;  // bytes per second and rank
  while (!open_.empty()) {
    looks_ += std::ssize(reached_links_) + std::ssize(open_);
    const int full = fullest();
    // Rounding must not let it fall.
    double next = kInfinity;
    if (full >= 0) next = level_of(links_[index(full)]);
    level = std::max(level, next);
    const std::size_t before = open_.size();
    std::erase_if(open_, [&](int number) {
      const Stream& stream = streams_[index(number)];
      if (!(stream.wanted_bytes_per_s <= level * stream.ranks)) return false;
      give(number, stream.wanted_bytes_per_s);
      return true;
    });
    if (open_.size() < before) continue;  // what they leave may raise the level
    std::erase_if(open_, [&](int number) {
      const Stream& stream = streams_[index(number)];
      if (std::find(stream.on().begin(), stream.on().end(), full) == stream.on().end()) return false;
      give(number, level * stream.ranks);
      return true;
    });
  }
}

double SharedLinks::settle(double now_s) {
  if (!changed_.empty()) {
    reach();
    share();
    for (const int number : reached_streams_) {
      Stream& stream = streams_[index(number)];
      if (stream.bytes_per_s == stream.next_bytes_per_s) continue;  // it arrives when it was said to, to the last bit
      stream.left_bytes = std::max(0.0, stream.left_bytes - stream.bytes_per_s * (now_s - stream.since_s));
      stream.since_s = now_s;
      stream.bytes_per_s = stream.next_bytes_per_s;
      arrival_s_[index(number)] = now_s + stream.left_bytes / stream.bytes_per_s;
      arrivals_.emplace(arrival_s_[index(number)], number);
    }
  }
  while (!arrivals_.empty() && arrival_s_[index(arrivals_.top().second)] != arrivals_.top().first) arrivals_.pop();
  if (arrivals_.empty()) return kInfinity;
  return arrivals_.top().first;
}

}  // namespace dhp::sim
