#include <ATen/ATen.h>
#include <c10/core/DeviceType.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "device.h"
#include "ranks.h"
#include "torch/attention/device_numbers.h"
#include "torch/attention/ring_attention.h"
#include "torch/transport/thread_transport.h"

namespace dhp::rt::late_test {
namespace {

using late::Policy;

// torch asks for its name before it pins memory.
const bool kIsNamed = [] {
  c10::register_privateuse1_backend("late");
  return true;
}();
const c10::Device kLate(late::kType, 0);
const at::TensorOptions kNumbers = at::TensorOptions(kLate).dtype(at::kDouble);

/// Of this thread, until its end.
class Current {
 public:
  explicit Current(c10::Stream stream) : before_(late::exchange_stream(stream)) {}
  ~Current() { late::exchange_stream(before_); }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  c10::Stream before_;
};

std::string group_of(const std::string& name, int rank) { return name + "/" + std::to_string(rank); }

/// A call of four ranks, forward and backward, with the shards of each.
class Rings {
 public:
  static constexpr int kSize = 4;

  explicit Rings(std::string exchange) : exchange_(std::move(exchange)) {
    for (auto& shard : shards_) shard = at::randn({4, kRows, 2, 8}, at::kDouble);
  }

  /// Output and the three gradients of a rank, on the host.
  std::array<at::Tensor, 4> run(const std::string& name, int rank, c10::Device device) const {
    const auto shard = shards_[static_cast<std::size_t>(rank)].to(device);
    const RingAttentionCall call{{16, 8}, {0, 1, 2, 3}, group_of(name, rank), 0.4, true, exchange_, {0, 0, 1, 1}, true};
    const auto forward = ring_attention_forward(shard[0], shard[1], shard[2], call);
    const auto backward = ring_attention_backward(shard[3], forward, call);
    return {forward.out.cpu(), backward.dq.cpu(), backward.dk.cpu(), backward.dv.cpu()};
  }

 private:
  static constexpr std::int64_t kRows = 6;  // of 24 tokens

  std::string exchange_;
  std::array<at::Tensor, kSize> shards_;
};

/// Policies of the ranks' streams; none: all ranks are on the default stream.
void compare_with_cpu(const std::vector<Policy>& policies) {
  for (const char* exchange : {"ring", "direct", "hierarchical"}) {
    const Rings rings(exchange);
    std::array<std::array<at::Tensor, 4>, Rings::kSize> found;
    std::array<std::array<at::Tensor, 4>, Rings::kSize> expected;
    const auto on_cpu = test::run_ranks("host", Rings::kSize, [&](int rank) {
      expected[static_cast<std::size_t>(rank)] = rings.run("host", rank, c10::kCPU);
    });
    const auto body = [&](int rank) {
      const auto number = static_cast<std::size_t>(rank);
      const Current current(policies.empty() ? late::stream_of(0) : late::new_stream(policies[number]));
      found[number] = rings.run("late", rank, kLate);
    };
    const auto on_late = test::run_ranks("late", Rings::kSize, body, kLate.str());
    for (std::size_t rank = 0; rank < found.size(); ++rank) {
      ASSERT_EQ(on_cpu[rank] + on_late[rank], "");
      for (std::size_t i = 0; i < found[rank].size(); ++i) {
        EXPECT_TRUE(at::allclose(found[rank][i], expected[rank][i], 1e-10, 1e-10)) << exchange << rank << i;
      }
    }
  }
}

TEST(LateThreads, AttendOnOneStream) { compare_with_cpu({}); }

TEST(LateThreads, AttendOnStreamsOfTheirOwn) {
  compare_with_cpu({Policy::kEager, Policy::kEager, Policy::kEager, Policy::kEager});
  compare_with_cpu({Policy::kLazy, Policy::kLazy, Policy::kLazy, Policy::kLazy});
  compare_with_cpu({Policy::kLazy, Policy::kEager, Policy::kRandom, Policy::kEager});
}

/// Rank 1 is at its receive late, and rank 0 gives up before: what it sends is freed while it is copied.
TEST(LateThreads, ADroppedTicketKeepsItsMemory) {
  const auto ranks = make_thread_transports(3, kLate);
  const c10::Stream first = late::new_stream(Policy::kEager);
  const c10::Stream second = late::new_stream(Policy::kEager);
  constexpr std::int64_t kCount = 1000;
  std::unique_ptr<Ticket> sending;
  at::Tensor sent;
  {
    const Current current(first);
    sent = at::full({kCount}, 7.0, kNumbers);
    const Transfer transfers[] = {{Direction::kSend, 1, Role::kRows, sent},
                                  {Direction::kReceive, 2, Role::kRows, at::empty({kCount}, kNumbers)}};
    sending = ranks[0]->post(transfers, "a test");
  }
  const Current current(second);
  late::stall(0.3);
  const at::Tensor received = at::empty({kCount}, kNumbers);
  const Transfer transfer{Direction::kReceive, 0, Role::kRows, received};
  const auto receiving = ranks[1]->post({&transfer, 1}, "a test");
  {
    const Current other(first);
    sending.reset();
    sent.reset();
  }
  receiving->wait();
  EXPECT_TRUE(received.cpu().eq(7.0).all().item<bool>());
}

TEST(LateThreads, BuffersOfAHostAndADeviceAreNotMixed) {
  const auto ranks = make_thread_transports(2, kLate);
  const Transfer send{Direction::kSend, 1, Role::kRows, at::zeros({3}, at::kDouble)};
  const Transfer receive{Direction::kReceive, 0, Role::kRows, at::zeros({3}, kNumbers)};
  const auto sending = ranks[0]->post({&send, 1}, "a test");
  const auto receiving = ranks[1]->post({&receive, 1}, "a test");
  for (Ticket* ticket : {sending.get(), receiving.get()}) {
    try {
      ticket->wait();
      ADD_FAILURE();
    } catch (const c10::DistError& error) {
      EXPECT_NE(std::string(error.what()).find("rank 0 sent a tensor on cpu where rank 1 expected one on "),
                std::string::npos)
          << error.what();
    }
  }
}

TEST(LateThreads, WaitsAreStalls) {
  const auto ranks = make_thread_transports(2, kLate);
  const at::Tensor received = at::empty({3}, kNumbers);
  const Transfer receive{Direction::kReceive, 1, Role::kRows, received};
  const auto receiving = ranks[0]->post({&receive, 1}, "a test");
  {
    const Current current(late::new_stream(Policy::kEager));
    late::stall(0.05);
    const Transfer send{Direction::kSend, 0, Role::kRows, at::ones({3}, kNumbers)};
    ranks[1]->post({&send, 1}, "a test")->wait();
  }
  ranks[0]->stalls().begin();
  receiving->wait();
  ranks[0]->stalls().end();
  const auto seconds = ranks[0]->stalls().take_seconds();
  ASSERT_EQ(seconds.size(), 1U);
  EXPECT_GT(seconds[0], 0.0);
}

/// The host is far ahead of the device, and has forgotten the first ones by the time they are copied.
TEST(DeviceNumbers, AreRightHoweverManyThereAre) {
  const Current current(late::new_stream(Policy::kLazy));
  constexpr std::int64_t kMany = 100;
  std::vector<at::Tensor> found;
  for (std::int64_t i = 0; i < kMany; ++i) found.push_back(device_numbers({i, 2 * i}, at::kLong, kLate));
  for (std::int64_t i = 0; i < kMany; ++i) {
    EXPECT_EQ(found[static_cast<std::size_t>(i)][0].item<std::int64_t>(), i);
    EXPECT_EQ(found[static_cast<std::size_t>(i)][1].item<std::int64_t>(), 2 * i);
  }
  EXPECT_TRUE(device_numbers({7, 14}, at::kInt, kLate).cpu().equal(at::tensor({7, 14}, at::kInt)));
}

TEST(LateMemory, WhatCannotBeHadIsAnError) {
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer ends the process instead";
#endif
  EXPECT_THROW(at::empty({std::int64_t{1} << 50}, kNumbers), std::bad_alloc);
}

}  // namespace
}  // namespace dhp::rt::late_test
