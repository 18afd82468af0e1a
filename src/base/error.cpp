#include "dhp/error.h"

#include "base/text.h"

namespace dhp {
InputError::InputError(const std::string& source, const std::string& location, const std::string& problem)
    : std::runtime_error(on_one_line(source + ": " + (location.empty() ? "" : location + ": ") + problem)) {}

}  // namespace dhp
