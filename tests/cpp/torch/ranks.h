#pragma once

#include <ATen/ops/randn.h>

#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "torch/transport/thread_transport.h"

namespace dhp::rt::test {

/// Runs `body(rank)` for every rank in a thread of its own, over thread groups "NAME/rank" of that device; gives the
/// message of the exception that ended each rank, or "".
inline std::vector<std::string> run_ranks(const std::string& name, int size, const std::function<void(int)>& body,
                                          const std::string& device = "cpu") {
  // libtorch makes its random generator on first use, guarded in code that ThreadSanitizer does not see.
  at::randn({1});
  create_thread_groups(name, size, device);
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (const std::exception& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (int rank = 0; rank < size; ++rank) release_transport(name + "/" + std::to_string(rank));
  return errors;
}

}  // namespace dhp::rt::test
