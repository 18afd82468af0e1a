#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace dhp::rt {

/// Transports of one kind by the name of their group. A transport is destroyed outside of the lock: that may join a
/// thread.
template <typename T>
struct Registry {
  std::mutex mutex;
  std::map<std::string, std::shared_ptr<T>> transports;

  void release(const std::string& group) {
    std::shared_ptr<T> released;
    std::lock_guard lock(mutex);
    const auto found = transports.find(group);
    if (found == transports.end()) return;
    released = std::move(found->second);
    transports.erase(found);
  }

  void release_all() {
    std::map<std::string, std::shared_ptr<T>> released;
    std::lock_guard lock(mutex);
    released.swap(transports);
  }
};

}  // namespace dhp::rt
