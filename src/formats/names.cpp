#include <array>
#include <stdexcept>

#include "base/listing.h"
#include "dhp/error.h"
#include "dhp/plan.h"

namespace dhp {
namespace {

constexpr std::array<std::string_view, 4> kExchangeNames = {"ring", "direct", "hierarchical", "all_to_all"};
constexpr std::array<std::string_view, 3> kScheduleNames = {"lockstep", "free", "rounds"};

/// The position of a name in its list. Throws InputError that lists the names.
template <typename Names>
std::size_t index_of(const Names& names, std::string_view name, const std::string& source,
                     const std::string& location) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i] == name) return i;
  }
  throw InputError(source, location,
                   "found \"" + std::string(name) + "\", expected one of " +
                       listed(names, [](std::string_view known) { return known; }));
}

}  // namespace

std::string_view to_string(Exchange exchange) { return kExchangeNames.at(static_cast<std::size_t>(exchange)); }

std::string_view to_string(Schedule schedule) { return kScheduleNames.at(static_cast<std::size_t>(schedule)); }

Exchange parse_exchange(std::string_view name, const std::string& source, const std::string& location) {
  return static_cast<Exchange>(index_of(kExchangeNames, name, source, location));
}

Schedule parse_schedule(std::string_view name, const std::string& source, const std::string& location) {
  return static_cast<Schedule>(index_of(kScheduleNames, name, source, location));
}

}  // namespace dhp
