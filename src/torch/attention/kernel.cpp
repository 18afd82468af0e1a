#include "torch/attention/kernel.h"

#include <c10/core/DeviceType.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <string>

namespace dhp::rt {
namespace {

std::atomic<const AttentionKernel*> forced_kernel{nullptr};

/// The fused kernel of a kind of device, by the name that torch gives it, and for which queries it is there.
struct FusedKernel {
  const char* device;
  const AttentionKernel& (*kernel)();
  bool (*applies)(const at::Tensor& q);
};

constexpr FusedKernel kFusedKernels[] = {
    {"cpu", cpu_flash_kernel, [](const at::Tensor&) { return true; }},
    {"cuda", cuda_flash_kernel, cuda_flash_applies},
    {"npu", npu_fusion_kernel, npu_fusion_applies},
};

}  // namespace

const AttentionKernel& select_kernel(const at::Tensor& q) {
  if (const auto* forced = forced_kernel.load()) return *forced;
  const std::string device = c10::DeviceTypeName(q.device().type(), /*lower_case=*/true);
  for (const FusedKernel& fused : kFusedKernels) {
    if (device == fused.device && fused.applies(q)) return fused.kernel();
  }
  return reference_kernel();
}

void use_kernel(const std::string& name) {
  if (name == "auto") {
    forced_kernel = nullptr;
    return;
  }
  std::string known = "auto";
  for (const auto* kernel : {&reference_kernel(), &cpu_flash_kernel(), &cuda_flash_kernel(), &npu_fusion_kernel()}) {
    known += std::string(", ") + kernel->name();
    if (name != kernel->name()) continue;
    forced_kernel = kernel;
    return;
  }
  C10_THROW_ERROR(ValueError, "use_kernel: found \"" + name + "\", expected one of " + known);
}

}  // namespace dhp::rt
