#include "sim/shared_links.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace dhp {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

}  // namespace

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
    arrival_s_.push_back(kNever);
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
  for (const int link : added.on()) {
    links_[index(link)].streams.push_back(number);
    touch(link);
  }
  return number;
}

std::vector<int> SharedLinks::arrive(double now_s) {
  std::vector<int> owners;
  for (std::size_t number = 0; number < arrival_s_.size(); ++number) {
    if (arrival_s_[number] > now_s) continue;
    arrival_s_[number] = kNever;
    owners.push_back(streams_[number].owner);
    for (const int link : streams_[number].on()) {
      std::vector<int>& streams = links_[index(link)].streams;
      *std::find(streams.begin(), streams.end(), static_cast<int>(number)) = streams.back();
      streams.pop_back();
      touch(link);
    }
    unused_.push_back(static_cast<int>(number));
  }
  return owners;
}

bool SharedLinks::may_limit(const Link& link) const {
  double wanted = 0.0;
  for (const int stream : link.streams) wanted += streams_[index(stream)].wanted_bytes_per_s;
  return wanted > link.bytes_per_s;
}

/// All streams whose pace may have changed, and the links that have a say in it. A link that carries what all of its
/// streams want has none: it does not tie them to each other.
void SharedLinks::reach(std::vector<int>& links, std::vector<int>& streams) {
  ++call_;
  for (const int link : changed_) {
    links_[index(link)].seen = call_;
    links_[index(link)].changed = false;
    links.push_back(link);
  }
  changed_.clear();
  for (std::size_t next = 0; next < links.size(); ++next) {
    for (const int number : links_[index(links[next])].streams) {
      Stream& stream = streams_[index(number)];
      if (stream.seen == call_) continue;
      stream.seen = call_;
      streams.push_back(number);
      for (const int at : stream.on()) {
        Link& link = links_[index(at)];
        if (link.seen == call_) continue;
        link.seen = call_;
        if (may_limit(link)) links.push_back(at);
      }
    }
  }
  // Sums below are taken in this order: the same whatever came before.
  std::sort(streams.begin(), streams.end());
}

double SharedLinks::level_of(const Link& link) { return link.free_bytes_per_s / link.open_ranks; }

/// Of the links that still have streams without a pace; -1 if none has.
int SharedLinks::fullest_of(const std::vector<int>& links) const {
  int fullest = -1;
  double least = kNever;
  for (const int number : links) {
    const Link& link = links_[index(number)];
    if (link.open_streams == 0 || (fullest >= 0 && !(level_of(link) < least))) continue;
    fullest = number;
    least = level_of(link);
  }
  return fullest;
}

/// The stream has its pace, which its links no longer have to offer.
void SharedLinks::give(std::size_t at, int stream, double bytes_per_s) {
  paces_[at] = bytes_per_s;
  for (const int number : streams_[index(stream)].on()) {
    Link& link = links_[index(number)];
    link.free_bytes_per_s = std::max(0.0, link.free_bytes_per_s - bytes_per_s);
    link.open_ranks -= streams_[index(stream)].ranks;
    --link.open_streams;
  }
}

/// Progressive filling: the pace of a rank rises for all streams alike, until a stream has what it wants or a link is
/// full; those streams are settled, and it rises on for the others. Fills paces_.
void SharedLinks::share(const std::vector<int>& links, const std::vector<int>& streams) {
  for (const int number : links) {
    Link& link = links_[index(number)];
    link.free_bytes_per_s = link.bytes_per_s;
    link.open_streams = static_cast<int>(link.streams.size());
    link.open_ranks = 0.0;
  }
  for (const int number : streams) {
    for (const int link : streams_[index(number)].on()) links_[index(link)].open_ranks += streams_[index(number)].ranks;
  }
  paces_.assign(streams.size(), 0.0);
  std::vector<std::size_t> open(streams.size());  // places in streams
  std::iota(open.begin(), open.end(), std::size_t{0});
  double level = 0.0;  // bytes per second and rank
  while (!open.empty()) {
    const int fullest = fullest_of(links);
    // Rounding must not let it fall.
    level = std::max(level, fullest < 0 ? kNever : level_of(links_[index(fullest)]));
    const std::size_t before = open.size();
    std::erase_if(open, [&](std::size_t at) {
      const Stream& stream = streams_[index(streams[at])];
      if (!(stream.wanted_bytes_per_s <= level * stream.ranks)) return false;
      give(at, streams[at], stream.wanted_bytes_per_s);
      return true;
    });
    if (open.size() < before) continue;  // what they leave may raise the level
    std::erase_if(open, [&](std::size_t at) {
      const Stream& stream = streams_[index(streams[at])];
      if (std::find(stream.on().begin(), stream.on().end(), fullest) == stream.on().end()) return false;
      give(at, streams[at], level * stream.ranks);
      return true;
    });
  }
}

double SharedLinks::settle(double now_s) {
  if (!changed_.empty()) {
    std::vector<int> links;
    std::vector<int> streams;
    reach(links, streams);
    share(links, streams);
    for (std::size_t i = 0; i < streams.size(); ++i) {
      Stream& stream = streams_[index(streams[i])];
      if (stream.bytes_per_s == paces_[i]) continue;  // it arrives when it was said to, to the last bit
      stream.left_bytes = std::max(0.0, stream.left_bytes - stream.bytes_per_s * (now_s - stream.since_s));
      stream.since_s = now_s;
      stream.bytes_per_s = paces_[i];
      arrival_s_[index(streams[i])] = now_s + stream.left_bytes / stream.bytes_per_s;
    }
  }
  return arrival_s_.empty() ? kNever : *std::min_element(arrival_s_.begin(), arrival_s_.end());
}

}  // namespace dhp
