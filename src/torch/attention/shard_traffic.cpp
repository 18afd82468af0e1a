#include "torch/attention/shard_traffic.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/index.h"
#include "torch/attention/accumulate.h"

namespace dhp::rt {

BufferPool::BufferPool(const at::Tensor& like, at::ScalarType type, std::int64_t rows)
    : options_(like.options().dtype(type)), rows_(rows), heads_(like.size(1)), size_(like.size(2)) {}

at::Tensor BufferPool::take(std::int64_t rows) {
  if (free_.empty()) free_.push_back(at::empty({2 * rows_, heads_, size_}, options_));
  const auto buffer = free_.back();
  free_.pop_back();
  return buffer.narrow(0, 0, 2 * rows).view({2, rows, heads_, size_});
}

void BufferPool::give_back(const at::Tensor& buffer) {
  free_.push_back(buffer.as_strided({2 * rows_, heads_, size_}, {heads_ * size_, size_, 1}, 0));
}

ShardTraffic::ShardTraffic(const AttentionPass& pass, Role role, const std::vector<Message>& messages)
    : pass_(pass), role_(role), messages_(messages) {}

void ShardTraffic::post(int tick, const BufferFor& buffer_for) {
  while (next_ < messages_.size() && messages_[next_].post == tick) {
    Flight flight{messages_[next_].due, {}, nullptr};
    const bool far = messages_[next_].far;
    std::vector<Transfer> transfers;
    for (; next_ < messages_.size(); ++next_) {
      const Message& message = messages_[next_];
      if (message.post != tick || message.far != far || message.due != flight.due) break;
      flight.messages.push_back({message, buffer_for(message)});
      transfers.push_back(
          {message.direction, pass_.members.rank_at(message.peer), role_, flight.messages.back().buffer, far});
    }
    flight.ticket = pass_.members.transport->post(
        transfers, pass_.doing + (role_ == Role::kGradient ? ", key and value gradients, " : ", ") + pass_.exchange +
                       " step " + std::to_string(flight.due) + " of " + std::to_string(pass_.ticks - 1));
    flights_.push_back(std::move(flight));
  }
}

std::vector<ShardTraffic::Done> ShardTraffic::wait(int tick) {
  std::vector<Done> done;
  for (Flight& flight : flights_) {
    if (flight.due > tick) continue;
    flight.ticket->wait();
    std::move(flight.messages.begin(), flight.messages.end(), std::back_inserter(done));
  }
  std::erase_if(flights_, [tick](const Flight& flight) { return flight.due <= tick; });
  return done;
}

TravellingKeys::TravellingKeys(const AttentionPass& pass, const at::Tensor& k, const at::Tensor& v)
    : pass_(pass),
      own_k_(k),
      own_v_(v),
      pool_(k, k.scalar_type(), pass.layout.rows(false)),
      held_(index(pass.members.degree())),
      uses_left_(index(pass.members.degree()), 1),
      traffic_(pass, Role::kKeyValue, pass.schedule->keys) {
  for (const Message& message : pass.schedule->keys) {
    if (message.direction == Direction::kSend) ++uses_left_[index(message.shard)];
  }
}

void TravellingKeys::begin_tick(int tick) {
  if (tick > 0 && pass_.owner_at(tick - 1) != ExchangeSchedule::kNoBlock) used(pass_.owner_at(tick - 1));
  for (const auto& [message, buffer] : traffic_.wait(tick)) {
    if (message.direction == Direction::kReceive) {
      held_[index(message.shard)] = buffer;
    } else {
      used(message.shard);
    }
  }
  traffic_.post(tick, [this](const Message& message) {
    return message.direction == Direction::kReceive ? pool_.take(pass_.layout.rows(message.half)) : outgoing(message);
  });
  const int owner = pass_.owner_at(tick);
  if (owner == ExchangeSchedule::kNoBlock) return;
  const bool is_own = owner == pass_.members.position;
  k_ = is_own ? own_k_ : held_[index(owner)][0];
  v_ = is_own ? own_v_ : held_[index(owner)][1];
}

/// A shard on its way is passed on as it came; this rank's own one is packed when it is first needed.
at::Tensor TravellingKeys::outgoing(const Message& message) {
  const bool is_own = message.shard == pass_.members.position;
  at::Tensor& shard = is_own && message.half ? own_half_ : held_[index(message.shard)];
  if (is_own && !shard.defined()) shard = pass_.layout.pack(own_k_, own_v_, message.half);
  return shard;
}

void TravellingKeys::used(int shard) {
  if (--uses_left_[index(shard)] > 0) return;
  if (shard == pass_.members.position) {
    own_half_.reset();
  } else {
    pool_.give_back(held_[index(shard)]);
  }
  held_[index(shard)].reset();
}

TravellingGradients::TravellingGradients(const AttentionPass& pass, const at::Tensor& k)
    : pass_(pass),
      pool_(k, accumulate_type(k.scalar_type()), pass.layout.rows(false)),
      sums_(index(pass.members.degree())),
      traffic_(pass, Role::kGradient, pass.schedule->gradients) {}

void TravellingGradients::take_in(int tick, at::Tensor& dk, at::Tensor& dv) {
  for (const auto& [message, buffer] : traffic_.wait(tick)) {
    if (message.direction == Direction::kSend) {
      pool_.give_back(buffer);
      continue;
    }
    at::Tensor& sum = sums_[index(message.shard)];
    const bool is_own = message.shard == pass_.members.position;
    if (!is_own && !sum.defined()) {
      sum = buffer;
      continue;
    }
    if (is_own) {
      pass_.layout.unpack_add(buffer, message.half, dk, dv);
    } else {
      sum.add_(buffer);
    }
    pool_.give_back(buffer);
  }
}

void TravellingGradients::add(int owner, const std::vector<BlockGradient>& results) {
  at::Tensor& sum = sums_[index(owner)];
  const bool fresh = !sum.defined();
  if (fresh) sum = pool_.take(pass_.layout.rows(pass_.is_half(owner)));
  add_gradients(sum, results, fresh);
}

void TravellingGradients::send_on(int tick) {
  traffic_.post(tick, [this](const Message& message) {
    if (message.direction == Direction::kReceive) return pool_.take(pass_.layout.rows(message.half));
    return std::exchange(sums_[index(message.shard)], at::Tensor());
  });
}

}  // namespace dhp::rt
