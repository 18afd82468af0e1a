#include "torch/transport/group_call.h"

#include <algorithm>
#include <set>

namespace dhp::rt {
namespace {

Members find_members(c10::IntArrayRef ranks, const std::shared_ptr<Transport>& transport) {
  TORCH_CHECK_VALUE(!ranks.empty(), "ranks: found an empty list, expected the world ranks of the group in ring order");
  Members members{ranks.vec(), 0, ranks.size() > 1 ? transport : nullptr};
  if (!transport) return members;
  std::set<std::int64_t> seen;
  for (const std::int64_t rank : ranks) {
    TORCH_CHECK_VALUE(rank >= 0 && rank < transport->size(), "ranks: found ", rank, ", expected world ranks from 0 to ",
                      transport->size() - 1);
    TORCH_CHECK_VALUE(seen.insert(rank).second, "ranks: found rank ", rank, " twice in ", ranks);
  }
  const auto own = std::find(ranks.begin(), ranks.end(), transport->rank());
  TORCH_CHECK_VALUE(own != ranks.end(), "ranks: this is rank ", transport->rank(), ", which is not in the group ",
                    ranks);
  members.position = static_cast<int>(own - ranks.begin());
  return members;
}

std::string message_of(const std::exception& error) {
  if (const auto* own = dynamic_cast<const c10::Error*>(&error)) return own->what_without_backtrace();
  return error.what();
}

}  // namespace

void run_in_group(const std::string& operation, const std::string& group, c10::IntArrayRef ranks,
                  const std::function<void(const Members&)>& body) {
  std::shared_ptr<Transport> transport;
  if (ranks.size() != 1 || !group.empty()) transport = find_transport(group);
  const auto record = [&](const std::string& message) {
    if (transport && ranks.size() != 1) {
      transport->record_failure(describe_rank(*transport) + ": " + operation + ": " + message);
    }
  };
  try {
    body(find_members(ranks, transport));
  } catch (const c10::DistError&) {
    throw;  // recorded where it was found
  } catch (const c10::ValueError& error) {
    record(message_of(error));
    C10_THROW_ERROR(ValueError, operation + ": " + message_of(error));
  } catch (const c10::NotImplementedError& error) {
    record(message_of(error));
    C10_THROW_ERROR(NotImplementedError, operation + ": " + message_of(error));
  } catch (const std::exception& error) {
    record(message_of(error));
    throw;
  }
}

}  // namespace dhp::rt
