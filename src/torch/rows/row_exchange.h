#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace dhp::rt {

/// Uneven all-to-all of rows inside a group, for the visual rows that one member encoded and another needs.
struct RowExchangeCall {
  std::vector<std::int64_t> send_counts;  // rows for each position of `ranks`; its own part is copied
  std::vector<std::int64_t> recv_counts;  // rows from each position
  std::vector<std::int64_t> ranks;        // world ranks
  std::string group;
  bool needs_gradient = false;  // the same on all members, since the backward pass communicates too
};

/// rows [sum(send_counts), C], ordered by destination; the result is [sum(recv_counts), C], ordered by source. Throws
/// c10::ValueError for a wrong call, before anything is sent, and c10::DistError when the group has failed.
at::Tensor exchange_rows(const at::Tensor& rows, const RowExchangeCall& call);

/// The gradient of `rows`: the same exchange the other way. Every member calls it, with rows or without.
at::Tensor exchange_rows_backward(const at::Tensor& gradient, const RowExchangeCall& call);

}  // namespace dhp::rt
