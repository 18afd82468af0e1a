#include "torch/transport/device_carrier.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

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

c10::intrusive_ptr<c10d::Work> post_coalesced(c10d::Backend& backend, c10::Device device,
                                              std::span<const Transfer> transfers) {
  const c10::DeviceGuard guard(device);  // the thread of autograd posts too
  CoalescedGroup group(backend);
  for (const Direction direction : {Direction::kReceive, Direction::kSend}) {
    for (const Transfer& transfer : transfers) {
      if (transfer.direction != direction || transfer.buffer.numel() == 0) continue;
      std::vector<at::Tensor> buffers = {transfer.buffer};
      constexpr int kTag = 0;  // not looked at: posting order decides
      if (direction == Direction::kSend) {
        backend.send(buffers, transfer.peer, kTag);
      } else {
        backend.recv(buffers, transfer.peer, kTag);
      }
    }
  }
  return group.end();
}

}  // namespace dhp::rt
