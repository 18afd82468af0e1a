#include "plan/limits.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "base/number_limits.h"
#include "base/text.h"
#include "cost/transfer.h"

namespace dhp::plan {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

std::string gib(double bytes, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f GiB", digits, bytes / kGiB);
  return text.data();
}

/// Two amounts with as many digits as it takes to tell them apart, one at least.
std::pair<std::string, std::string> gib_apart(double a, double b) {
  constexpr int kMostDigits = 9;  // bytes
  int digits = 1;
  while (digits < kMostDigits && gib(a, digits) == gib(b, digits)) ++digits;
  return {gib(a, digits), gib(b, digits)};
}

Infeasible no_room(const Cluster& cluster, const CostModel& cost) {
  const auto [state, memory] = gib_apart(cost.state_bytes, cluster.memory_bytes);
  Infeasible answer;
  answer.reason = "the model's state (parameters, gradients, optimizer, reserve) needs " + state +
                  " a rank; a rank has " + memory + ", which leaves nothing for activations";
  answer.needed_bytes = cost.state_bytes;
  answer.offered_bytes = cluster.memory_bytes;
  return answer;
}

Load load_of_one(const Sequence& sequence) { return load_of(std::span(&sequence, 1)); }

}  // namespace

Limits::Limits(const Cluster& cluster, const CostModel& cost, const PlanOptions& options,
               std::span<const Exchange> exchanges)
    : cluster_(&cluster),
      cost_(&cost),
      live_(cluster.live_ranks()),
      exchanges_(options.exchanges.empty() ? std::vector(exchanges.begin(), exchanges.end()) : options.exchanges),
      min_shard_tokens_(options.min_shard_tokens),
      consecutive_(options.placement == Placement::consecutive),
      budget_bytes_(activation_budget_bytes(cost, cluster)),
      tokens_per_rank_(options.max_tokens_per_rank > 0 ? static_cast<double>(options.max_tokens_per_rank) : kInfinity) {
  make_blocks(options);
  make_degrees(options);
}

void Limits::make_blocks(const PlanOptions& options) {
  const int most = options.max_peers > 0 && options.max_peers < ranks() ? options.max_peers + 1 : ranks();
  int size = 0;
  for (int position = 0; position < ranks(); ++position) {
    const bool new_node =
        position > 0 && cluster_->node_of(live_[index(position)]) != cluster_->node_of(live_[index(position) - 1]);
    if (position == 0 || size == most || (options.within_node && new_node)) {
      block_begins_.push_back(position);
      size = 0;
    }
    ++size;
  }
  block_begins_.push_back(ranks());
}

void Limits::make_degrees(const PlanOptions& options) {
  for (std::size_t i = 0; i + 1 < block_begins_.size(); ++i) {
    widest_ = std::max(widest_, block_begins_[i + 1] - block_begins_[i]);
  }
  if (options.max_degree > 0) widest_ = std::min(widest_, options.max_degree);
  next_allowed_.assign(index(widest_) + 1, 0);
  const auto divides_all = [&](int degree) {
    return std::all_of(options.degrees_divide.begin(), options.degrees_divide.end(),
                       [&](int heads) { return heads % degree == 0; });
  };
  int next = 0;
  for (int degree = widest_; degree >= 1; --degree) {
    if (divides_all(degree)) next = degree;
    next_allowed_[index(degree)] = next;
  }
  if (widest_ > 0) next_allowed_[0] = next_allowed_[1];
  while (widest_ > 0 && next_allowed_[index(widest_)] == 0) --widest_;
}

int Limits::min_degree(const Sequence& sequence) const {
  const Load load = load_of_one(sequence);
  int degree = dhp::min_degree(*cost_, *cluster_, sequence);
  if (degree < 1 || degree > widest_) return 0;
  if (load.tokens > static_cast<double>(degree) * tokens_per_rank_) {
    const double needed = load.tokens / tokens_per_rank_;
    if (needed > static_cast<double>(widest_)) return 0;
    degree = std::max(degree, static_cast<int>(needed));
    while (load.tokens > static_cast<double>(degree) * tokens_per_rank_) ++degree;
  }
  return next_allowed(degree);
}

int Limits::max_degree(const Sequence& sequence, int min_degree) const {
  const std::int64_t widest = std::min<std::int64_t>(sequence.tokens / min_shard_tokens_, widest_);
  return std::max(min_degree, static_cast<int>(widest));
}

Exchange Limits::exchange_for(const GroupShape& shape) const {
  Exchange best = exchanges_.front();
  if (shape.degree == 1) return Exchange::ring;
  double best_s = kInfinity;
  for (const Exchange exchange : exchanges_) {
    const double seconds = transfer_seconds_per_byte(*cluster_, shape, exchange);
    if (seconds >= best_s) continue;
    best = exchange;
    best_s = seconds;
  }
  return best;
}

GroupShape Limits::consecutive_shape(int first, int degree) const {
  if (ranks() == cluster_->ranks()) return dhp::consecutive_shape(*cluster_, first, degree);
  return shape_of(*cluster_, std::span(live_).subspan(index(first), index(degree)));
}

std::vector<Rank> Limits::consecutive_ranks(int first, int degree) const {
  return {live_.begin() + first, live_.begin() + first + degree};
}

std::optional<Infeasible> Limits::find_nothing_fits() const {
  if (budget_bytes_ <= 0.0) return no_room(*cluster_, *cost_);
  if (widest_ == 0) return Infeasible{.reason = "no rank is in service", .sequence = {}};
  return std::nullopt;
}

std::optional<Infeasible> Limits::find_infeasible(const Batch& batch, int widest) const {
  if (batch.sequences.empty()) return std::nullopt;
  if (auto nothing_fits = find_nothing_fits()) return nothing_fits;

  const Sequence* worst = nullptr;
  double worst_bytes = 0.0;
  for (const Sequence& sequence : batch.sequences) {
    if (holds(sequence, widest)) continue;
    const double bytes = task_memory_bytes(*cost_, load_of_one(sequence), 1);
    if (worst != nullptr && (bytes < worst_bytes || (bytes == worst_bytes && sequence.id > worst->id))) continue;
    worst = &sequence;
    worst_bytes = bytes;
  }
  if (worst == nullptr) return std::nullopt;
  return why_not(*worst, widest);
}

Infeasible Limits::why_not(const Sequence& sequence, int widest) const {
  Infeasible answer;
  answer.sequence = sequence.id;
  answer.needed_bytes = task_memory_bytes(*cost_, load_of_one(sequence), 1);
  answer.offered_bytes = widest * budget_bytes_;
  answer.needed_ranks = dhp::min_degree(*cost_, *cluster_, sequence);
  const std::string name = "sequence " + std::to_string(sequence.id);
  const std::string offer = ranks_text(widest) + (widest == 1 ? " offers " : " offer ");
  if (answer.needed_ranks > widest) {
    const std::string fewest = " (the smallest degree that holds it is " + std::to_string(answer.needed_ranks) + ")";
    if (counts_tokens(*cost_)) {
      answer.reason = name + " has " + grouped(sequence.tokens) + " tokens; " + ranks_text(widest) +
                      (widest == 1 ? " holds " : " hold ") + grouped(static_cast<std::int64_t>(answer.offered_bytes)) +
                      fewest;
    } else {
      const auto [needed, offered] = gib_apart(answer.needed_bytes, answer.offered_bytes);
      answer.reason = name + " needs " + needed + "; " + offer + offered + fewest;
    }
    return answer;
  }
  const double tokens = static_cast<double>(sequence.tokens);
  if (tokens > widest * tokens_per_rank_) {
    answer.needed_ranks = static_cast<int>(std::min(tokens / tokens_per_rank_, 1e9)) + 1;
    answer.reason = name + " has " + std::to_string(sequence.tokens) + " tokens; " + offer +
                    std::to_string(static_cast<std::int64_t>(widest * tokens_per_rank_)) +
                    " under the cap on tokens a rank";
  } else {
    answer.reason = name + " needs " + std::to_string(answer.needed_ranks) +
                    " ranks or more; no degree from there to " + std::to_string(widest) +
                    " is allowed (degrees must divide the given numbers)";
  }
  return answer;
}

}  // namespace dhp::plan
