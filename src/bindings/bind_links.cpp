#include "base/links.h"

#include <nanobind/nanobind.h>

#include <string>

#include "bindings/bindings.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {

void bind_links(nb::module_& module) {
  module.def(
      "foreign_link",
      [](const nb::bytes& file) {
        const std::string link = foreign_link(std::string(file.c_str(), file.size())).string();
        return nb::bytes(link.data(), link.size());
      },
      "file"_a,
      "A link on the way to the file, or at its end, that another user has laid in a folder for all, such as /tmp; "
      "empty "
      "if there is none. Paths are bytes: names need not be UTF-8.");
}

}  // namespace dhp::bindings
