#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace dhp::rt {

/// One sequence's part of a block: its q rows attend to its kv rows. Never empty. Sequences never see each other.
struct Segment {
  std::int64_t q_begin = 0;
  std::int64_t q_rows = 0;
  std::int64_t kv_begin = 0;
  std::int64_t kv_rows = 0;
};

/// Rows from `from` on of a result, in which segments follow each other, are those from `to` on of a shard.
struct RowRun {
  std::int64_t from = 0;
  std::int64_t to = 0;
  std::int64_t rows = 0;
};

/// Where the rows of a result of these segments belong; adjacent segments make one run.
std::vector<RowRun> q_runs(std::span<const Segment> segments);
std::vector<RowRun> kv_runs(std::span<const Segment> segments);

/// Rows of a shard as a result has them: a view where they are one run, else a copy.
at::Tensor gather_rows(const at::Tensor& shard, const std::vector<RowRun>& runs);

/// Puts rows of a result into place, or adds them to what is there.
void copy_rows(const at::Tensor& shard, const at::Tensor& rows, const std::vector<RowRun>& runs);
void add_rows(const at::Tensor& shard, const at::Tensor& rows, const std::vector<RowRun>& runs);

}  // namespace dhp::rt
