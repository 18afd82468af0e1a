#pragma once

#include <array>
#include <cstdint>
#include <map>

namespace dhp::rt {

constexpr std::size_t kSignatureWords = 16;

/// A call in numbers, as it goes to the peers (agreement.h): operation, ranks of the group, and what else must be
/// equal.
using SignatureWords = std::array<std::int64_t, kSignatureWords>;

/// The calls that the members of groups have compared since the last collective of all ranks. While a group repeats a
/// call, as the layers of a task do, there is nothing to compare again, and two messages a neighbour are saved.
///
/// The members of a group make the same calls in it, and come to the same collectives, in the same order. So they
/// remember the same calls, and compare all or none. Where one leaves that order it compares alone: its peers wait for
/// its data, and the time-out ends the run. A later comparison also finds it, by the number of repeats.
class AgreedCalls {
 public:
  /// True if the group's last comparison in this operation was of this call; counts it.
  bool repeats(const SignatureWords& call) {
    Last& last = last_[key(call)];
    if (last.call != call) return false;
    ++last.repeats;
    return true;
  }
  /// Calls since the group's last comparison in this operation.
  std::int64_t repeats_so_far(const SignatureWords& call) const {
    const auto last = last_.find(key(call));
    return last == last_.end() ? 0 : last->second.repeats;
  }
  void remember(const SignatureWords& call) { last_[key(call)] = {call, 0}; }
  void clear() { last_.clear(); }

 private:
  struct Last {
    SignatureWords call{};
    std::int64_t repeats = 0;
  };
  using Key = std::array<std::int64_t, 2>;

  static Key key(const SignatureWords& call) { return {call[0], call[1]}; }

  std::map<Key, Last> last_;
};

}  // namespace dhp::rt
