#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "torch/attention/attention_pass.h"
#include "torch/transport/transport.h"

namespace dhp::rt {

/// Buffers of shards that are used again and again: fresh memory would cost a page fault every 4 KiB.
class BufferPool {
 public:
  /// `like` is this rank's k or v; `rows` are those of a whole shard.
  BufferPool(const at::Tensor& like, at::ScalarType type, std::int64_t rows);

  at::Tensor take(std::int64_t rows);  // [2, rows, Hkv, D]
  void give_back(const at::Tensor& buffer);

 private:
  const at::TensorOptions options_;
  const std::int64_t rows_, heads_, size_;
  std::vector<at::Tensor> free_;  // [2 * rows, Hkv, D]
};

/// The messages of one role, started and waited for at their ticks. What is started and due together, and goes
/// the same way (Message::far), is one ticket.
class ShardTraffic {
 public:
  ShardTraffic(const AttentionPass& pass, Role role, const std::vector<Message>& messages);

  using BufferFor = std::function<at::Tensor(const Message&)>;
  void post(int tick, const BufferFor& buffer_for);

  struct Done {
    Message message;
    at::Tensor buffer;
  };
  std::vector<Done> wait(int tick);

 private:
  struct Flight {
    int due;
    std::vector<Done> messages;
    std::unique_ptr<Ticket> ticket;  // after the buffers: ends before they do
  };

  const AttentionPass& pass_;
  const Role role_;
  const std::vector<Message>& messages_;
  std::size_t next_ = 0;  // of the messages, to post
  std::vector<Flight> flights_;
};

/// Keys and values as they come by.
class TravellingKeys {
 public:
  TravellingKeys(const AttentionPass& pass, const at::Tensor& k, const at::Tensor& v);

  /// Ends the tick before and begins this one: takes in what is due and starts the messages, so that they travel while
  /// the block is computed.
  void begin_tick(int tick);

  /// Of the shard to compute with.
  const at::Tensor& k() const { return k_; }
  const at::Tensor& v() const { return v_; }

 private:
  at::Tensor outgoing(const Message& message);
  void used(int shard);

  const AttentionPass& pass_;
  const at::Tensor own_k_, own_v_;
  at::Tensor k_, v_;
  BufferPool pool_;
  std::vector<at::Tensor> held_;  // by owner
  at::Tensor own_half_;           // of this rank's shard, the whole of which is in held_
  std::vector<int> uses_left_;    // by owner: messages out, and the block
  ShardTraffic traffic_;
};

/// Gradients of other ranks' keys and values on their way home. A sum is in one place at a time: a member adds its part
/// and what comes from others, then sends it on. The owner's own part never travels.
class TravellingGradients {
 public:
  TravellingGradients(const AttentionPass& pass, const at::Tensor& k);

  /// Takes in what is due: into dk and dv if it is this rank's own.
  void take_in(int tick, at::Tensor& dk, at::Tensor& dv);

  /// Adds this rank's part to the gradients of another rank's shard.
  void add(int owner, const std::vector<BlockGradient>& results);

  /// Starts the messages of this tick, after both.
  void send_on(int tick);

 private:
  const AttentionPass& pass_;
  BufferPool pool_;
  std::vector<at::Tensor> sums_;  // by owner
  ShardTraffic traffic_;
};

}  // namespace dhp::rt
