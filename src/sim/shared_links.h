#pragma once

#include <cstdint>
#include <vector>

#include "dhp/cluster.h"
#include "sim/program.h"

namespace dhp {

/// The links that tasks share: what each node sends to other nodes, what it receives, and the switch between all nodes.
/// Streams share them max-min fairly, weighted by the ranks that feed each of them: no stream can be quicker without
/// one becoming slower that is no quicker, per rank, already.
///
/// Time is the caller's. After all streams that start and end at one time, settle() works out anew how quick they are.
class SharedLinks {
 public:
  explicit SharedLinks(const Cluster& cluster);

  /// Whether the cluster has any limit that tasks share. Without one, streams need not be started.
  bool any() const { return node_bytes_per_s_ > 0.0 || switch_bytes_per_s_ > 0.0; }

  /// A stream that starts now on behalf of `owner`. Returns its number; numbers are used again once a stream has ended.
  int start(const NodeStream& stream, int owner, double now_s);

  /// Ends a stream.
  void end(int stream);

  struct Arrival {
    double time_s = 0.0;
    int stream = 0;
    std::uint64_t version = 0;
  };
  /// When streams will end that start() added or whose pace has changed; what was said of them before is void.
  std::vector<Arrival> settle(double now_s);

  /// Whether this is the latest that was said of a stream.
  bool is_current(const Arrival& arrival) const;
  int owner(int stream) const { return streams_[index(stream)].owner; }
  double bytes_per_s(int stream) const { return streams_[index(stream)].bytes_per_s; }

 private:
  struct Link {
    double bytes_per_s = 0.0;
    std::vector<int> streams = {};
    bool changed = false;
    bool in_reach = false;  // of settle()
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
    std::uint64_t version = 0;
    bool active = false;
    bool in_reach = false;
    std::vector<int> links = {};
  };

  static std::size_t index(int value) { return static_cast<std::size_t>(value); }
  bool may_limit(const Link& link) const;
  void reach(std::vector<int>& links, std::vector<int>& streams);
  std::vector<double> share(const std::vector<int>& links, const std::vector<int>& streams);
  static double level_of(const Link& link);
  int fullest_of(const std::vector<int>& links) const;

  double node_bytes_per_s_;
  double switch_bytes_per_s_;
  int nodes_;
  std::vector<Link> links_;  // out of every node, into every node, the switch
  std::vector<Stream> streams_;
  std::vector<int> unused_;
  std::vector<int> changed_;
  std::uint64_t next_version_ = 1;
};

}  // namespace dhp
