#pragma once

#include <memory>
#include <string>
#include <vector>

#include "torch/transport/transport.h"

namespace dhp::rt {

/// Transports of `size` ranks that are threads of this process: for tests, sanitizers, and several ranks on one
/// accelerator. Entry r belongs to rank r. On a device each thread makes a stream of its own the current one, so that
/// ranks do not wait in one line, and calls the forward and backward passes itself: autograd has one thread a device,
/// in which two ranks would wait for each other. The host of a rank waits until its peer's has posted, not for the
/// device.
std::vector<std::shared_ptr<Transport>> make_thread_transports(int size, c10::Device device = c10::kCPU);

/// Registers such transports under the names "NAME/0" ... "NAME/<size-1>", one for each rank.
void create_thread_groups(const std::string& name, int size, const std::string& device = "cpu");

/// Makes a transport known under the name of a group.
void register_transport(const std::string& group, std::shared_ptr<Transport> transport);

/// The transport registered under that name, or null.
std::shared_ptr<Transport> find_thread_transport(const std::string& group);
void release_thread_transport(const std::string& group);
void release_all_thread_transports();

}  // namespace dhp::rt
