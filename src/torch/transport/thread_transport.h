#pragma once

#include <memory>
#include <string>
#include <vector>

#include "torch/transport/transport.h"

namespace dhp::rt {

/// Transports of `size` ranks that are threads of this process: for tests, sanitizers, and several ranks on one
/// accelerator. Entry r belongs to rank r.
std::vector<std::shared_ptr<Transport>> make_thread_transports(int size);

/// Registers such transports under the names "NAME/0" ... "NAME/<size-1>", one for each rank.
void create_thread_groups(const std::string& name, int size);

/// Makes a transport known under the name of a group.
void register_transport(const std::string& group, std::shared_ptr<Transport> transport);

/// The transport registered under that name, or null.
std::shared_ptr<Transport> find_thread_transport(const std::string& group);
void release_thread_transport(const std::string& group);
void release_all_thread_transports();

}  // namespace dhp::rt
