#include "torch/transport/c10d_transport.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include "torch/transport/device_carrier.h"
#include "torch/transport/failure_watch.h"
#include "torch/transport/registry.h"

namespace dhp::rt {
namespace {

/// Gloo's own time-out, which closes the connections to all ranks.
bool is_timeout(const std::string& error) { return error.find("Timed out") != std::string::npos; }

class C10dTransport;

class C10dTicket final : public Ticket {
 public:
  struct Leg {
    c10::intrusive_ptr<c10d::Work> work;
    Direction direction;
    int peer;
  };

  C10dTicket(C10dTransport* transport, std::string doing, std::vector<Leg> legs)
      : transport_(transport), doing_(std::move(doing)), legs_(std::move(legs)) {}

  void wait() override;

 private:
  C10dTransport* transport_;
  std::string doing_;
  std::vector<Leg> legs_;
};

/// Transfers on a device. The watch looks after them from their post on; the host never waits here.
class DeviceTicket final : public Ticket {
 public:
  DeviceTicket(C10dTransport* transport, c10::intrusive_ptr<c10d::Work> work, std::string where,
               std::span<const Transfer> transfers)
      : transport_(transport), work_(std::move(work)), where_(std::move(where)) {
    for (const Transfer& transfer : transfers) buffers_.push_back(transfer.buffer);
  }

  void wait() override;

 private:
  C10dTransport* transport_;
  c10::intrusive_ptr<c10d::Work> work_;
  std::string where_;
  std::vector<at::Tensor> buffers_;  // not all backends keep them
};

class C10dTransport final : public Transport, public Watched {
 public:
  C10dTransport(const c10::intrusive_ptr<c10d::ProcessGroup>& group, const std::string& name)
      : group_(group),
        device_(accelerator_of(*group)),
        backend_(group->getBackend(c10::kCPU)),
        lanes_(std::make_shared<DeviceLanes>(group, name, device_)),
        rank_(group->getRank()),
        size_(group->getSize()),
        carrier_timeout_(carrier_timeout(*backend_.lock())),
        timeout_(std::min(kDefaultTimeout, carrier_timeout_)),
        watch_(rank_, size_, private_store(*group), [lanes = lanes_] { lanes->abort(); }) {}

  bool serves(const c10::intrusive_ptr<c10d::ProcessGroup>& group) const { return group_.lock() == group; }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  c10::Device device() const override { return device_; }

  std::unique_ptr<Ticket> post(std::span<const Transfer> transfers, const std::string& doing) override {
    watch_.host_is_here();
    check_failure(describe_rank(*this) + ", in " + doing);
    const bool is_on_host = transfers.empty() || transfers.front().buffer.is_cpu();
    return is_on_host ? post_on_host(transfers, doing) : post_on_device(transfers, doing);
  }

  /// A byte each way on each lane, and the current stream goes on when all have come.
  int connect(std::span<const Contact> contacts, const std::string& doing) override {
    if (device_.is_cpu()) return 0;
    const auto fresh = lanes_->meet(contacts);
    if (fresh.empty()) return 0;  // nobody waits for this rank: who is new to it is a pair's, and known to both
    const auto bytes = at::zeros({2 * std::ssize(fresh)}, at::TensorOptions(device_).dtype(at::kByte));
    std::int64_t used = 0;
    for (const bool far : {false, true}) {
      std::vector<Transfer> transfers;
      for (const Contact& contact : fresh) {
        if (contact.far != far) continue;
        for (const Direction direction : {Direction::kReceive, Direction::kSend}) {
          transfers.push_back({direction, contact.peer, Role::kHeader, bytes.narrow(0, used++, 1), far});
        }
      }
      if (!transfers.empty()) post(transfers, doing)->wait();
    }
    return static_cast<int>(fresh.size());
  }

  void check_failure(const std::string& where) {
    if (const auto known = watch_.record().known()) throw_failure(*known, where);
  }

  /// Ends a wait that broke or expired: throws the cause, wherever it is.
  [[noreturn]] void fail_wait(const std::string& where, const std::string& problem, bool expired) {
    throw_failure(explain_failure(where + ": " + problem, expired), where);
  }

  std::string explain_failure(const std::string& problem, bool expired) override {
    watch_.record().explain(problem, expired);
    return watch_.record().known().value_or(problem);
  }
  void record_failure(const std::string& message) noexcept override { watch_.record().write(message); }
  std::optional<std::string> failure(bool look) override {
    watch_.host_is_here();
    if (look) watch_.record().read_now();
    return watch_.record().known();
  }
  FailureWatch& watch() { return watch_; }

  void set_timeout(std::chrono::milliseconds timeout) override {
    std::lock_guard lock(mutex_);
    timeout_ = std::min(timeout, carrier_timeout_);
  }
  std::chrono::milliseconds timeout() const {
    std::lock_guard lock(mutex_);
    return timeout_;
  }
  void set_label(const std::string& label) override {
    std::lock_guard lock(mutex_);
    label_ = label;
    watch_.record().set_place(label);
  }
  void enter_collective(const std::string& name) override {
    agreed_calls().clear();
    watch_.record().enter_collective(name);
  }
  void leave_collective() override { watch_.record().go_on(); }
  void watch_work(const c10::intrusive_ptr<c10d::Work>& work, const std::string& doing) override {
    watch_.host_is_here();
    if (device_.is_cpu()) return;
    const std::string where = describe_rank(*this) + ", in " + doing;
    check_failure(where);
    watch_.add_posted(work, device_, where, kNoPeer, timeout());
  }
  void set_store_host(int rank, const std::string& words) override { watch_.record().set_store_host(rank, words); }
  void set_far_group(const std::string& group) override { lanes_->set_far(group); }
  std::int64_t pulse(int rank) override { return watch_.record().pulse(rank); }
  std::string label() const override {
    std::lock_guard lock(mutex_);
    return label_;
  }

 private:
  static c10::intrusive_ptr<c10d::Backend> alive(const c10::weak_intrusive_ptr<c10d::Backend>& backend) {
    auto locked = backend.lock();
    TORCH_CHECK_VALUE(locked != nullptr, "the process group of this transport was destroyed");
    return locked;
  }

  std::unique_ptr<Ticket> post_on_device(std::span<const Transfer> transfers, const std::string& doing) {
    const auto first = std::find_if(transfers.begin(), transfers.end(),
                                    [](const Transfer& transfer) { return transfer.direction == Direction::kReceive; });
    const Transfer& named = first == transfers.end() ? transfers.front() : *first;
    const std::string where = describe_wait(*this, doing, named.direction, named.peer);
    try {
      auto [work, lane] = lanes_->post(transfers);
      if (work) watch_.add_posted(work, device_, where, named.peer, timeout(), lane);
      return std::make_unique<DeviceTicket>(this, std::move(work), where, transfers);
    } catch (const std::exception& error) {
      fail_wait(where, plain_error(error.what()), false);
    }
  }

  std::unique_ptr<Ticket> post_on_host(std::span<const Transfer> transfers, const std::string& doing) {
    const auto backend = alive(backend_);
    std::vector<C10dTicket::Leg> legs;
    legs.reserve(transfers.size());
    for (const Direction direction : {Direction::kReceive, Direction::kSend}) {
      for (const Transfer& transfer : transfers) {
        if (transfer.direction != direction) continue;
        std::vector<at::Tensor> tensors{transfer.buffer};
        const int tag = static_cast<int>(transfer.role);
        try {
          auto work = direction == Direction::kSend ? backend->send(tensors, transfer.peer, tag)
                                                    : backend->recv(tensors, transfer.peer, tag);
          legs.push_back({std::move(work), direction, transfer.peer});
        } catch (const std::exception& error) {
          watch_.record().wait_for(transfer.peer);
          fail_wait(describe_wait(*this, doing, direction, transfer.peer), plain_error(error.what()), false);
        }
      }
    }
    return std::make_unique<C10dTicket>(this, doing, std::move(legs));
  }

  static c10::intrusive_ptr<c10d::Store> private_store(const c10d::ProcessGroup& group) {
    const auto store = group.getStore();
    TORCH_CHECK(store != nullptr, "the process group has no store, which DHP needs to tell ranks of failures");
    return store->clone();
  }

  /// Longest wait that ends before the group's own time-out, which in Gloo closes the connections to all ranks.
  static std::chrono::milliseconds carrier_timeout(c10d::Backend& backend) {
    const auto limit = backend.getBackendOptions()->timeout;
    return limit - std::max(std::chrono::milliseconds(500), limit / 20);
  }

  // Weak: the owner of the group decides when its connections close.
  const c10::weak_intrusive_ptr<c10d::ProcessGroup> group_;
  const c10::Device device_;
  const c10::weak_intrusive_ptr<c10d::Backend> backend_;  // of CPU tensors
  const std::shared_ptr<DeviceLanes> lanes_;              // shared with an abort that may outlive this
  const int rank_;
  const int size_;
  const std::chrono::milliseconds carrier_timeout_;
  mutable std::mutex mutex_;
  std::chrono::milliseconds timeout_;
  std::string label_;
  FailureWatch watch_;
};

void C10dTicket::wait() {
  const Stalls::Wait stall(transport_->stalls(), transport_->device());
  FailureWatch::Works works;
  works.reserve(legs_.size());
  for (const Leg& leg : legs_) works.push_back(leg.work);
  const auto timeout = transport_->timeout();
  const auto id = transport_->watch().begin(works, timeout);

  const Leg* failed = nullptr;
  std::string error;
  for (const Leg& leg : legs_) {
    transport_->watch().record().wait_for(leg.peer);
    try {
      if (leg.work->wait()) continue;
    } catch (const std::exception& problem) {
      error = problem.what();
    }
    failed = &leg;
    break;
  }
  const auto outcome = transport_->watch().end(id);
  if (failed == nullptr) {
    transport_->watch().record().go_on();
    return;
  }
  const std::string where = describe_wait(*transport_, doing_, failed->direction, failed->peer);
  if (outcome == FailureWatch::Outcome::kTimedOut) transport_->fail_wait(where, timeout_words(timeout), true);
  if (!error.empty()) transport_->fail_wait(where, plain_error(error), is_timeout(error));
  throw_failure(transport_->failure(false).value_or("the transfer was aborted"), where);
}

void DeviceTicket::wait() {
  transport_->check_failure(where_);
  const Stalls::Wait stall(transport_->stalls(), transport_->device());
  if (work_) work_->wait();
}

Registry<C10dTransport>& c10d_registry() {
  static Registry<C10dTransport> instance;
  return instance;
}

}  // namespace

std::shared_ptr<Transport> find_c10d_transport(const std::string& group) {
  c10::intrusive_ptr<c10d::ProcessGroup> process_group;
  try {
    process_group = c10d::resolve_process_group(group);
  } catch (const std::exception&) {
    C10_THROW_ERROR(ValueError, "group: there is no process group named \"" + group +
                                    "\" here; give the group_name of one made by torch.distributed");
  }
  std::shared_ptr<C10dTransport> replaced;  // destroyed after the lock: that joins a thread
  std::lock_guard lock(c10d_registry().mutex);
  auto& entry = c10d_registry().transports[group];
  if (!entry || !entry->serves(process_group)) {
    replaced = std::exchange(entry, std::make_shared<C10dTransport>(process_group, group));
  }
  return entry;
}

void release_c10d_transport(const std::string& group) { c10d_registry().release(group); }

void release_all_c10d_transports() { c10d_registry().release_all(); }

}  // namespace dhp::rt
