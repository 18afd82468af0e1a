#include "torch/transport/transport.h"

#include <c10/util/Exception.h>

#include <sstream>

#include "torch/transport/c10d_transport.h"
#include "torch/transport/thread_transport.h"

namespace dhp::rt {

std::string Transport::explain_failure(const std::string& problem, bool /*expired*/) {
  record_failure(problem);
  return failure(false).value_or(problem);
}

std::shared_ptr<Transport> find_transport(const std::string& group) {
  if (auto transport = find_thread_transport(group)) return transport;
  return find_c10d_transport(group);
}

std::shared_ptr<Watched> find_watched(const std::string& group) {
  return std::dynamic_pointer_cast<Watched>(find_transport(group));
}

void release_transport(const std::string& group) {
  release_thread_transport(group);
  release_c10d_transport(group);
}

void release_all_transports() {
  release_all_thread_transports();
  release_all_c10d_transports();
}

std::string describe_rank(const Transport& transport) {
  const std::string label = transport.label();
  return "rank " + std::to_string(transport.rank()) + (label.empty() ? "" : " (" + label + ")");
}

std::string describe_wait(const Transport& transport, const std::string& doing, Direction direction, int peer) {
  return describe_rank(transport) + ", in " + doing +
         (direction == Direction::kReceive ? ", waiting for data from rank " : ", sending to rank ") +
         std::to_string(peer);
}

std::string plain_error(const std::string& error) {
  std::string text = error.substr(0, error.find('\n'));
  if (text.starts_with('[') && text.find("] ") != std::string::npos) text.erase(0, text.find("] ") + 2);
  return text.substr(0, text.find(". This is typically caused by"));
}

std::string timeout_words(std::chrono::milliseconds timeout) {
  std::ostringstream text;
  text << "nothing came for " << std::chrono::duration<double>(timeout).count()
       << " s (dhp::configure_group sets this time-out)";
  return text.str();
}

void throw_failure(const std::string& root_cause, const std::string& where) {
  const bool is_own = root_cause.find(where) != std::string::npos;
  C10_THROW_ERROR(DistError, is_own ? root_cause : root_cause + "\n  seen by " + where);
}

}  // namespace dhp::rt
