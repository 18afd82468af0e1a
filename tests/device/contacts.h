#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

namespace late {

/// With whom one communicator of this rank is connected, in which direction. As with NCCL the first transfer of a pair
/// connects them, which holds up the host until the peer's is there, too.
class Contacts {
 public:
  explicit Contacts(const c10::intrusive_ptr<c10d::Backend>& carrier) : carrier_(carrier) {}

  struct End {
    int peer;
    bool is_send;
    std::size_t bytes;

    bool operator<(const End& other) const { return std::pair(peer, is_send) < std::pair(other.peer, other.is_send); }
  };

  /// Connects the new ones, all at once. Returns early after abort().
  void meet(const std::set<End>& ends);
  void abort();

  /// "to" and "from": ranks; "late": those of them that a transfer of more than a byte has connected.
  std::map<std::string, std::vector<int>> told() const;

 private:
  // Weak: these are told of after the end of the group, whose connections must close by then.
  const c10::weak_intrusive_ptr<c10d::Backend> carrier_;
  mutable std::mutex mutex_;  // guards all below
  std::set<End> met_;
  bool is_aborted_ = false;
  std::vector<c10::intrusive_ptr<c10d::Work>> under_way_;
};

}  // namespace late
