#include "torch/transport/device_carrier.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <torch/csrc/distributed/c10d/GroupRegistry.hpp>
#include <vector>

namespace dhp::rt {
namespace {

/// Ends the group also where a transfer throws: a half-open one would swallow all that comes after it.
class CoalescedGroup {
 public:
  explicit CoalescedGroup(c10d::Backend& backend) : backend_(backend) { backend_.startCoalescing(); }
  ~CoalescedGroup() {
    if (is_ended_) return;
    try {
      backend_.endCoalescing();
    } catch (const std::exception&) {
      // the error under way says more
    }
  }
  CoalescedGroup(const CoalescedGroup&) = delete;
  CoalescedGroup& operator=(const CoalescedGroup&) = delete;

  c10::intrusive_ptr<c10d::Work> end() {
    is_ended_ = true;
    return backend_.endCoalescing();
  }

 private:
  c10d::Backend& backend_;
  bool is_ended_ = false;
};

/// Receives first, as both ends expect.
std::vector<const Transfer*> in_order(std::span<const Transfer> transfers) {
  std::vector<const Transfer*> ordered;
  for (const Direction direction : {Direction::kReceive, Direction::kSend}) {
    for (const Transfer& transfer : transfers) {
      if (transfer.direction == direction && transfer.buffer.numel() > 0) ordered.push_back(&transfer);
    }
  }
  return ordered;
}

c10::intrusive_ptr<c10d::Work> post_coalesced(c10d::Backend& backend, const std::vector<const Transfer*>& transfers) {
  CoalescedGroup group(backend);
  for (const Transfer* transfer : transfers) {
    std::vector<at::Tensor> buffers = {transfer->buffer};
    constexpr int kTag = 0;  // not looked at: posting order decides
    if (transfer->direction == Direction::kSend) {
      backend.send(buffers, transfer->peer, kTag);
    } else {
      backend.recv(buffers, transfer->peer, kTag);
    }
  }
  return group.end();
}

/// By the method that a backend without coalescing has for a group of transfers (older HCCL), which is not among those
/// of c10d: the package calls it in Python (dhp/run/ops.py). One by one they could wait for each other.
c10::intrusive_ptr<c10d::Work> post_fused(const std::string& group, const std::vector<const Transfer*>& transfers) {
  c10::List<std::string> kinds;
  c10::List<at::Tensor> buffers;
  c10::List<std::int64_t> peers;
  for (const Transfer* transfer : transfers) {
    kinds.push_back(transfer->direction == Direction::kSend ? "isend" : "irecv");
    buffers.push_back(transfer->buffer);
    peers.push_back(transfer->peer);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("dhp::batch_isend_irecv", "");
  torch::jit::Stack stack{group, kinds, buffers, peers};
  op.callBoxed(&stack);
  return stack.at(0).toCustomClass<c10d::Work>();
}

}  // namespace

c10::Device with_index(c10::Device device) {
  if (device.is_cpu() || device.has_index()) return device;
  return c10::impl::VirtualGuardImpl(device.type()).getDevice();
}

c10::Device accelerator_of(c10d::ProcessGroup& group) {
  for (const c10::Device device : group.getDeviceTypes()) {
    if (device.is_cpu() || group.getBackend(device.type())->getBackendName() == "gloo") continue;
    return with_index(device.type());
  }
  return c10::kCPU;
}

DeviceLanes::DeviceLanes(const c10::intrusive_ptr<c10d::ProcessGroup>& group, std::string name, c10::Device device)
    : device_(device), size_(group->getSize()) {
  if (!device.is_cpu()) lanes_.emplace_back(std::move(name), group->getBackend(device.type()));
}

void DeviceLanes::set_far(const std::string& name) {
  const auto group = c10d::resolve_process_group(name);
  TORCH_CHECK_VALUE(group->getSize() == size_, "the group of far transfers has ", group->getSize(), " ranks, expected ",
                    size_, ", those of the other one");
  if (device_.is_cpu()) return;
  const std::lock_guard lock(mutex_);
  lanes_.erase(lanes_.begin() + 1, lanes_.end());
  lanes_.emplace_back(name, group->getBackend(device_.type()));
}

DeviceLanes::Posted DeviceLanes::post(std::span<const Transfer> transfers) {
  const auto ordered = in_order(transfers);
  if (ordered.empty()) return {};
  std::size_t lane = 0;
  std::string name;
  c10::intrusive_ptr<c10d::Backend> backend;
  {
    const std::lock_guard lock(mutex_);
    lane = lane_of(ordered.front()->far);
    name = lanes_[lane].name;
    backend = lanes_[lane].backend.lock();
  }
  TORCH_CHECK_VALUE(backend != nullptr, "the process group of this transport was destroyed");
  const c10::DeviceGuard guard(device_);  // the thread of autograd posts too
  return {backend->supportsCoalescing() ? post_coalesced(*backend, ordered) : post_fused(name, ordered), lane};
}

std::vector<Contact> DeviceLanes::meet(std::span<const Contact> contacts) {
  std::vector<Contact> fresh;
  const std::lock_guard lock(mutex_);
  for (const Contact& contact : contacts) {
    if (lanes_[lane_of(contact.far)].met.insert(contact.peer).second) fresh.push_back(contact);
  }
  return fresh;
}

void DeviceLanes::abort() {
  std::vector<c10::intrusive_ptr<c10d::Backend>> backends;
  {
    const std::lock_guard lock(mutex_);
    for (const Lane& lane : lanes_) backends.push_back(lane.backend.lock());
  }
  for (const auto& backend : backends) {
    if (backend != nullptr) backend->abort();
  }
}

}  // namespace dhp::rt
