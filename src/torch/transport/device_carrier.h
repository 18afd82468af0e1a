#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <mutex>
#include <set>
#include <span>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <vector>

#include "torch/transport/transport.h"

// Transfers of device tensors. Nothing here is of one kind of device: no header of CUDA or NCCL.
namespace dhp::rt {

/// Transfers that may be in one coalesced group: NCCL can cut larger ones into kernels at other places on other ranks,
/// which then wait for each other (github.com/pytorch/pytorch/issues/174288).
constexpr int kMostCoalesced = 256;

/// The device with the index that is current, if it has none.
c10::Device with_index(c10::Device device);

/// The accelerator that the group carries tensors of, with the index that is current; the CPU where there is none.
/// Gloo lists devices too, but copies through the host.
c10::Device accelerator_of(c10d::ProcessGroup& group);

/// Where the transfers of a device go: near ones, and far ones where there is a second process group for them, so that
/// a slow transfer between nodes, started ticks ahead, does not hold up all later ones inside the node. Each lane works
/// off its groups of transfers one after the other. Any thread may call.
class DeviceLanes {
 public:
  /// `name` is that of `group`. On a CPU there are no lanes.
  DeviceLanes(const c10::intrusive_ptr<c10d::ProcessGroup>& group, std::string name, c10::Device device);

  /// Throws c10::ValueError unless it spans the same ranks.
  void set_far(const std::string& name);

  struct Posted {
    c10::intrusive_ptr<c10d::Work> work;
    std::size_t lane = 0;
  };

  /// Starts all transfers, which take one lane, as one coalesced group: nothing that is posted later on this lane
  /// starts before all of them are done, and none starts before the current stream is where it is now. The work's
  /// wait() makes the current stream wait, never the host. Buffers without elements are left out: both ends know. No
  /// work if none is left.
  Posted post(std::span<const Transfer> transfers);

  /// Those that this rank has not met yet on their lane; it has from now on.
  std::vector<Contact> meet(std::span<const Contact> contacts);

  /// Ends all transfers; may take long.
  void abort();

 private:
  struct Lane {
    Lane(std::string of, const c10::intrusive_ptr<c10d::Backend>& by) : name(std::move(of)), backend(by) {}

    std::string name;
    c10::weak_intrusive_ptr<c10d::Backend> backend;  // the owner of the group decides when its connections close
    std::set<int> met;
  };

  /// The lane that a transfer takes. With the lock.
  std::size_t lane_of(bool far) const { return far && lanes_.size() > 1 ? 1 : 0; }

  const c10::Device device_;
  const int size_;
  std::mutex mutex_;         // guards the lanes
  std::vector<Lane> lanes_;  // near, far: kLanes at most
};

}  // namespace dhp::rt
