#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dhp::rt {

/// What a rank does, in the words of its own; its answer when another asks why nothing goes on.
struct Presence {
  enum class Kind { kBusy, kWaiting, kCollective, kLeft };

  Kind kind = Kind::kBusy;
  int peer = -1;                  // whom it waits for, where it waits for one
  std::uint64_t collectives = 0;  // that it has entered so far, the present one included
  double seconds = 0;             // since it began that
  bool expired = false;           // its own wait has lasted too long
  std::string place;              // "step 3, task 7"
  std::string name;               // of the collective
};

std::string encode(const Presence& presence);
/// Empty where the text is none of `encode`.
std::optional<Presence> decode(const std::string& text);

/// What one rank has learnt of all when its wait broke, or lasted too long.
struct RollCall {
  struct Rank {
    std::optional<Presence> answer;  // none: it is dead, frozen, or cut off
    std::string name;                // "rank 5 (host b, pid 123)"
    std::string last_place;          // as it said some time ago; may be empty
  };

  int asker = 0;
  bool expired = false;
  std::string problem;  // in the asker's words
  std::vector<Rank> ranks;
};

/// The cause, in one line. It begins with the ranks that do not answer; else with those that the asker waits for in the
/// end: who waits for a peer, or for those that have not come to its collective, is no cause.
std::string find_cause(const RollCall& call);

}  // namespace dhp::rt
