#include "torch/kernel.h"

#include <c10/util/Exception.h>

#include <atomic>

namespace dhp {
namespace {

std::atomic<const AttentionKernel*> forced_kernel{nullptr};

}  // namespace

const AttentionKernel& select_kernel(c10::Device device) {
  if (const auto* forced = forced_kernel.load()) return *forced;
  return device.is_cpu() ? cpu_flash_kernel() : reference_kernel();
}

void use_kernel(const std::string& name) {
  if (name == "auto") {
    forced_kernel = nullptr;
  } else if (name == "reference") {
    forced_kernel = &reference_kernel();
  } else if (name == "cpu_flash") {
    forced_kernel = &cpu_flash_kernel();
  } else {
    C10_THROW_ERROR(ValueError, "use_kernel: found \"" + name + "\", expected auto, reference or cpu_flash");
  }
}

}  // namespace dhp
