#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <span>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

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

/// Starts all transfers as one coalesced group: nothing that is posted later on this backend starts before all of them
/// are done, and none starts before the current stream is where it is now. The work's wait() makes the current stream
/// wait, never the host. Buffers without elements are left out: both ends know. Null if none is left.
c10::intrusive_ptr<c10d::Work> post_coalesced(c10d::Backend& backend, c10::Device device,
                                              std::span<const Transfer> transfers);

}  // namespace dhp::rt
