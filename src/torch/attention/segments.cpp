#include "torch/attention/segments.h"

#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/cat.h>

namespace dhp::rt {
namespace {

void add_run(std::vector<RowRun>& runs, std::int64_t begin, std::int64_t rows) {
  const std::int64_t from = runs.empty() ? 0 : runs.back().from + runs.back().rows;
  if (!runs.empty() && runs.back().to + runs.back().rows == begin) {
    runs.back().rows += rows;
  } else {
    runs.push_back({from, begin, rows});
  }
}

/// The runs of a shard, or of a result, as views.
std::vector<at::Tensor> in_shard(const at::Tensor& shard, const std::vector<RowRun>& runs) {
  std::vector<at::Tensor> views;
  views.reserve(runs.size());
  for (const RowRun& run : runs) views.push_back(shard.narrow(0, run.to, run.rows));
  return views;
}

std::vector<at::Tensor> in_result(const at::Tensor& rows, const std::vector<RowRun>& runs) {
  std::vector<at::Tensor> views;
  views.reserve(runs.size());
  for (const RowRun& run : runs) views.push_back(rows.narrow(0, run.from, run.rows));
  return views;
}

}  // namespace

std::vector<RowRun> q_runs(std::span<const Segment> segments) {
  std::vector<RowRun> runs;
  for (const Segment& segment : segments) add_run(runs, segment.q_begin, segment.q_rows);
  return runs;
}

std::vector<RowRun> kv_runs(std::span<const Segment> segments) {
  std::vector<RowRun> runs;
  for (const Segment& segment : segments) add_run(runs, segment.kv_begin, segment.kv_rows);
  return runs;
}

at::Tensor gather_rows(const at::Tensor& shard, const std::vector<RowRun>& runs) {
  const auto views = in_shard(shard, runs);
  return views.size() == 1 ? views[0] : at::cat(views);
}

// A call for all runs is one kernel on a device, as long as both are of one type.
void copy_rows(const at::Tensor& shard, const at::Tensor& rows, const std::vector<RowRun>& runs) {
  const auto converted = shard.is_cpu() ? rows : rows.to(shard.scalar_type());
  at::_foreach_copy_(in_shard(shard, runs), in_result(converted, runs));
}

void add_rows(const at::Tensor& shard, const at::Tensor& rows, const std::vector<RowRun>& runs) {
  const auto converted = shard.is_cpu() ? rows : rows.to(shard.scalar_type());
  at::_foreach_add_(in_shard(shard, runs), in_result(converted, runs));
}

}  // namespace dhp::rt
