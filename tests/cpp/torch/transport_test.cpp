#include "torch/transport/transport.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <chrono>

#include "ranks.h"

namespace dhp::rt::transport_test {
namespace {

using test::run_ranks;

at::Tensor numbers(std::int64_t count, std::int64_t value) { return at::full({count}, value, at::kLong); }

// Every rank sends to every other on two roles; messages of a role keep their order, roles do not mix.
TEST(ThreadTransport, KeepsTheOrderWithinARole) {
  for (const int size : {2, 3, 7}) {
    const auto errors = run_ranks("order", size, [&](int rank) {
      const auto transport = find_transport("order/" + std::to_string(rank));
      ASSERT_EQ(transport->rank(), rank);
      ASSERT_EQ(transport->size(), size);
      std::vector<std::unique_ptr<Ticket>> tickets;
      std::vector<std::pair<at::Tensor, std::int64_t>> expected;
      for (int peer = 0; peer < size; ++peer) {
        if (peer == rank) continue;
        for (const Role role : {Role::kKeyValue, Role::kGradient}) {
          for (int message = 0; message < 5; ++message) {
            const auto value = [&](int sender) { return sender * 1000 + static_cast<int>(role) * 100 + message; };
            auto incoming = numbers(message, -1);
            const Transfer transfers[] = {{Direction::kSend, peer, role, numbers(message, value(rank))},
                                          {Direction::kReceive, peer, role, incoming}};
            tickets.push_back(transport->post(transfers, "a test"));
            expected.emplace_back(incoming, value(peer));
          }
        }
      }
      for (const auto& ticket : tickets) ticket->wait();
      for (const auto& [tensor, value] : expected) EXPECT_TRUE(tensor.equal(numbers(tensor.numel(), value)));
    });
    for (const auto& error : errors) EXPECT_EQ(error, "");
  }
}

TEST(ThreadTransport, AFailureWakesEveryWaitAndStays) {
  const auto errors = run_ranks("fail", 3, [&](int rank) {
    const auto transport = find_transport("fail/" + std::to_string(rank));
    transport->set_label("step 12");
    if (rank == 2) {
      transport->record_failure("rank 2: out of milk");
      transport->record_failure("rank 2: and of bread");
      return;
    }
    const Transfer transfers[] = {{Direction::kReceive, 2, Role::kRows, numbers(3, 0)}};
    transport->post(transfers, "a test")->wait();
  });
  for (const int rank : {0, 1}) {
    const auto& error = errors[static_cast<std::size_t>(rank)];
    EXPECT_EQ(error.find("rank 2: out of milk"), 0U) << error;
    EXPECT_NE(error.find("rank " + std::to_string(rank) + " (step 12), in a test, waiting for data from rank 2"),
              std::string::npos)
        << error;
  }
}

TEST(ThreadTransport, AnExpiredWaitNamesThePeer) {
  const auto start = std::chrono::steady_clock::now();
  const auto errors = run_ranks("slow", 2, [&](int rank) {
    if (rank == 1) return;
    const auto transport = find_transport("slow/0");
    transport->set_timeout(std::chrono::milliseconds(50));
    const Transfer transfers[] = {{Direction::kReceive, 1, Role::kRows, numbers(3, 0)}};
    transport->post(transfers, "a test")->wait();
  });
  EXPECT_NE(errors[0].find("waiting for data from rank 1: nothing came for 0.05 s"), std::string::npos) << errors[0];
  EXPECT_EQ(errors[1], "");
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(ThreadTransport, AnUnexpectedSizeIsAFailureOfBoth) {
  const auto errors = run_ranks("sizes", 2, [&](int rank) {
    const auto transport = find_transport("sizes/" + std::to_string(rank));
    const auto direction = rank == 0 ? Direction::kSend : Direction::kReceive;
    const Transfer transfers[] = {{direction, 1 - rank, Role::kRows, numbers(3 + rank, 0)}};
    transport->post(transfers, "a test")->wait();
  });
  for (const auto& error : errors)
    EXPECT_NE(error.find("rank 0 sent 24 bytes where rank 1 expected 32"), std::string::npos) << error;
}

TEST(Transport, OnACpuThereAreNoStalls) {
  create_thread_groups("stalls", 1);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const bool on : {true, false, true}) {
    dispatcher.findSchemaOrThrow("dhp::measure_stalls", "")
        .typed<void(const std::string&, bool)>()
        .call("stalls/0", on);
  }
  const auto stalled =
      dispatcher.findSchemaOrThrow("dhp::stalled_s", "").typed<std::vector<double>(const std::string&)>();
  EXPECT_TRUE(stalled.call("stalls/0").empty());
  release_transport("stalls/0");
}

TEST(Transport, AnUnknownGroupIsNamed) {
  try {
    find_transport("no such group");
    FAIL();
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("no process group named \"no such group\""), std::string::npos);
  }
}

}  // namespace
}  // namespace dhp::rt::transport_test
