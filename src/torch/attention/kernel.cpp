#include "torch/attention/kernel.h"

#include <c10/util/Exception.h>

#include <atomic>

namespace dhp::rt {
namespace {

std::atomic<const AttentionKernel*> forced_kernel{nullptr};

}  // namespace

const AttentionKernel& select_kernel(const at::Tensor& q) {
  if (const auto* forced = forced_kernel.load()) return *forced;
  if (q.is_cpu()) return cpu_flash_kernel();
  return cuda_flash_applies(q) ? cuda_flash_kernel() : reference_kernel();
}

void use_kernel(const std::string& name) {
  if (name == "auto") {
    forced_kernel = nullptr;
    return;
  }
  for (const auto* kernel : {&reference_kernel(), &cpu_flash_kernel(), &cuda_flash_kernel()}) {
    if (name != kernel->name()) continue;
    forced_kernel = kernel;
    return;
  }
  C10_THROW_ERROR(ValueError, "use_kernel: found \"" + name + "\", expected auto, reference, cpu_flash or cuda_flash");
}

}  // namespace dhp::rt
