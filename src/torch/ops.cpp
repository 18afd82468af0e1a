#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "torch/attention/kernel.h"
#include "torch/attention/packed_call.h"
#include "torch/attention/ring_attention.h"
#include "torch/rows/row_exchange.h"
#include "torch/transport/connect.h"
#include "torch/transport/failure_record.h"
#include "torch/transport/mirror_transport.h"
#include "torch/transport/run_store.h"
#include "torch/transport/thread_transport.h"
#include "torch/transport/transport.h"

namespace dhp::rt {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// The backward passes work on raw buffers, so a second derivative would be silently wrong.
void refuse_second_derivative(const char* operation) {
  TORCH_CHECK_NOT_IMPLEMENTED(!c10::GradMode::is_enabled(), operation,
                              ": there is no second derivative; call backward without create_graph");
}

/// Lists as they come from Python, on this rank alone: `call` of the operators below holds them.
RingAttentionCall ring_call(at::IntArrayRef seq_tokens, at::IntArrayRef ranks, const std::string& group, double scale,
                            bool causal, const std::string& exchange, at::IntArrayRef nodes) {
  return {seq_tokens.vec(), ranks.vec(), group, scale, causal, exchange, nodes.vec(), false};
}

/// What is the same for all tasks of a run, and may be part of a traced program.
struct FixedCall {
  std::string group;
  double scale = 1;
  bool causal = true;
};

/// Both passes as operators below autograd, where modes see them: what selective recomputation keeps, and what tracing
/// takes the shapes of.
std::tuple<at::Tensor, at::Tensor> call_with_lse(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                 const at::Tensor& call, const FixedCall& fixed, bool needs_gradient) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("dhp::ring_attention_with_lse", "")
          .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                    const at::Tensor&, c10::string_view, double, bool, bool)>();
  return op.call(q, k, v, call, fixed.group, fixed.scale, fixed.causal, needs_gradient);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> call_backward(const at::Tensor& dout, const variable_list& saved,
                                                             const FixedCall& fixed) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("dhp::ring_attention_backward", "")
          .typed<std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                                const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                                                const at::Tensor&, c10::string_view, double, bool)>();
  return op.call(dout, saved[0], saved[1], saved[2], saved[3], saved[4], saved[5], fixed.group, fixed.scale,
                 fixed.causal);
}

class RingAttention : public torch::autograd::Function<RingAttention> {
 public:
  static Variable forward(AutogradContext* context, const Variable& q, const Variable& k, const Variable& v,
                          const Variable& call, const FixedCall& fixed, bool needs_gradient) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [out, lse] = call_with_lse(q, k, v, call, fixed, needs_gradient);
    if (needs_gradient) {
      context->save_for_backward({q, k, v, out, lse, call});
      context->saved_data["group"] = fixed.group;
      context->saved_data["scale"] = fixed.scale;
      context->saved_data["causal"] = fixed.causal;
    }
    return out;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivative("ring_attention");
    at::AutoDispatchBelowADInplaceOrView guard;
    const FixedCall fixed{context->saved_data["group"].toStringRef(), context->saved_data["scale"].toDouble(),
                          context->saved_data["causal"].toBool()};
    const auto [dq, dk, dv] = call_backward(gradients[0], context->get_saved_variables(), fixed);
    return {dq, dk, dv, Variable(), Variable(), Variable()};
  }
};

class RowExchange : public torch::autograd::Function<RowExchange> {
 public:
  static Variable forward(AutogradContext* context, const Variable& rows, const RowExchangeCall& call) {
    at::AutoDispatchBelowADInplaceOrView guard;
    context->saved_data["send_counts"] = call.send_counts;
    context->saved_data["recv_counts"] = call.recv_counts;
    context->saved_data["ranks"] = call.ranks;
    context->saved_data["group"] = call.group;
    return exchange_rows(rows, call);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    refuse_second_derivative("exchange_rows");
    at::AutoDispatchBelowADInplaceOrView guard;
    const RowExchangeCall call{
        context->saved_data["send_counts"].toIntVector(), context->saved_data["recv_counts"].toIntVector(),
        context->saved_data["ranks"].toIntVector(), context->saved_data["group"].toStringRef(), true};
    return {exchange_rows_backward(gradients[0], call), Variable()};
  }
};

/// Tensors that have shapes alone, while a program is traced: nothing must be sent of them.
void refuse_without_memory(const at::Tensor& tensor, const char* problem) {
  TORCH_CHECK_NOT_IMPLEMENTED(!tensor.unsafeGetTensorImpl()->is_python_dispatch(), problem);
}

constexpr const char* kListsAreNotTraced =
    "ring_attention cannot be traced with lists, which would be part of the program: call ring_attention_packed";
constexpr const char* kRowsAreNotTraced =
    "exchange_rows cannot be traced: call it outside of what torch.compile compiles";

bool needs_gradient(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return c10::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad());
}

at::Tensor ring_attention_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::IntArrayRef seq_tokens,
                             at::IntArrayRef ranks, const std::string& group, double scale, bool causal,
                             const std::string& exchange, at::IntArrayRef nodes) {
  refuse_without_memory(q, kListsAreNotTraced);
  return ring_attention_forward(q, k, v, ring_call(seq_tokens, ranks, group, scale, causal, exchange, nodes)).out;
}

at::Tensor ring_attention_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   at::IntArrayRef seq_tokens, at::IntArrayRef ranks, const std::string& group,
                                   double scale, bool causal, const std::string& exchange, at::IntArrayRef nodes) {
  refuse_without_memory(q, kListsAreNotTraced);
  const auto call = pack_call(ring_call(seq_tokens, ranks, group, scale, causal, exchange, nodes));
  return RingAttention::apply(q, k, v, call, FixedCall{group, scale, causal}, needs_gradient(q, k, v));
}

at::Tensor ring_attention_packed_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                    const at::Tensor& call, const std::string& group, double scale, bool causal) {
  return std::get<0>(call_with_lse(q, k, v, call, {group, scale, causal}, false));
}

at::Tensor ring_attention_packed_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const at::Tensor& call, const std::string& group, double scale, bool causal) {
  return RingAttention::apply(q, k, v, call, FixedCall{group, scale, causal}, needs_gradient(q, k, v));
}

std::tuple<at::Tensor, at::Tensor> ring_attention_with_lse_op(const at::Tensor& q, const at::Tensor& k,
                                                              const at::Tensor& v, const at::Tensor& call,
                                                              c10::string_view group, double scale, bool causal,
                                                              bool gradient) {
  const auto result = ring_attention_forward(q, k, v, unpack_call(call, std::string(group), scale, causal, gradient));
  return {result.out, result.lse};
}

/// Contiguous, as programs that were traced expect it.
std::tuple<at::Tensor, at::Tensor, at::Tensor> ring_attention_backward_op(
    const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& out,
    const at::Tensor& lse, const at::Tensor& call, c10::string_view group, double scale, bool causal) {
  const RingAttentionForward saved{with_unit_last_stride(q), with_unit_last_stride(k), with_unit_last_stride(v), out,
                                   lse};
  const auto result = ring_attention_backward(dout, saved, unpack_call(call, std::string(group), scale, causal, true));
  return {result.dq.contiguous(), result.dk.contiguous(), result.dv.contiguous()};
}

at::Tensor exchange_rows_op(const at::Tensor& rows, at::IntArrayRef send_counts, at::IntArrayRef recv_counts,
                            at::IntArrayRef ranks, const std::string& group) {
  refuse_without_memory(rows, kRowsAreNotTraced);
  return exchange_rows(rows, {send_counts.vec(), recv_counts.vec(), ranks.vec(), group, false});
}

at::Tensor exchange_rows_autograd(const at::Tensor& rows, at::IntArrayRef send_counts, at::IntArrayRef recv_counts,
                                  at::IntArrayRef ranks, const std::string& group) {
  refuse_without_memory(rows, kRowsAreNotTraced);
  const bool needs_gradient = c10::GradMode::is_enabled() && rows.requires_grad();
  const RowExchangeCall call{send_counts.vec(), recv_counts.vec(), ranks.vec(), group, needs_gradient};
  return RowExchange::apply(rows, call);
}

void configure_group(const std::string& group, double timeout_s) {
  constexpr double kLeastSeconds = 1e-3;
  constexpr double kMostSeconds = 1e6;
  TORCH_CHECK_VALUE(timeout_s >= kLeastSeconds && timeout_s <= kMostSeconds, "configure_group: timeout_s: found ",
                    timeout_s, ", expected seconds from 0.001 to 1,000,000");
  find_transport(group)->set_timeout(std::chrono::milliseconds(static_cast<std::int64_t>(std::ceil(timeout_s * 1e3))));
}

void set_label(const std::string& group, const std::string& label) { find_transport(group)->set_label(label); }

void report_failure(const std::string& group, const std::string& message) {
  find_transport(group)->record_failure(message);
}

std::string explain_failure(const std::string& group, const std::string& problem, bool expired) {
  return find_transport(group)->explain_failure(plain_error(problem), expired);
}

std::string known_failure(const std::string& group) { return find_transport(group)->failure(false).value_or(""); }

void enter_collective(const std::string& group, const std::string& name) {
  if (const auto watched = find_watched(group)) watched->enter_collective(name);
}

void leave_collective(const std::string& group) {
  if (const auto watched = find_watched(group)) watched->leave_collective();
}

void watch_work(const std::string& group, const c10::intrusive_ptr<c10d::Work>& work, const std::string& doing) {
  if (const auto watched = find_watched(group)) watched->watch_work(work, doing);
}

void measure_stalls(const std::string& group, bool on) {
  const auto transport = find_transport(group);
  if (transport->device().is_cpu()) return;
  on ? transport->stalls().begin() : transport->stalls().end();
}

std::vector<double> stalled_s(const std::string& group) { return find_transport(group)->stalls().take_seconds(); }

void set_store_host(const std::string& group, std::int64_t rank, const std::string& words) {
  if (const auto watched = find_watched(group)) watched->set_store_host(static_cast<int>(rank), words);
}

std::int64_t pulse(const std::string& group, std::int64_t rank) {
  const auto watched = find_watched(group);
  return watched ? watched->pulse(static_cast<int>(rank)) : -1;
}

void set_far_group(const std::string& group, const std::string& far) {
  if (const auto watched = find_watched(group)) watched->set_far_group(far);
}

std::int64_t connect(at::IntArrayRef ranks, const std::string& group, const std::string& exchange,
                     at::IntArrayRef nodes, bool rows) {
  return connect_members({ranks.vec(), group, exchange, nodes.vec(), rows});
}

void exit_within_seconds(double seconds, std::int64_t code) {
  exit_within(std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1e3)), static_cast<int>(code));
}

std::string failure(const std::string& group) { return find_transport(group)->failure(true).value_or(""); }

/// Python looks for this text in the file before it loads it: with another torch it would not load, or worse.
const char* const kBuiltFor = "dhp_torch of dhp " DHP_VERSION " built for torch " DHP_TORCH_VERSION;

std::string torch_version() {
  return std::string(kBuiltFor).substr(std::string("dhp_torch of dhp " DHP_VERSION " built for torch ").size());
}

}  // namespace

TORCH_LIBRARY(dhp, library) {
  library.def(
      "ring_attention(Tensor q, Tensor k, Tensor v, int[] seq_tokens, int[] ranks, str group, float scale, "
      "bool causal=True, str exchange=\"ring\", int[] nodes=[]) -> Tensor");
  // The same with all that changes from task to task as data: `call` is the tensor of packed_call.h. For programs that
  // are traced once and run for all tasks.
  library.def(
      "ring_attention_packed(Tensor q, Tensor k, Tensor v, Tensor call, str group, float scale, bool causal=True) -> "
      "Tensor");
  // Below autograd: out [T_local, Hq, D] and the logarithms of the sums of exponentials [T_local, Hq]. `needs_gradient`
  // is the same on all members. Not to be called with tensors that require gradients: use ring_attention.
  library.def(
      "ring_attention_with_lse(Tensor q, Tensor k, Tensor v, Tensor call, str group, float scale, bool causal, "
      "bool needs_gradient) -> (Tensor out, Tensor lse)");
  library.def(
      "ring_attention_backward(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, Tensor call, "
      "str group, float scale, bool causal) -> (Tensor dq, Tensor dk, Tensor dv)");
  library.def("exchange_rows(Tensor rows, int[] send_counts, int[] recv_counts, int[] ranks, str group) -> Tensor");

  // The longest wait on this group, and what this rank is busy with ("step 12, task 3") for messages.
  library.def("configure_group(str group, float timeout_s) -> ()", configure_group);
  library.def("set_label(str group, str label) -> ()", set_label);
  // A second process group over the same ranks, which carries what goes to other nodes, on a device.
  library.def("set_far_group(str group, str far) -> ()", set_far_group);
  // Before the first task: connects this rank with the members of a task that it exchanges data with. How many are new.
  library.def("connect(int[] ranks, str group, str exchange=\"ring\", int[] nodes=[], bool rows=True) -> int", connect);
  // A group of transfers ("isend", "irecv") by a backend that cannot coalesce; implemented in Python (dhp/run/ops.py).
  library.def(
      "batch_isend_irecv(str group, str[] kinds, Tensor(a!)[] tensors, int[] ranks) -> "
      "__torch__.torch.classes.c10d.Work");
  // Failures of the group: tell the others of one (the message names the rank); the first one of any rank, or "".
  library.def("report_failure(str group, str message) -> ()", report_failure);
  library.def("failure(str group) -> str", failure);
  library.def("known_failure(str group) -> str", known_failure);
  library.def("explain_failure(str group, str problem, bool expired) -> str", explain_failure);
  // What the others must know to tell who keeps them waiting.
  library.def("enter_collective(str group, str name) -> ()", enter_collective);
  library.def("leave_collective(str group) -> ()", leave_collective);
  // Looks after a collective on the device of the group, from its post on.
  library.def("watch_work(str group, __torch__.torch.classes.c10d.Work work, str doing) -> ()", watch_work);
  // From here on, waits of this rank's device for others are timed as one span, or no more; and the seconds of each
  // span since the last call. On CPUs there are none.
  library.def("measure_stalls(str group, bool on) -> ()", measure_stalls);
  library.def("stalled_s(str group) -> float[]", stalled_s);
  library.def("set_store_host(str group, int rank, str words) -> ()", set_store_host);
  library.def("pulse(str group, int rank) -> int", pulse);
  library.def("own_name(int rank) -> str", [](std::int64_t rank) { return own_name(static_cast<int>(rank)); });
  // Ends of this process.
  library.def("exit_on_interrupt() -> ()", exit_on_interrupt);
  library.def("exit_within(float seconds, int code) -> ()", exit_within_seconds);
  // Ends the failure watch of a group, or of all.
  library.def("release_group(str group) -> ()", release_transport);
  library.def("release_all_groups() -> ()", release_all_transports);
  // Ranks as threads of this process: group NAME/RANK for each.
  library.def("create_thread_groups(str name, int size, str device=\"cpu\") -> ()",
              [](const std::string& name, std::int64_t size, const std::string& device) {
                create_thread_groups(name, static_cast<int>(size), device);
              });
  // One rank of a group with nobody at the other end: group NAME.
  library.def("create_mirror_group(str name, int size, int rank, str device=\"cpu\") -> ()",
              [](const std::string& name, std::int64_t size, std::int64_t rank, const std::string& device) {
                create_mirror_group(name, static_cast<int>(size), static_cast<int>(rank), device);
              });
  library.def("use_kernel(str name) -> ()", use_kernel);
  library.def("kernel_of(Tensor q) -> str", [](const at::Tensor& q) { return std::string(select_kernel(q).name()); });
  library.def("torch_version() -> str", torch_version);
}

TORCH_LIBRARY_IMPL(dhp, CompositeExplicitAutograd, library) {
  library.impl("ring_attention", ring_attention_op);
  library.impl("ring_attention_packed", ring_attention_packed_op);
  library.impl("ring_attention_with_lse", ring_attention_with_lse_op);
  library.impl("ring_attention_backward", ring_attention_backward_op);
  library.impl("exchange_rows", exchange_rows_op);
}

TORCH_LIBRARY_IMPL(dhp, Autograd, library) {
  library.impl("ring_attention", ring_attention_autograd);
  library.impl("ring_attention_packed", ring_attention_packed_autograd);
  library.impl("exchange_rows", exchange_rows_autograd);
}

}  // namespace dhp::rt
