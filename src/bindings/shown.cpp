#include "bindings/bindings.h"

namespace nb = nanobind;

namespace dhp::bindings {

std::string shown(nb::handle self) {
  constexpr std::size_t kMost = 8;
  const nb::object builtins = nb::module_::import_("builtins");
  const nb::object property = builtins.attr("property");
  const auto type = nb::borrow<nb::object>(self.type());
  std::string fields;
  for (const auto [name, member] : nb::cast<nb::dict>(builtins.attr("dict")(type.attr("__dict__")))) {
    if (!nb::isinstance(member, property)) continue;
    const nb::object value = self.attr(name);
    const bool is_long = nb::isinstance<nb::list>(value) && nb::len(value) > kMost;
    fields += (fields.empty() ? "" : ", ") + nb::cast<std::string>(name) + "=" +
              (is_long ? "[" + std::to_string(nb::len(value)) + " values]" : nb::repr(value).c_str());
  }
  return nb::cast<std::string>(type.attr("__name__")) + "(" + fields + ")";
}

}  // namespace dhp::bindings
