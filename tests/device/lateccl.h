#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "device.h"

namespace late {

/// What a careless backend or run-time would do; for tests of the tests.
enum class Fault {
  kNone,
  kWait,       ///< the current stream does not wait for a transfer
  kStart,      ///< a transfer does not wait for the current stream
  kReuse,      ///< what is sent is overwritten in the current stream right after the post, as freed memory may be
  kUngrouped,  ///< coalesced transfers run one after the other
};
/// "none", "wait", "start", "reuse" or "ungrouped".
void set_fault(const std::string& name);

/// Backends made from here on coalesce transfers, as NCCL and newer HCCL do, or take them as one fused batch, as older
/// HCCL does; then they refuse single ones.
void set_coalescing(bool on);
c10::intrusive_ptr<c10d::Work> post_batch(const c10::intrusive_ptr<c10d::Backend>& backend,
                                          const std::vector<std::string>& kinds, const std::vector<at::Tensor>& tensors,
                                          const std::vector<std::uint32_t>& peers);

/// Whom each backend has exchanged data with, as Contacts::told has it: a "late" one has held up a host in its work. In
/// the order in which the backends were made, also of those that are gone.
std::vector<std::map<std::string, std::vector<int>>> contacts();

/// A c10d backend with the order of NCCL: one stream a group, whose entries run one after the other; calls return at
/// once; wait() makes the current stream wait; transfers between two ranks meet in posting order whatever their tag;
/// those between startCoalescing and endCoalescing run together; where a peer is lost, a transfer stays until abort(),
/// after which what was to come is poison. `carrier`, of Gloo, moves the bytes. It keeps no buffers alive: stricter
/// than NCCL on purpose.
c10::intrusive_ptr<c10d::Backend> make_lateccl(c10::intrusive_ptr<c10d::Backend> carrier, Policy policy);

}  // namespace late
