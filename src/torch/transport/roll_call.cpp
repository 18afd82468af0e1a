#include "torch/transport/roll_call.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <sstream>

namespace dhp::rt {
namespace {

using Kind = Presence::Kind;

constexpr std::size_t kNamed = 4;  // ranks of a message; of more it says how many

std::string names(const RollCall& call, const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < std::min(ranks.size(), kNamed); ++i) {
    text.append(i > 0 ? ", " : "").append(call.ranks[static_cast<std::size_t>(ranks[i])].name);
  }
  if (ranks.size() > kNamed) text.append(" and ").append(std::to_string(ranks.size() - kNamed)).append(" more");
  return text;
}

const Presence& answer_of(const RollCall& call, int rank) { return *call.ranks[static_cast<std::size_t>(rank)].answer; }

/// Whom a rank waits for. In a collective: those that have not come to it. An asker that has not said what it waits for
/// is in a collective of the program's own: those that are at another place.
std::vector<int> awaited(const RollCall& call, int rank) {
  const Presence& answer = answer_of(call, rank);
  const int size = static_cast<int>(call.ranks.size());
  std::vector<int> result;
  if (answer.kind == Kind::kWaiting && answer.peer >= 0 && answer.peer < size) result.push_back(answer.peer);
  for (int other = 0; answer.kind == Kind::kCollective && other < size; ++other) {
    if (answer_of(call, other).collectives < answer.collectives) result.push_back(other);
  }
  for (int other = 0; answer.kind == Kind::kBusy && rank == call.asker && other < size; ++other) {
    if (other != rank && answer_of(call, other).place != answer.place) result.push_back(other);
  }
  return result;
}

std::string describe_busy(const Presence& answer) {
  std::ostringstream text;
  if (!answer.place.empty()) text << ", at " << answer.place;
  text << ", busy for " << std::llround(answer.seconds) << " s";
  return text.str();
}

/// Ranks that do not answer.
std::string explain_silence(const RollCall& call, const std::vector<int>& silent) {
  const bool one = silent.size() == 1;
  std::string text = names(call, silent);
  if (call.expired) {
    text += one ? " does not answer: it hangs, or its host is cut off" : " do not answer: they hang, or are cut off";
  } else {
    text += one ? " was lost" : " were lost";
  }
  const std::string& place = call.ranks[static_cast<std::size_t>(silent.front())].last_place;
  if (one && !place.empty()) text += ", last at " + place;
  return text + " (seen by " + call.problem + ")";
}

/// Those at the ends of the chains of waits that begin with the asker, and the chains in words.
struct Chains {
  std::vector<int> ends;
  std::string text;
  bool circle = false;
};

Chains follow(const RollCall& call) {
  Chains chains;
  std::vector<bool> seen(call.ranks.size(), false);
  std::deque<int> queue{call.asker};
  seen[static_cast<std::size_t>(call.asker)] = true;
  std::size_t told = 0;
  while (!queue.empty()) {
    const int rank = queue.front();
    queue.pop_front();
    const auto next = awaited(call, rank);
    if (next.empty() && rank != call.asker) {
      const auto kind = answer_of(call, rank).kind;
      if (kind == Kind::kBusy || kind == Kind::kLeft) chains.ends.push_back(rank);
    }
    for (const int other : next) {
      if (rank != call.asker && answer_of(call, rank).kind == Kind::kWaiting && told++ < kNamed) {
        chains.text += "; rank " + std::to_string(rank) + " waits for rank " + std::to_string(other);
      }
      if (seen[static_cast<std::size_t>(other)]) {
        chains.circle = true;
      } else {
        seen[static_cast<std::size_t>(other)] = true;
        queue.push_back(other);
      }
    }
  }
  std::sort(chains.ends.begin(), chains.ends.end());
  return chains;
}

/// Two ranks that are in different collectives of the same number; empty where there are none.
std::string disagreement(const RollCall& call) {
  const Presence& own = answer_of(call, call.asker);
  if (own.kind != Kind::kCollective) return "";
  for (const auto& rank : call.ranks) {
    if (rank.answer->kind == Kind::kCollective && rank.answer->collectives == own.collectives &&
        rank.answer->name != own.name) {
      return rank.name + " is in the collective \"" + rank.answer->name + "\" where " +
             call.ranks[static_cast<std::size_t>(call.asker)].name + " is in \"" + own.name +
             "\": the ranks make different calls: " + call.problem;
    }
  }
  return "";
}

/// A rank that came to the asker's collective long after it, so after its wait had expired; empty where there is none.
std::string latecomer(const RollCall& call) {
  const Presence& own = answer_of(call, call.asker);
  if (own.kind != Kind::kCollective) return "";
  const auto last = std::min_element(call.ranks.begin(), call.ranks.end(), [](const auto& one, const auto& other) {
    return one.answer->seconds < other.answer->seconds;
  });
  if (last->answer->kind != Kind::kCollective || last->answer->seconds > own.seconds / 2) return "";
  return last->name + " came too late (take a longer timeout_s where ranks are so far apart): " + call.problem;
}

}  // namespace

std::string encode(const Presence& presence) {
  const auto line = [](std::string words) {
    std::replace(words.begin(), words.end(), '\n', ' ');
    return words;
  };
  std::ostringstream text;
  text << static_cast<int>(presence.kind) << ' ' << presence.peer << ' ' << presence.collectives << ' '
       << presence.seconds << ' ' << (presence.expired ? 1 : 0) << '\n'
       << line(presence.place) << '\n'
       << line(presence.name);
  return text.str();
}

std::optional<Presence> decode(const std::string& text) {
  std::istringstream in(text);
  Presence result;
  int kind = 0;
  int expired = 0;
  if (!(in >> kind >> result.peer >> result.collectives >> result.seconds >> expired)) return std::nullopt;
  if (kind < 0 || kind > static_cast<int>(Kind::kLeft)) return std::nullopt;
  result.kind = static_cast<Kind>(kind);
  result.expired = expired != 0;
  std::string rest;
  std::getline(in, rest);
  std::getline(in, result.place);
  std::getline(in, result.name);
  return result;
}

std::string find_cause(const RollCall& call) {
  std::vector<int> silent;
  for (std::size_t rank = 0; rank < call.ranks.size(); ++rank) {
    if (!call.ranks[rank].answer) silent.push_back(static_cast<int>(rank));
  }
  if (!silent.empty()) return explain_silence(call, silent);

  const Chains chains = follow(call);
  std::vector<int> left;
  std::copy_if(chains.ends.begin(), chains.ends.end(), std::back_inserter(left),
               [&](int rank) { return answer_of(call, rank).kind == Kind::kLeft; });
  if (!left.empty()) {
    return names(call, left) + (left.size() == 1 ? " has" : " have") +
           " left the run while others wait: " + call.problem + chains.text;
  }
  if (std::string text = disagreement(call); !text.empty()) return text;
  const bool expired = call.expired || std::any_of(call.ranks.begin(), call.ranks.end(),
                                                   [](const auto& rank) { return rank.answer->expired; });
  if (!expired) return "a connection broke although all ranks answer: " + call.problem;
  if (chains.ends.size() == 1) {
    return names(call, chains.ends) + " keeps the others waiting" + describe_busy(answer_of(call, chains.ends[0])) +
           ": " + call.problem + chains.text;
  }
  if (!chains.ends.empty()) {
    return names(call, chains.ends) + " keep the others waiting" + describe_busy(answer_of(call, chains.ends[0])) +
           ": " + call.problem + chains.text;
  }
  if (chains.circle) return call.problem + chains.text + ": they wait for each other";
  if (std::string text = latecomer(call); !text.empty()) return text;
  return "the network carries nothing although all ranks answer, and none is behind: " + call.problem;
}

}  // namespace dhp::rt
