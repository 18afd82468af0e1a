// Every operator that is not written by hand: its shapes by its own meta kernel, its work by its CPU kernel, late.
#include <ATen/ATen.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <mutex>
#include <optional>

#include "device.h"
#include "operators.h"

namespace late {
namespace {

using Values = std::vector<c10::IValue>;

template <typename Map>
c10::IValue map_tensors(const c10::IValue& value, const Map& map) {
  if (value.isTensor()) return map(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> mapped;
    for (const at::Tensor& tensor : value.toTensorVector()) mapped.push_back(map(tensor));
    return mapped;
  }
  if (value.isList() && value.toList().elementType()->isSubtypeOf(*c10::OptionalType::ofTensor())) {
    c10::List<std::optional<at::Tensor>> mapped;
    for (const c10::IValue& entry : value.toList().vec()) {
      mapped.push_back(entry.isNone() ? std::optional<at::Tensor>() : map(entry.toTensor()));
    }
    return mapped;
  }
  return value;
}

c10::IValue on_device(const c10::IValue& value, c10::DeviceType type) {
  return value.isDevice() && value.toDevice().type() == kType ? c10::IValue(c10::Device(type)) : value;
}

at::Tensor empty_late(const at::Tensor& like) {
  if (!like.defined()) return like;
  return at::empty_strided(like.sizes(), like.strides(), like.options().device(this_device()));
}

/// A kernel reads the host's numbers when it is launched, not when it runs.
at::Tensor for_cpu(const at::Tensor& tensor) {
  if (is_late(tensor)) return host_view(tensor);
  return tensor.defined() && tensor.numel() > 0 ? tensor.clone() : tensor;
}

struct Call {
  const c10::OperatorHandle& op;
  Values arguments;
  torch::jit::Stack cpu = {};
  torch::jit::Stack meta = {};

  const c10::Argument& argument(std::size_t i) const { return op.schema().arguments()[i]; }
  bool is_out(std::size_t i) const { return argument(i).is_out() && arguments[i].isTensor(); }
  bool returns_new() const {
    const auto& returns = op.schema().returns();
    return !returns.empty() && !(returns[0].alias_info() && returns[0].alias_info()->isWrite());
  }
};

Call take_call(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const std::size_t count = op.schema().arguments().size();
  Call call{op, Values(stack->end() - static_cast<std::ptrdiff_t>(count), stack->end())};
  torch::jit::drop(*stack, count);
  for (const c10::IValue& argument : call.arguments) {
    call.cpu.push_back(on_device(map_tensors(argument, for_cpu), c10::kCPU));
    call.meta.push_back(on_device(map_tensors(argument, as_meta), c10::kMeta));
  }
  return call;
}

/// Of an operator that returns what it writes to: those arguments.
Values written(const Call& call) {
  Values results;
  for (const c10::Argument& result : call.op.schema().returns()) {
    for (std::size_t i = 0; i < call.arguments.size(); ++i) {
      const auto* info = call.argument(i).alias_info();
      if (!info || !result.alias_info() || !info->isWrite()) continue;
      if (info->beforeSets() != result.alias_info()->beforeSets()) continue;
      results.push_back(call.arguments[i]);
      break;
    }
  }
  return results;
}

/// Whether the caller has left the size of an `out` to the operator.
bool sizes_outputs(const Call& call) {
  for (std::size_t i = 0; i < call.arguments.size(); ++i) {
    if (call.is_out(i) && call.arguments[i].toTensor().numel() == 0) return true;
  }
  return false;
}

/// Calls the meta kernel; false where there is none, or the shape depends on data.
bool call_meta(const Call& call, torch::jit::Stack& stack) {
  try {
    call.op.callBoxed(&stack);
    return true;
  } catch (const std::exception&) {
    return false;  // a wrong call fails again on the CPU, with its own words
  }
}

/// What the results are written to, where that is known without data: new tensors, or the arguments.
std::optional<Values> make_results(Call& call) {
  if (call.returns_new()) {
    if (!call_meta(call, call.meta)) return std::nullopt;
    Values results;
    for (const c10::IValue& value : call.meta) {
      if (!value.isTensor() && !value.isTensorList()) return std::nullopt;
      results.push_back(map_tensors(value, empty_late));
    }
    return results;
  }
  if (sizes_outputs(call)) {
    const Values sized = call.meta;
    if (!call_meta(call, call.meta)) return std::nullopt;
    for (std::size_t i = 0; i < call.arguments.size(); ++i) {
      if (!call.is_out(i)) continue;
      at::native::resize_output(call.arguments[i].toTensor(), sized[i].toTensor().sizes());
      call.cpu[i] = host_view(call.arguments[i].toTensor());
    }
  }
  return written(call);
}

void copy_into(const c10::IValue& target, const c10::IValue& result) {
  const auto copy = [](const at::Tensor& to, const at::Tensor& from) {
    if (to.defined() && to.numel() > 0) to.copy_(from);
  };
  if (target.isTensor()) return copy(target.toTensor(), result.toTensor());
  const auto to = target.toTensorVector();
  const auto from = result.toTensorVector();
  for (std::size_t i = 0; i < to.size(); ++i) copy(to[i], from[i]);
}

void run_late(Call& call, const Values& results) {
  Values targets;
  if (call.returns_new()) {
    for (const c10::IValue& result : results) targets.push_back(map_tensors(result, host_view));
  }
  // Lists that all three hold are the stream's alone: libtorch frees them, in an order that ThreadSanitizer cannot see.
  call.arguments.clear();
  call.meta.clear();
  enqueue(current_stream().id(), [op = call.op, cpu = std::move(call.cpu), targets = std::move(targets)]() mutable {
    const at::NoGradGuard no_grad;
    try {
      op.callBoxed(&cpu);
    } catch (const std::exception& error) {
      TORCH_CHECK(false, toString(op.operator_name()), ": ", error.what());
    }
    for (std::size_t i = 0; i < targets.size(); ++i) copy_into(targets[i], cpu[i]);
  });
}

at::Tensor upload_now(const at::Tensor& tensor) {
  if (!tensor.defined() || is_late(tensor)) return tensor;
  const at::Tensor late = empty_late(tensor);
  wait_on_host(mark(current_stream().id()));  // the poison of new memory comes first
  host_view(late).copy_(tensor);
  return late;
}

/// Nobody knows the shape without data: as on a GPU, the host waits.
Values run_at_once(Call& call) {
  wait_on_host(mark(current_stream().id()));
  count_wait(call.op.schema().name());
  const bool sizes = !call.returns_new() && sizes_outputs(call);
  for (std::size_t i = 0; sizes && i < call.arguments.size(); ++i) {
    if (call.is_out(i)) call.cpu[i] = at::empty({0}, call.arguments[i].toTensor().options().device(at::kCPU));
  }
  const Values given = call.cpu;
  call.op.callBoxed(&call.cpu);
  if (call.returns_new()) {
    Values results;
    for (const c10::IValue& value : call.cpu) results.push_back(map_tensors(value, upload_now));
    return results;
  }
  for (std::size_t i = 0; sizes && i < call.arguments.size(); ++i) {
    if (!call.is_out(i)) continue;
    at::native::resize_output(call.arguments[i].toTensor(), given[i].toTensor().sizes());
    wait_on_host(mark(current_stream().id()));
    host_view(call.arguments[i].toTensor()).copy_(given[i].toTensor());
  }
  return written(call);
}

std::map<std::string, int>& counts() {
  static auto* instance = new std::map<std::string, int>;
  return *instance;
}

std::mutex& counts_mutex() {
  static auto* instance = new std::mutex;
  return *instance;
}

}  // namespace

at::Tensor host_view(const at::Tensor& tensor) {
  if (!is_late(tensor)) return tensor;
  at::Tensor view = at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(),
                                  tensor.options().device(at::kCPU).requires_grad(false));
  if (tensor.is_conj()) view._set_conj(true);
  if (tensor.is_neg()) view._set_neg(true);
  return view;
}

at::Tensor as_meta(const at::Tensor& tensor) {
  if (!is_late(tensor)) return tensor;
  at::Tensor meta = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta));
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) meta.unsafeGetTensorImpl()->set_wrapped_number(true);
  return meta;
}

void fallback(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  Call call = take_call(op, stack);
  std::optional<Values> results = make_results(call);
  if (results) {
    run_late(call, *results);
  } else {
    results = run_at_once(call);
  }
  for (c10::IValue& result : *results) torch::jit::push(*stack, std::move(result));
}

void count_wait(const std::string& name) {
  std::lock_guard lock(counts_mutex());
  ++counts()[name];
}

std::map<std::string, int> take_counts() {
  std::lock_guard lock(counts_mutex());
  return std::exchange(counts(), {});
}

}  // namespace late
