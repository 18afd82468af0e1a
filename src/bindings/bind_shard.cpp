#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/shard.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {

void bind_shard(nb::module_& module) {
  ValueClass<TokenRange>(module, "TokenRange", "Half-open range of token indices.")
      .def(
          "__init__",
          [](TokenRange* self, std::int64_t begin, std::int64_t end) {
            new (self) TokenRange{begin, end};
          },
          "begin"_a, "end"_a)
      .def_rw("begin", &TokenRange::begin)
      .def_rw("end", &TokenRange::end)
      .def("__len__", &TokenRange::size);
  module.def("padded_tokens", &padded_tokens, "tokens"_a, "degree"_a,
             "Length after padding to a multiple of 2 * degree (degree 1: not at all).");
  module.def(
      "shard_ranges", &shard_ranges, "tokens"_a, "degree"_a, "position"_a,
      "The two ranges that a position holds, in local order; indices at or beyond `tokens` are pads. For degree\n"
      "1 the second range is empty. Raises ValueError for a position that the degree does not have.");
}

}  // namespace dhp::bindings
