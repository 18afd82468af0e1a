// What no fallback can do: memory, views, copies to and from the host, convolutions, autocast.
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>

#include "device.h"
#include "operators.h"

namespace late {
namespace {

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<c10::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<c10::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      size, stride, allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  const std::int64_t elements = impl->storage_offset() + c10::multiply_integers(size);
  const auto bytes = static_cast<std::size_t>(elements) * self.element_size();
  if (bytes > self.storage().nbytes()) {
    auto* storage = self.storage().unsafeGetStorageImpl();
    storage->set_data_ptr_noswap(allocator()->allocate(bytes));
    storage->set_nbytes(bytes);
  }
  impl->set_sizes_contiguous(size);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, at::Storage source, std::int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  return self;
}

at::Tensor& set_whole_storage(at::Tensor& self, at::Storage source) {
  const auto elements = static_cast<std::int64_t>(source.nbytes() / self.element_size());
  return set_storage(self, std::move(source), 0, {elements}, {1});
}

/// Pageable memory of the host is read before the call returns, pinned memory late.
void upload(const at::Tensor& source, const at::Tensor& target, bool non_blocking) {
  const c10::StreamId stream = current_stream().id();
  const bool is_read_late = non_blocking && is_pinned(source.data_ptr());
  enqueue(stream,
          [from = is_read_late ? host_view(source) : source.clone(), to = host_view(target)] { to.copy_(from); });
  if (!is_read_late) count_wait("upload of pageable memory");  // no wait here; on a GPU a copy to staging
}

void download(const at::Tensor& source, const at::Tensor& target, bool non_blocking) {
  const c10::StreamId stream = current_stream().id();
  enqueue(stream, [from = host_view(source), to = target] { to.copy_(from); });
  if (non_blocking && is_pinned(target.data_ptr())) return;
  count_wait("download");
  wait_on_host(mark(stream));
}

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool non_blocking) {
  if (target.numel() == 0) return target;
  if (is_late(source) && is_late(target)) {
    enqueue(current_stream().id(), [from = host_view(source), to = host_view(target)] { to.copy_(from); });
  } else if (is_late(target)) {
    upload(source, target, non_blocking);
  } else {
    download(source, target, non_blocking);
  }
  return target;
}

at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  at::native::resize_output(target, source.sizes());
  return copy_from(source, target, false);
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  count_wait("item");
  wait_on_host(mark(current_stream().id()));
  return host_view(self).item();
}

void record(at::Tensor& self, c10::Stream stream) { record_stream(self.storage().data_ptr().get(), stream.id()); }

/// Convolutions of foreign devices come in by an entrance of their own.
at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, std::int64_t groups) {
  const at::Tensor added = bias.value_or(at::Tensor());
  const at::Tensor shape = at::convolution(as_meta(input), as_meta(weight), as_meta(added), stride, padding, dilation,
                                           transposed, output_padding, groups);
  at::Tensor out = at::empty(shape.sizes(), input.options());
  enqueue(current_stream().id(),
          [x = host_view(input), w = host_view(weight), b = host_view(added), to = host_view(out), s = stride.vec(),
           p = padding.vec(), d = dilation.vec(), transposed, o = output_padding.vec(), groups] {
            const at::NoGradGuard no_grad;
            to.copy_(at::convolution(x, w, b, s, p, d, transposed, o, groups));
          });
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(const at::Tensor& gradient, const at::Tensor& input,
                                                                    const at::Tensor& weight, at::IntArrayRef stride,
                                                                    at::IntArrayRef padding, at::IntArrayRef dilation,
                                                                    bool transposed, at::IntArrayRef output_padding,
                                                                    std::int64_t groups, std::array<bool, 3> mask) {
  const std::array<at::Tensor, 3> out = {mask[0] ? at::empty_like(input) : at::Tensor(),
                                         mask[1] ? at::empty_like(weight) : at::Tensor(),
                                         mask[2] ? at::empty({gradient.size(1)}, gradient.options()) : at::Tensor()};
  enqueue(current_stream().id(),
          [g = host_view(gradient), x = host_view(input), w = host_view(weight), s = stride.vec(), p = padding.vec(),
           d = dilation.vec(), transposed, o = output_padding.vec(), groups, mask,
           to = std::array<at::Tensor, 3>{host_view(out[0]), host_view(out[1]), host_view(out[2])}] {
            const at::NoGradGuard no_grad;
            const std::vector<std::int64_t> bias_sizes = {g.size(1)};
            const auto [dx, dw, db] = at::convolution_backward(g, x, w, at::OptionalIntArrayRef(bias_sizes), s, p, d,
                                                               transposed, o, groups, mask);
            const std::array<at::Tensor, 3> from = {dx, dw, db};
            for (std::size_t i = 0; i < to.size(); ++i) {
              if (to[i].defined()) to[i].copy_(from[i]);
            }
          });
  return {out[0], out[1], out[2]};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) { library.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m){
    KERNEL_PRIVATEUSEONE(linear, lower_precision_fp) KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
        KERNEL_PRIVATEUSEONE(mm, lower_precision_fp) KERNEL_PRIVATEUSEONE(bmm, lower_precision_fp)
            KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp) KERNEL_PRIVATEUSEONE(conv3d, lower_precision_fp)}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("view", at::native::view);
  library.impl("_reshape_alias", at::native::_reshape_alias);
  library.impl("set_.source_Storage_storage_offset", set_storage);
  library.impl("set_.source_Storage", set_whole_storage);
  library.impl("resize_", resize);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", local_scalar_dense);
  library.impl("record_stream", record);
  library.impl("convolution_overrideable", convolution);
  library.impl("convolution_backward_overrideable", convolution_backward);
  // Decompositions go before a fallback, and the backward that belongs to the CPU's kernel would not fit theirs.
  library.impl("native_layer_norm", torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

}  // namespace late
