// FlashAttention's two operators as torch has them for CUDA, dense and packed, with the checks of their inputs that the
// real ones make or take for granted; tests/python/ops/test_cuda_flash.py has their source. The CPU's kernel computes.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "device.h"

namespace late {
namespace {

void check_rows(const at::Tensor& tensor, const char* name) {
  const auto type = tensor.scalar_type();
  TORCH_CHECK(type == at::kHalf || type == at::kBFloat16, "flash attention: ", name, " is of ", type);
  TORCH_CHECK(tensor.stride(-1) == 1, "flash attention: the last dimension of ", name, " is not contiguous");
  TORCH_CHECK(tensor.size(-1) % 8 == 0 && tensor.size(-1) <= 256, "flash attention: head size ", tensor.size(-1));
  TORCH_CHECK(tensor.stride(-2) % 8 == 0 && tensor.stride(-3) % 8 == 0, "flash attention: loads of 16 bytes");
  TORCH_CHECK(reinterpret_cast<std::uintptr_t>(tensor.data_ptr()) % 16 == 0, "flash attention: ", name,
              " is not aligned");
}

/// Dense: [1, rows, heads, size]. Packed, where `lengths` are given: [rows, heads, size].
void check_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool is_packed) {
  check_rows(q, "q");
  check_rows(k, "k");
  check_rows(v, "v");
  const int dimensions = is_packed ? 3 : 4;
  TORCH_CHECK(q.dim() == dimensions && k.dim() == dimensions && v.sizes() == k.sizes(), "flash attention: shapes");
  TORCH_CHECK(is_packed || (q.size(0) == 1 && k.size(0) == 1), "flash attention: one batch");
  TORCH_CHECK(q.size(-2) % k.size(-2) == 0 && q.size(-1) == k.size(-1), "flash attention: heads");
  TORCH_CHECK(q.numel() > 0 && k.numel() > 0, "flash attention: no rows");
}

/// As [rows, heads, size], in the host's memory.
at::Tensor rows_of(const at::Tensor& tensor, bool is_packed) {
  return is_packed ? host_view(tensor) : host_view(tensor).squeeze(0);
}

struct Piece {
  std::int64_t q_begin, q_end, k_begin, k_end;
};

/// Late: the lengths are read where the kernel runs. Empty pieces have no keys, and their rows are left alone.
template <typename Body>
void for_pieces(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cum_q, const at::Tensor& cum_k, bool causal,
                const Body& body) {
  if (!cum_q.defined()) return body(Piece{0, q.size(0), 0, k.size(0)});
  for (std::int64_t i = 0; i + 1 < cum_q.numel(); ++i) {
    const Piece piece{cum_q[i].item<int>(), cum_q[i + 1].item<int>(), cum_k[i].item<int>(), cum_k[i + 1].item<int>()};
    if (piece.q_end == piece.q_begin || piece.k_end == piece.k_begin) continue;
    TORCH_CHECK(!causal || piece.q_end - piece.q_begin == piece.k_end - piece.k_begin,
                "flash attention: the corner that a causal mask starts from must not matter");
    body(piece);
  }
}

at::Tensor heads_first(const at::Tensor& rows) { return rows.unsqueeze(0).transpose(1, 2); }
at::Tensor rows_first(const at::Tensor& heads) { return heads.transpose(1, 2).squeeze(0); }

void check_lengths(const std::optional<at::Tensor>& cum) {
  if (!cum || !cum->defined()) return;
  TORCH_CHECK(is_late(*cum) && cum->scalar_type() == at::kInt && cum->is_contiguous(), "flash attention: lengths");
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> forward(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::optional<at::Tensor>& cum_q,
    const std::optional<at::Tensor>& cum_k, std::int64_t, std::int64_t, double dropout, bool causal, bool,
    std::optional<double> scale, std::optional<std::int64_t>, std::optional<std::int64_t>,
    const std::optional<at::Tensor>&, const std::optional<at::Tensor>&, const std::optional<at::Tensor>&,
    std::optional<std::int64_t>) {
  const bool is_packed = cum_q && cum_q->defined();
  check_inputs(q, k, v, is_packed);
  check_lengths(cum_q);
  check_lengths(cum_k);
  TORCH_CHECK(dropout == 0.0);
  const at::Tensor out = at::empty_like(q);
  const auto numbers = q.options().dtype(at::kFloat);
  const at::Tensor lse =
      is_packed ? at::empty({q.size(1), q.size(0)}, numbers) : at::empty({1, q.size(2), q.size(1)}, numbers);
  enqueue(current_stream().id(), [q = rows_of(q, is_packed), k = rows_of(k, is_packed), v = rows_of(v, is_packed),
                                  to = rows_of(out, is_packed), to_lse = rows_of(lse, is_packed),
                                  cq = is_packed ? host_view(*cum_q) : at::Tensor(),
                                  ck = is_packed ? host_view(*cum_k) : at::Tensor(), causal, scale] {
    const at::NoGradGuard no_grad;
    for_pieces(q, k, cq, ck, causal, [&](const Piece& at) {
      const auto [o, l] = at::_scaled_dot_product_flash_attention_for_cpu(
          heads_first(q.slice(0, at.q_begin, at.q_end)), heads_first(k.slice(0, at.k_begin, at.k_end)),
          heads_first(v.slice(0, at.k_begin, at.k_end)), 0.0, causal, {}, scale);
      to.slice(0, at.q_begin, at.q_end).copy_(rows_first(o));
      to_lse.slice(1, at.q_begin, at.q_end).copy_(l.squeeze(0));
    });
  });
  const at::Tensor nothing = at::empty({0}, q.options());
  return {out, lse, nothing, nothing, nothing};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> backward(const at::Tensor& dout, const at::Tensor& q,
                                                        const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
                                                        const at::Tensor& lse, const at::Tensor& cum_q,
                                                        const at::Tensor& cum_k, std::int64_t, std::int64_t, double,
                                                        bool causal, const at::Tensor&, const at::Tensor&,
                                                        std::optional<double> scale, std::optional<std::int64_t>,
                                                        std::optional<std::int64_t>) {
  const bool is_packed = cum_q.defined();
  check_inputs(q, k, v, is_packed);
  TORCH_CHECK(dout.sizes() == q.sizes() && out.sizes() == q.sizes(), "flash attention: shapes of the output");
  TORCH_CHECK(lse.is_contiguous() && lse.scalar_type() == at::kFloat,
              "flash attention: strides of lse are not looked at");
  const at::Tensor dq = at::empty_like(q);
  const at::Tensor dk = at::empty_like(k);
  const at::Tensor dv = at::empty_like(v);
  const auto rows = [&](const at::Tensor& tensor) { return rows_of(tensor, is_packed); };
  enqueue(current_stream().id(), [g = rows(dout), q = rows(q), k = rows(k), v = rows(v), o = rows(out), l = rows(lse),
                                  to_q = rows(dq), to_k = rows(dk), to_v = rows(dv), cq = host_view(cum_q),
                                  ck = host_view(cum_k), causal, scale] {
    const at::NoGradGuard no_grad;
    for_pieces(q, k, cq, ck, causal, [&](const Piece& at) {
      const auto own = [&](const at::Tensor& tensor) { return heads_first(tensor.slice(0, at.q_begin, at.q_end)); };
      const auto keys = [&](const at::Tensor& tensor) { return heads_first(tensor.slice(0, at.k_begin, at.k_end)); };
      const auto [x, y, z] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          own(g), own(q), keys(k), keys(v), own(o), l.slice(1, at.q_begin, at.q_end).unsqueeze(0), 0.0, causal, {},
          scale);
      to_q.slice(0, at.q_begin, at.q_end).copy_(rows_first(x));
      to_k.slice(0, at.k_begin, at.k_end).copy_(rows_first(y));
      to_v.slice(0, at.k_begin, at.k_end).copy_(rows_first(z));
    });
  });
  return {dq, dk, dv};
}

}  // namespace

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("_flash_attention_forward", forward);
  library.impl("_flash_attention_backward", backward);
}

}  // namespace late
