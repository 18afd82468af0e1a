#include "sim/shared_links.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace dhp {

SharedLinks::SharedLinks(const Cluster& cluster)
    : node_bytes_per_s_(cluster.node_bandwidth_bytes_per_s),
      switch_bytes_per_s_(cluster.switch_bandwidth_bytes_per_s),
      nodes_(cluster.nodes) {
  if (!any()) return;
  links_.resize(2 * index(nodes_) + 1);
  for (Link& link : links_) link.bytes_per_s = node_bytes_per_s_;
  links_.back().bytes_per_s = switch_bytes_per_s_;
}

int SharedLinks::start(const NodeStream& stream, int owner, double now_s) {
  int number = static_cast<int>(streams_.size());
  if (unused_.empty()) {
    streams_.emplace_back();
  } else {
    number = unused_.back();
    unused_.pop_back();
  }
  Stream& added = streams_[index(number)];
  added.owner = owner;
  added.left_bytes = stream.bytes;
  added.wanted_bytes_per_s = stream.pace_bytes_per_s;
  added.ranks = stream.ranks;
  added.bytes_per_s = 0.0;
  added.since_s = now_s;
  added.version = 0;
  added.active = true;
  added.links.clear();
  if (node_bytes_per_s_ > 0.0) added.links = {stream.from, nodes_ + stream.to};
  if (switch_bytes_per_s_ > 0.0) added.links.push_back(2 * nodes_);
  for (const int link : added.links) {
    links_[index(link)].streams.push_back(number);
    if (!links_[index(link)].changed) changed_.push_back(link);
    links_[index(link)].changed = true;
  }
  return number;
}

void SharedLinks::end(int stream) {
  Stream& ended = streams_[index(stream)];
  ended.active = false;
  for (const int link : ended.links) {
    std::vector<int>& streams = links_[index(link)].streams;
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    if (!links_[index(link)].changed) changed_.push_back(link);
    links_[index(link)].changed = true;
  }
  unused_.push_back(stream);
}

bool SharedLinks::is_current(const Arrival& arrival) const {
  const Stream& stream = streams_[index(arrival.stream)];
  return stream.active && stream.version == arrival.version;
}

bool SharedLinks::may_limit(const Link& link) const {
  double wanted = 0.0;
  for (const int stream : link.streams) wanted += streams_[index(stream)].wanted_bytes_per_s;
  return wanted > link.bytes_per_s;
}

/// All streams whose pace may have changed, and the links that have a say in it. A link that carries what all of its
/// streams want has none: it does not tie them to each other.
void SharedLinks::reach(std::vector<int>& links, std::vector<int>& streams) {
  for (const int link : changed_) {
    links_[index(link)].in_reach = true;
    links.push_back(link);
  }
  for (std::size_t next = 0; next < links.size(); ++next) {
    for (const int number : links_[index(links[next])].streams) {
      Stream& stream = streams_[index(number)];
      if (stream.in_reach) continue;
      stream.in_reach = true;
      streams.push_back(number);
      for (const int link : stream.links) {
        if (links_[index(link)].in_reach || !may_limit(links_[index(link)])) continue;
        links_[index(link)].in_reach = true;
        links.push_back(link);
      }
    }
  }
  std::sort(streams.begin(), streams.end());
}

/// Progressive filling: the pace of a rank rises for all streams alike, until a stream has what it wants or a link is
/// full; those streams are settled, and it rises on for the others.
std::vector<double> SharedLinks::share(const std::vector<int>& links, const std::vector<int>& streams) {
  for (const int number : links) {
    Link& link = links_[index(number)];
    link.free_bytes_per_s = link.bytes_per_s;
    link.open_streams = static_cast<int>(link.streams.size());
    link.open_ranks = 0.0;
    for (const int stream : link.streams) link.open_ranks += streams_[index(stream)].ranks;
  }
  std::vector<double> paces(streams.size(), 0.0);
  std::vector<std::size_t> open(streams.size());
  std::iota(open.begin(), open.end(), std::size_t{0});
  double level = 0.0;  // bytes per second and rank
  while (!open.empty()) {
    const int fullest = fullest_of(links);
    // Rounding must not let it fall.
    level = std::max(level, fullest < 0 ? std::numeric_limits<double>::infinity() : level_of(links_[index(fullest)]));
    const auto is_content = [&](std::size_t i) {
      const Stream& stream = streams_[index(streams[i])];
      return stream.wanted_bytes_per_s <= level * stream.ranks;
    };
    const bool any_content = std::any_of(open.begin(), open.end(), is_content);
    std::vector<std::size_t> later;
    for (const std::size_t i : open) {
      const Stream& stream = streams_[index(streams[i])];
      const bool on_fullest = std::find(stream.links.begin(), stream.links.end(), fullest) != stream.links.end();
      if (!(any_content ? is_content(i) : on_fullest)) {
        later.push_back(i);
        continue;
      }
      paces[i] = any_content ? stream.wanted_bytes_per_s : level * stream.ranks;
      for (const int number : stream.links) {
        Link& link = links_[index(number)];
        link.free_bytes_per_s = std::max(0.0, link.free_bytes_per_s - paces[i]);
        link.open_ranks -= stream.ranks;
        --link.open_streams;
      }
    }
    open = std::move(later);
  }
  return paces;
}

double SharedLinks::level_of(const Link& link) { return link.free_bytes_per_s / link.open_ranks; }

/// Of the links that still have streams without a pace; -1 if none has.
int SharedLinks::fullest_of(const std::vector<int>& links) const {
  int fullest = -1;
  for (const int number : links) {
    const Link& link = links_[index(number)];
    if (link.open_streams == 0) continue;
    if (fullest < 0 || level_of(link) < level_of(links_[index(fullest)])) fullest = number;
  }
  return fullest;
}

std::vector<SharedLinks::Arrival> SharedLinks::settle(double now_s) {
  if (changed_.empty()) return {};
  std::vector<int> links;
  std::vector<int> streams;
  reach(links, streams);
  const std::vector<double> paces = share(links, streams);
  std::vector<Arrival> arrivals;
  for (std::size_t i = 0; i < streams.size(); ++i) {
    Stream& stream = streams_[index(streams[i])];
    stream.in_reach = false;
    if (stream.bytes_per_s == paces[i]) continue;  // what was said stays true, to the last bit
    stream.left_bytes = std::max(0.0, stream.left_bytes - stream.bytes_per_s * (now_s - stream.since_s));
    stream.since_s = now_s;
    stream.bytes_per_s = paces[i];
    stream.version = next_version_++;
    arrivals.push_back({now_s + stream.left_bytes / stream.bytes_per_s, streams[i], stream.version});
  }
  for (const int link : links) links_[index(link)].in_reach = false;
  for (const int link : changed_) links_[index(link)].changed = false;
  changed_.clear();
  return arrivals;
}

}  // namespace dhp
