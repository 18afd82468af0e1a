#include "torch/rows/row_exchange.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "base/index.h"
#include "torch/transport/agreement.h"
#include "torch/transport/device_carrier.h"
#include "torch/transport/group_call.h"

namespace dhp::rt {
namespace {

std::int64_t check_counts(const char* name, const std::vector<std::int64_t>& counts, int degree) {
  TORCH_CHECK_VALUE(counts.size() == static_cast<std::size_t>(degree), name, ": found ", counts.size(),
                    " entries, expected one for each of the ", degree, " ranks");
  for (std::size_t i = 0; i < counts.size(); ++i) {
    TORCH_CHECK_VALUE(counts[i] >= 0, name, "[", i, "]: found ", counts[i], ", expected at least 0");
  }
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

void check_exchange(const at::Tensor& rows, const RowExchangeCall& call, const Members& members) {
  TORCH_CHECK_VALUE(rows.dim() == 2, "rows: found shape ", rows.sizes(), ", expected [rows, C]");
  TORCH_CHECK_VALUE(rows.layout() == at::kStrided, "rows: expected a dense tensor");
  const auto device = members.transport ? members.transport->device() : rows.device();
  TORCH_CHECK_VALUE(rows.device() == device || rows.is_cpu(), "rows: found on ", rows.device(), ", expected on ",
                    device, ", where the group's transport works, or on a CPU");
  const auto sent = check_counts("send_counts", call.send_counts, members.degree());
  check_counts("recv_counts", call.recv_counts, members.degree());
  TORCH_CHECK_VALUE(rows.size(0) == sent, "rows: found ", rows.size(0), " rows, expected ", sent,
                    ", the sum of send_counts ", c10::IntArrayRef(call.send_counts));
  const auto own = index(members.position);
  TORCH_CHECK_VALUE(call.send_counts[own] == call.recv_counts[own], "recv_counts[", own, "]: found ",
                    call.recv_counts[own], " rows from this rank itself, but send_counts gives it ",
                    call.send_counts[own]);
}

/// Each pair compares its view of the call, rows between them included: what one sends the other must expect.
void agree_with_all(const at::Tensor& rows, const RowExchangeCall& call, const Members& members,
                    const std::string& operation) {
  const auto signature_for = [&](std::int64_t count) {
    Signature signature(operation);
    signature.add("ranks", call.ranks);
    signature.add("dtype", static_cast<std::int64_t>(rows.scalar_type()));
    signature.add("columns", rows.size(1));
    signature.add("rows on a CPU", std::int64_t{rows.is_cpu()});  // those of a device go by another carrier
    signature.add("needs gradient", std::int64_t{call.needs_gradient});
    signature.add("rows between them", count);
    return signature;
  };
  std::vector<Signature> outgoing;
  std::vector<Signature> expected;
  for (std::size_t i = 0; i < call.ranks.size(); ++i) {
    outgoing.push_back(signature_for(call.send_counts[i]));
    expected.push_back(signature_for(call.recv_counts[i]));
  }
  std::vector<Greeting> greetings;
  for (int i = 0; i < members.degree(); ++i) {
    if (i == members.position) continue;
    greetings.push_back({members.rank_at(i), Direction::kReceive, &expected[index(i)]});
    greetings.push_back({members.rank_at(i), Direction::kSend, &outgoing[index(i)]});
  }
  agree(*members.transport, greetings, operation);
}

/// Posts one round of offsets after the other: in the round of offset j a rank sends to the j-th member behind it and
/// receives from the j-th before it, so that both ends of a transfer are in one round.
at::Tensor exchange(const at::Tensor& rows, const RowExchangeCall& call, const Members& members,
                    const std::string& operation) {
  if (members.transport) agree_with_all(rows, call, members, operation);
  const auto received = std::accumulate(call.recv_counts.begin(), call.recv_counts.end(), std::int64_t{0});
  auto result = at::empty({received, rows.size(1)}, rows.options());
  const auto outgoing = rows.contiguous().split_with_sizes(call.send_counts);
  const auto incoming = result.split_with_sizes(call.recv_counts);
  incoming[index(members.position)].copy_(outgoing[index(members.position)]);
  const int degree = members.degree();
  std::vector<std::unique_ptr<Ticket>> tickets;
  for (int offset = 1; offset < degree;) {
    std::vector<Transfer> transfers;
    const int end = std::min(degree, offset + kMostCoalesced / 2);
    for (; offset < end; ++offset) {
      const int source = (members.position + degree - offset) % degree;
      const int destination = (members.position + offset) % degree;
      const auto add = [&](Direction direction, int peer, const at::Tensor& buffer) {
        if (buffer.numel() > 0) transfers.push_back({direction, members.rank_at(peer), Role::kRows, buffer});
      };
      add(Direction::kReceive, source, incoming[index(source)]);
      add(Direction::kSend, destination, outgoing[index(destination)]);
    }
    if (!transfers.empty()) tickets.push_back(members.transport->post(transfers, operation));
  }
  for (const auto& ticket : tickets) ticket->wait();
  return result;
}

}  // namespace

at::Tensor exchange_rows(const at::Tensor& rows, const RowExchangeCall& call) {
  at::Tensor result;
  run_in_group("exchange_rows", call.group, call.ranks, [&](const Members& members) {
    check_exchange(rows, call, members);
    result = exchange(rows, call, members, "exchange_rows forward");
  });
  return result;
}

at::Tensor exchange_rows_backward(const at::Tensor& gradient, const RowExchangeCall& call) {
  const RowExchangeCall reversed{call.recv_counts, call.send_counts, call.ranks, call.group, call.needs_gradient};
  at::Tensor result;
  run_in_group("exchange_rows", call.group, call.ranks, [&](const Members& members) {
    check_exchange(gradient, reversed, members);
    result = exchange(gradient, reversed, members, "exchange_rows backward");
  });
  return result;
}

}  // namespace dhp::rt
