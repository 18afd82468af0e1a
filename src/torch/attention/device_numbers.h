#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dhp::rt {

/// Numbers of the host as a tensor of that type on the device, in the order of the current stream; the host does not
/// wait. The layers of a task ask for the same ones, so the last few are kept, each for the stream that made it.
at::Tensor device_numbers(const std::vector<std::int64_t>& numbers, at::ScalarType type, c10::Device device);

}  // namespace dhp::rt
