#include "torch/transport/thread_transport.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "torch/transport/device_carrier.h"
#include "torch/transport/registry.h"

namespace dhp::rt {
namespace {

c10::Stream current_stream(c10::Device device) { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); }

using Event = std::shared_ptr<c10::Event>;

Event record_event(c10::Stream stream) {
  auto event = std::make_shared<c10::Event>(stream.device_type());
  event->record(stream);
  return event;
}

/// One transfer on its way. On a device the buffer may be read, or written, from `ready` on, and the transfer is over
/// at `copied`. `done` (the peer has come) and `copied` are guarded by the mutex of the hub.
struct Pending {
  explicit Pending(const at::Tensor& of)
      : buffer(of), ready(of.is_cpu() ? nullptr : record_event(current_stream(of.device()))) {}

  at::Tensor buffer;
  const Event ready;
  Event copied = nullptr;
  bool done = false;
};

/// What is sent, and what is expected instead, if one cannot be copied to the other.
std::optional<std::pair<std::string, std::string>> difference(const at::Tensor& source, const at::Tensor& target) {
  if (source.nbytes() != target.nbytes()) {
    return std::pair(std::to_string(source.nbytes()) + " bytes", std::to_string(target.nbytes()));
  }
  if (source.is_cpu() == target.is_cpu()) return std::nullopt;
  return std::pair("a tensor on " + source.device().str(), "one on " + target.device().str());
}

/// Where the threads meet. A send and a receive of one channel are matched in posting order by whoever comes second,
/// and copied under the lock: simple and obviously free of races; speed does not matter here. Buffers of a device are
/// copied by a stream of the hub, in the order of the matches. What a copy waits for was posted before: each rank's
/// stream waits only for copies that the hub's stream has already.
class Hub {
 public:
  explicit Hub(int size) : size_(size) {}

  int size() const { return size_; }

  std::shared_ptr<Pending> post(int sender, int receiver, Role role, bool is_send, const at::Tensor& buffer) {
    auto mine = std::make_shared<Pending>(buffer);
    std::lock_guard lock(mutex_);
    Channel& channel = channels_[{sender, receiver, role}];
    auto& own_queue = is_send ? channel.sends : channel.receives;
    auto& other_queue = is_send ? channel.receives : channel.sends;
    if (other_queue.empty()) {
      own_queue.push_back(mine);
      return mine;
    }
    const auto other = other_queue.front();
    other_queue.pop_front();
    const auto& source = is_send ? mine : other;
    const auto& target = is_send ? other : mine;
    if (const auto problem = difference(source->buffer, target->buffer)) {
      fail_locked("rank " + std::to_string(sender) + " sent " + problem->first + " where rank " +
                  std::to_string(receiver) + " expected " + problem->second);
      return mine;
    }
    if (source->ready && target->ready) {
      source->copied = target->copied = copy_late(*source, *target);
    } else if (source->buffer.nbytes() > 0) {
      std::memcpy(target->buffer.mutable_data_ptr(), source->buffer.const_data_ptr(), source->buffer.nbytes());
    }
    source->done = target->done = true;
    changed_.notify_all();
    return mine;
  }

  enum class Outcome { kDone, kFailed, kTimedOut };

  Outcome wait(const Pending& pending, std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    const bool ended = changed_.wait_for(lock, timeout, [&] { return pending.done || failure_.has_value(); });
    if (pending.done) return Outcome::kDone;
    return ended ? Outcome::kFailed : Outcome::kTimedOut;
  }

  /// Takes a transfer back, so that nobody touches its buffer afterwards. One that is matched already cannot be: the
  /// current stream, in whose order the buffer's memory is used again, waits for the copy.
  void withdraw(const std::shared_ptr<Pending>& pending) {
    std::unique_lock lock(mutex_);
    for (auto& [key, channel] : channels_) {
      std::erase(channel.sends, pending);
      std::erase(channel.receives, pending);
    }
    lock.unlock();
    if (pending->copied) pending->copied->block(current_stream(pending->buffer.device()));
  }

  void fail(const std::string& message) {
    std::lock_guard lock(mutex_);
    fail_locked(message);
  }

  std::optional<std::string> failure() {
    std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  struct Channel {
    std::deque<std::shared_ptr<Pending>> sends;
    std::deque<std::shared_ptr<Pending>> receives;
  };

  /// With the lock.
  Event copy_late(const Pending& source, Pending& target) {
    const c10::Device device = source.buffer.device();
    if (!stream_) stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
    const c10::StreamGuard guard(*stream_);
    const at::NoGradGuard no_grad;
    source.ready->block(*stream_);
    target.ready->block(*stream_);
    target.buffer.view(-1).copy_(source.buffer.view(-1), /*non_blocking=*/true);
    return record_event(*stream_);
  }

  void fail_locked(const std::string& message) {
    if (!failure_) failure_ = message;
    changed_.notify_all();
  }

  const int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::tuple<int, int, Role>, Channel> channels_;
  std::optional<std::string> failure_;
  std::optional<c10::Stream> stream_;  // from the first transfer on a device on
};

class ThreadTransport;

class ThreadTicket final : public Ticket {
 public:
  ThreadTicket(std::shared_ptr<Hub> hub, ThreadTransport* transport, std::string doing)
      : hub_(std::move(hub)), transport_(transport), doing_(std::move(doing)) {}
  ~ThreadTicket() override {
    for (const Leg& leg : legs_) {
      try {
        hub_->withdraw(leg.pending);
      } catch (const std::exception&) {
        // The device has failed: the next call to it says so.
      }
    }
  }

  void add(std::shared_ptr<Pending> pending, const Transfer& transfer) {
    legs_.push_back({std::move(pending), transfer.peer, transfer.direction});
  }
  void wait() override;

 private:
  struct Leg {
    std::shared_ptr<Pending> pending;
    int peer;
    Direction direction;
  };

  std::shared_ptr<Hub> hub_;
  ThreadTransport* transport_;
  std::string doing_;
  std::vector<Leg> legs_;
};

class ThreadTransport final : public Transport {
 public:
  ThreadTransport(std::shared_ptr<Hub> hub, int rank, c10::Device device)
      : hub_(std::move(hub)), rank_(rank), device_(device) {}

  int rank() const override { return rank_; }
  int size() const override { return hub_->size(); }
  c10::Device device() const override { return device_; }

  std::unique_ptr<Ticket> post(std::span<const Transfer> transfers, const std::string& doing) override {
    auto ticket = std::make_unique<ThreadTicket>(hub_, this, doing);
    for (const Direction direction : {Direction::kReceive, Direction::kSend}) {
      for (const Transfer& transfer : transfers) {
        if (transfer.direction != direction) continue;
        const bool is_send = direction == Direction::kSend;
        const int sender = is_send ? rank_ : transfer.peer;
        const int receiver = is_send ? transfer.peer : rank_;
        ticket->add(hub_->post(sender, receiver, transfer.role, is_send, transfer.buffer), transfer);
      }
    }
    return ticket;
  }

  void record_failure(const std::string& message) noexcept override { hub_->fail(message); }
  std::optional<std::string> failure(bool /*look*/) override { return hub_->failure(); }

  void set_timeout(std::chrono::milliseconds timeout) override {
    std::lock_guard lock(mutex_);
    timeout_ = timeout;
  }
  std::chrono::milliseconds timeout() const {
    std::lock_guard lock(mutex_);
    return timeout_;
  }
  void set_label(const std::string& label) override {
    std::lock_guard lock(mutex_);
    label_ = label;
  }
  std::string label() const override {
    std::lock_guard lock(mutex_);
    return label_;
  }

 private:
  const std::shared_ptr<Hub> hub_;
  const int rank_;
  const c10::Device device_;
  mutable std::mutex mutex_;
  std::chrono::milliseconds timeout_ = kDefaultTimeout;
  std::string label_;
};

void ThreadTicket::wait() {
  const Stalls::Wait stall(transport_->stalls(), transport_->device());
  for (const Leg& leg : legs_) {
    const auto timeout = transport_->timeout();
    const auto outcome = hub_->wait(*leg.pending, timeout);
    if (outcome == Hub::Outcome::kDone) {
      // Not the host: that is here as soon as the peer's is.
      if (const Event& copied = leg.pending->copied) copied->block(current_stream(leg.pending->buffer.device()));
      continue;
    }
    const std::string where = describe_wait(*transport_, doing_, leg.direction, leg.peer);
    if (outcome == Hub::Outcome::kTimedOut) hub_->fail(where + ": " + timeout_words(timeout));
    throw_failure(*hub_->failure(), where);
  }
  legs_.clear();
}

Registry<Transport>& thread_registry() {
  static Registry<Transport> instance;
  return instance;
}

}  // namespace

std::vector<std::shared_ptr<Transport>> make_thread_transports(int size, c10::Device device) {
  TORCH_CHECK_VALUE(size > 0, "a thread group needs at least 1 rank, got ", size);
  auto hub = std::make_shared<Hub>(size);
  std::vector<std::shared_ptr<Transport>> transports;
  transports.reserve(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    transports.push_back(std::make_shared<ThreadTransport>(hub, rank, with_index(device)));
  }
  return transports;
}

void create_thread_groups(const std::string& name, int size, const std::string& device) {
  const auto transports = make_thread_transports(size, c10::Device(device));
  for (int rank = 0; rank < size; ++rank) {
    register_transport(name + "/" + std::to_string(rank), transports[static_cast<std::size_t>(rank)]);
  }
}

void register_transport(const std::string& group, std::shared_ptr<Transport> transport) {
  std::lock_guard lock(thread_registry().mutex);
  thread_registry().transports[group] = std::move(transport);
}

std::shared_ptr<Transport> find_thread_transport(const std::string& group) {
  std::lock_guard lock(thread_registry().mutex);
  const auto found = thread_registry().transports.find(group);
  return found == thread_registry().transports.end() ? nullptr : found->second;
}

void release_thread_transport(const std::string& group) { thread_registry().release(group); }

void release_all_thread_transports() { thread_registry().release_all(); }

}  // namespace dhp::rt
