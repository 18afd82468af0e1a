#pragma once

#include <memory>
#include <string>

#include "torch/transport/transport.h"

namespace dhp::rt {

/// The transport over a c10d process group that torch.distributed knows by this name (Python: `group.group_name`). The
/// group spans the world, so that ranks in it are world ranks. Gloo carries CPU tensors.
std::shared_ptr<Transport> find_c10d_transport(const std::string& group);
void release_c10d_transport(const std::string& group);
void release_all_c10d_transports();

}  // namespace dhp::rt
