#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "exchange/exchange_schedule.h"
#include "torch/transport/agreed_calls.h"
#include "torch/transport/stalls.h"

namespace c10d {
class Work;
}

namespace dhp::rt {

/// What carries the bytes of a group. A group of a task is nothing but an array of world ranks: it costs no rendezvous
/// and no memory, because all groups share the transport of one process group that spans the world.
///
///     auto transport = find_transport("ring");
///     const Transfer transfers[] = {{Direction::kReceive, 2, Role::kKeyValue, incoming},
///                                   {Direction::kSend, 0, Role::kKeyValue, outgoing}};
///     auto ticket = transport->post(transfers, "forward, ring step 1 of 3");
///     ...                       // compute; leave both buffers alone
///     ticket->wait();
///
/// Contracts
/// - Between two ranks, transfers meet in the order in which they were posted: on CPUs those of one role, on a device
///   all. Every rank therefore posts in plan order and from one thread at a time.
/// - All buffers of one post are on one device, and all go near or all far.
/// - Both ends know the byte count; agree on it before posting (agreement.h), since the carrier may answer a
///   difference by ending the process.
/// - Never send to yourself.
/// - A failure is final for the whole transport: every wait in progress and every later call throws c10::DistError,
///   and the message starts with what failed first, wherever that was.

/// Each role is an independent channel between two ranks; the value is the tag on the wire.
enum class Role : int { kHeader = 1, kKeyValue = 2, kGradient = 3, kRows = 4 };

struct Transfer {
  Direction direction;
  int peer;  // world rank
  Role role;
  at::Tensor buffer;  // contiguous; must stay untouched (send) or unread (receive) until the wait is over
  bool far = false;   // to another node, by a lane of its own where there is one: nothing near waits for it
};

/// Lanes of a device: for what goes near, and for what goes far.
constexpr std::size_t kLanes = 2;

/// Another rank, and the lane on which this one exchanges data with it.
struct Contact {
  int peer;  // world rank
  bool far;
};

/// Transfers under way. Dropping a ticket without waiting is for error paths only.
class Ticket {
 public:
  Ticket() = default;
  Ticket(const Ticket&) = delete;
  Ticket& operator=(const Ticket&) = delete;
  virtual ~Ticket() = default;

  /// What the current stream of the device does from here on comes after all transfers; on a CPU they are complete.
  /// Throws c10::DistError when one failed or the time-out passed. A device's time-out counts from when a transfer
  /// could start; where it passes, the transfers are aborted and the failure is known to the next call.
  virtual void wait() = 0;
};

class Transport {
 public:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  virtual int rank() const = 0;  // world rank of this process (or thread)
  virtual int size() const = 0;  // ranks in the world
  /// Where shards and rows live, with its index. Buffers of transfers are there, or on the CPU.
  virtual c10::Device device() const = 0;
  /// False where what comes in is made up (mirror_transport.h): there is nothing to compare with the peers.
  virtual bool has_peers() const { return true; }
  /// Of the groups that this transport serves.
  AgreedCalls& agreed_calls() { return agreed_calls_; }
  /// Of the tasks that this rank runs over this transport.
  Stalls& stalls() { return stalls_; }

  /// Starts the transfers, receives first. `doing` says what this rank is at, for the messages of errors.
  virtual std::unique_ptr<Ticket> post(std::span<const Transfer> transfers, const std::string& doing) = 0;

  /// Connects this rank with those that it has not exchanged data with yet, each of which does the same: on some
  /// devices the first transfer between two ranks holds up their hosts, which must not happen within a task. Returns
  /// how many are new; 0 where connecting costs nothing. In the order of posts, like all that exchanges data.
  virtual int connect(std::span<const Contact> /*contacts*/, const std::string& /*doing*/) { return 0; }

  /// Makes the transport fail on all ranks, unless it has failed already; the first failure is kept. `message` names
  /// the rank and the cause. Never throws.
  virtual void record_failure(const std::string& message) noexcept = 0;

  /// The same for a wait that broke, or lasted too long (`expired`): asks all ranks what they are doing, records what
  /// keeps the run from going on, and returns it. `problem` says in this rank's words what it waited for.
  virtual std::string explain_failure(const std::string& problem, bool expired);

  /// What failed first, as far as this rank knows; asks the other ranks' records too where `look` is true.
  virtual std::optional<std::string> failure(bool look) = 0;

  /// Longest that one wait may take. It must exceed the skew that a schedule makes legitimate.
  virtual void set_timeout(std::chrono::milliseconds timeout) = 0;

  /// What this rank is busy with ("step 12, task 3"); part of every failure it records or reports.
  virtual void set_label(const std::string& label) = 0;
  virtual std::string label() const = 0;

 private:
  AgreedCalls agreed_calls_;
  Stalls stalls_;
};

/// A transport that other ranks look at while this one is elsewhere: what they must know of it. In a collective of
/// another process group a rank waits for all; collectives are counted, so that one who is behind is seen.
class Watched {
 public:
  virtual ~Watched() = default;
  virtual void enter_collective(const std::string& name) = 0;
  virtual void leave_collective() = 0;
  /// A collective on the device, which the current stream has just posted: looked after as transfers are. `doing` is
  /// for messages.
  virtual void watch_work(const c10::intrusive_ptr<c10d::Work>& work, const std::string& doing) = 0;
  /// Who hosts the store, and would be the cause if it did not answer: a rank, or -1 and words.
  virtual void set_store_host(int rank, const std::string& words) = 0;
  /// Transfers on the device that go far are carried by this process group of all ranks from here on.
  virtual void set_far_group(const std::string& group) = 0;
  /// A number that grows while the rank's process lives, even if it computes; -1 where the store does not tell.
  virtual std::int64_t pulse(int rank) = 0;
};

/// The transport of a process group (by the name torch.distributed gives it) or of a thread group. Throws
/// c10::ValueError where there is none of that name.
std::shared_ptr<Transport> find_transport(const std::string& group);
/// Null where nobody watches: ranks are threads, or made up.
std::shared_ptr<Watched> find_watched(const std::string& group);

/// Forgets the transport of a group: ends its failure watch. A later find_transport starts afresh.
void release_transport(const std::string& group);
void release_all_transports();

constexpr std::chrono::milliseconds kDefaultTimeout = std::chrono::seconds(600);

/// Words for errors: "rank 3 (step 12, task 3)"; the same and ", in ring_attention, forward, ring step 1 of 3, waiting
/// for rank 0"; what to record when a wait expired; and the throw at the end of every failed wait.
std::string describe_rank(const Transport& transport);
std::string describe_wait(const Transport& transport, const std::string& doing, Direction direction, int peer);
/// An error of the carrier in one line, without its source file and its words of comfort.
std::string plain_error(const std::string& error);
std::string timeout_words(std::chrono::milliseconds timeout);
[[noreturn]] void throw_failure(const std::string& root_cause, const std::string& where);

}  // namespace dhp::rt
