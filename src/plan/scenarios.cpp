#include "plan/scenarios.h"

#include <algorithm>
#include <cstdint>

#include "base/index.h"
#include "base/random.h"

namespace dhp::plan {
namespace {

using Row = Scenarios::Row;
constexpr int kCount = Scenarios::kCount;

/// Standard normal draws for sequences, tasks and ranks. The second half of a row is the first with the other sign, so
/// that the mean over the scenarios hardly moves.
struct Draws {
  std::vector<Row> rows[3];

  Draws() {
    constexpr std::uint64_t kSeed = 1;
    for (std::uint64_t kind = 0; kind < std::size(rows); ++kind) {
      rows[kind].resize(Scenarios::kRows);
      for (std::size_t row = 0; row < Scenarios::kRows; ++row) {
        Random random(kSeed, kind, row);
        for (std::size_t i = 0; i < kCount / 2; ++i) {
          rows[kind][row][i] = static_cast<float>(random.normal());
          rows[kind][row][i + kCount / 2] = -rows[kind][row][i];
        }
      }
    }
  }
};

/// e^x to single precision for -8 < x < 8 by additions and multiplications alone: compilers vectorise it, and it is the
/// same everywhere.
float quick_exp(float x) {
  const float y = x * 0.125F;
  float sum = 1.0F + y * (1.0F / 8);
  for (const float term : {1.0F / 7, 1.0F / 6, 1.0F / 5, 1.0F / 4, 1.0F / 3, 1.0F / 2, 1.0F})
    sum = 1.0F + y * term * sum;
  const float square = sum * sum;
  const float fourth = square * square;
  return fourth * fourth;
}

/// Log-normal factors of mean 1; the one row of ones where there is no error.
std::vector<Row> factors(std::uint64_t kind, double size, std::size_t most_rows, std::size_t first_row) {
  if (!(size > 0.0)) {
    Row ones;
    ones.fill(1.0F);
    return {ones};
  }
  static const Draws kDraws;
  const auto sigma = static_cast<float>(size);
  const float shift = sigma * sigma * 0.5F;
  std::vector<Row> rows(std::clamp<std::size_t>(most_rows, 1, Scenarios::kRows));
  for (std::size_t row = 0; row < rows.size(); ++row) {
    const Row& draws = kDraws.rows[kind][(first_row + row) % Scenarios::kRows];
    for (std::size_t i = 0; i < kCount; ++i) rows[row][i] = quick_exp(sigma * draws[i] - shift);
  }
  return rows;
}

// std::max() of rows; compilers vectorise this form.
void raise(Row& most, const Row& other) {
  for (std::size_t i = 0; i < kCount; ++i) most[i] = most[i] < other[i] ? other[i] : most[i];
}

}  // namespace

Scenarios::Scenarios(const ErrorSizes& sizes, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                     std::size_t first_row)
    : batch_(&batch),
      index_(batch),
      sequence_(factors(0, sizes.sequence, batch.sequences.size(), first_row)),
      task_(factors(1, sizes.task, batch.sequences.size(), first_row)),
      rank_(factors(2, sizes.rank, kRows, first_row)) {
  alone_s_.reserve(batch.sequences.size());
  for (const Sequence& sequence : batch.sequences) {
    alone_s_.push_back(alone_seconds(cost, cluster, sequence));
  }
}

double Scenarios::expected_s(const Plan& plan, std::span<const double> task_s, double makespan_s) const {
  if (!(makespan_s > 0.0)) return makespan_s;
  std::vector<Row> ready(index(plan.ranks), Row{});  // in makespans
  Row barrier{};
  Row last{};
  std::size_t members = 0;
  for (std::size_t t = 0; t < plan.tasks.size(); ++t) {
    const Task& task = plan.tasks[t];
    const bool waits = plan.schedule != Schedule::free && t > 0 && task.micro_batch != plan.tasks[t - 1].micro_batch;
    if (waits) barrier = last;
    double alone_s = 0.0;
    for (const std::int64_t id : task.sequences) alone_s += alone_s_[place_of(id)];
    Row took{};
    for (const std::int64_t id : task.sequences) {
      const std::size_t place = place_of(id);
      const auto share = static_cast<float>(alone_s > 0.0 ? alone_s_[place] / alone_s
                                                          : 1.0 / static_cast<double>(task.sequences.size()));
      const Row& factor = of_sequence(place);
      for (std::size_t i = 0; i < kCount; ++i) took[i] += share * factor[i];
    }
    Row slowest{};
    Row end = barrier;
    for (const Rank rank : task.ranks) {
      raise(slowest, of_rank(members++));
      raise(end, ready[index(rank)]);
    }
    const auto seconds = static_cast<float>(task_s[t] / makespan_s);
    const Row& factor = of_task(t);
    for (std::size_t i = 0; i < kCount; ++i) end[i] += seconds * took[i] * factor[i] * slowest[i];
    for (const Rank rank : task.ranks) ready[index(rank)] = end;
    raise(last, end);
  }
  double sum = 0.0;
  for (const float end : last) sum += static_cast<double>(end);
  return makespan_s * sum / kCount;
}

}  // namespace dhp::plan
