#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace late {

/// A tensor of the same shape that holds nothing, for the kernels that tell shapes.
at::Tensor as_meta(const at::Tensor& tensor);

/// Boxed, for every operator that has no kernel here.
void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack);

}  // namespace late
