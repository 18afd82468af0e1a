#include "bindings/bindings.h"

namespace nb = nanobind;

namespace dhp::bindings {

std::string shown(nb::handle self, const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 8;
  std::string fields;
  for (const std::string& name : names) {
    const nb::object value = self.attr(name.c_str());
    const bool is_long = nb::isinstance<nb::list>(value) && nb::len(value) > kMost;
    fields += (fields.empty() ? "" : ", ") + name + "=" +
              (is_long ? "[" + std::to_string(nb::len(value)) + " values]" : nb::repr(value).c_str());
  }
  return nb::cast<std::string>(self.type().attr("__name__")) + "(" + fields + ")";
}

}  // namespace dhp::bindings
