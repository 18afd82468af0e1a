#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <utility>
#include <vector>

#include "base/index.h"
#include "dhp/cluster.h"
#include "sim/program.h"

namespace dhp::sim {

/// The links that tasks share: what each node sends to other nodes, what it receives, and the switch between all nodes.
/// Streams share them max-min fairly, weighted by the ranks that feed each of them: no stream can be quicker without
/// one becoming slower that is no quicker, per rank, already.
///
/// Time is the caller's. After all streams that start and arrive at one time, settle() works out anew how quick they
/// are.
class SharedLinks {
 public:
  explicit SharedLinks(const Cluster& cluster);

  /// Whether the cluster has any limit that tasks share. Without one, streams need not be started.
  bool any() const { return node_bytes_per_s_ > 0.0 || switch_bytes_per_s_ > 0.0; }

  /// A stream that starts now on behalf of `owner`. Returns its number; numbers are used again after arrival.
  int start(const NodeStream& stream, int owner, double now_s);

  /// When the next stream arrives, if none starts until then; infinite if there is none.
  double settle(double now_s);

  /// Ends the streams that arrive at this time, which settle() said. Their owners, one a stream.
  std::vector<int> arrive(double now_s);

  double bytes_per_s(int stream) const { return streams_[index(stream)].bytes_per_s; }
  /// At streams and links so far, to share them: about a nanosecond each.
  std::int64_t looks() const { return looks_; }

 private:
  struct Link {
    double bytes_per_s = 0.0;
    std::vector<int> streams = {};
    bool changed = false;
    bool may_limit = false;  // its streams want more than it carries; set by settle() where they changed
    // The rest is of settle() alone.
    std::uint64_t seen = 0;  // in which call
    double free_bytes_per_s = 0.0;
    double open_ranks = 0.0;  // that feed streams without a pace yet
    int open_streams = 0;
  };
  struct Stream {
    int owner = 0;
    double left_bytes = 0.0;
    double wanted_bytes_per_s = 0.0;
    double ranks = 1.0;
    double bytes_per_s = 0.0;
    double since_s = 0.0;  // left_bytes is of this time
    std::uint64_t seen = 0;
    double next_bytes_per_s = 0.0;  // of settle()
    std::array<int, 3> links = {};
    std::array<std::size_t, 3> places = {};  // among the streams of each of these
    int link_count = 0;

    std::span<const int> on() const { return {links.data(), static_cast<std::size_t>(link_count)}; }
  };

  void touch(int link);
  void leave_links(int number);
  double wanted_of(const Link& link) const;
  void reach();
  void share();
  void give(int stream, double bytes_per_s);
  static double level_of(const Link& link);
  int fullest() const;

  double node_bytes_per_s_;
  double switch_bytes_per_s_;
  int nodes_;
  std::vector<Link> links_;  // out of every node, into every node, the switch
  std::vector<Stream> streams_;
  std::vector<double> arrival_s_;          // by stream; infinite: none
  using Arrival = std::pair<double, int>;  // when, and which stream
  /// The earliest first; those that are not in arrival_s_ any more are skipped.
  std::priority_queue<Arrival, std::vector<Arrival>, std::greater<>> arrivals_;
  std::vector<int> unused_;
  std::vector<int> changed_;
  // Of settle() alone, kept for their memory.
  std::uint64_t call_ = 0;
  std::vector<int> reached_links_;
  std::vector<int> reached_streams_;
  std::vector<int> open_;  // streams without a pace
  std::int64_t looks_ = 0;
};

}  // namespace dhp::sim
