#pragma once

#include <cstdint>
#include <string>

#include "torch/transport/transport.h"

namespace dhp::rt {

/// A transport with nobody at the other end: sends vanish, receives bring zeros at once. One process can then run the
/// share of one rank of a group of any size, with all its blocks and merges, to measure what that share costs; results
/// are meaningless. `device` is where its buffers live.
std::shared_ptr<Transport> make_mirror_transport(int size, int rank, c10::Device device);

/// Registers one under the name of a group.
void create_mirror_group(const std::string& name, int size, int rank, const std::string& device);

}  // namespace dhp::rt
