#include <nanobind/operators.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "dhp/batch.h"
#include "dhp/error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {

void bind_batch(nb::module_& module) {
  nb::exception<InputError>(module, "InputError", PyExc_ValueError).attr("__doc__") =
      "Bad input: the message names the file (or option), the location in it, what was found and what was expected.";

  nb::class_<Sequence>(module, "Sequence", "One training sample as the planner sees it.")
      .def(
          "__init__",
          [](Sequence* self, std::int64_t id, std::int64_t tokens, std::int64_t patches, std::int64_t frame_patches) {
            new (self) Sequence{id, tokens, patches, frame_patches};
          },
          "id"_a, "tokens"_a, "patches"_a = 0, "frame_patches"_a = 0)
      .def_rw("id", &Sequence::id, "unique in its batch")
      .def_rw("tokens", &Sequence::tokens, "language-model tokens: text and merged visual tokens")
      .def_rw("patches", &Sequence::patches, "vision patches before merging; 0 for text")
      .def_rw("frame_patches", &Sequence::frame_patches,
              "of its largest picture, pair of frames or tile, which no two ranks share; 0: can be split at will")
      .def(nb::self == nb::self, nb::sig("def __eq__(self, arg: object, /) -> bool"))
      .def("__repr__", &shown);

  nb::class_<Batch>(module, "Batch", "A global batch: everything one optimizer step trains on.")
      .def(
          "__init__", [](Batch* self, std::vector<Sequence> sequences) { new (self) Batch{std::move(sequences)}; },
          "sequences"_a = std::vector<Sequence>{})
      .def_rw("sequences", &Batch::sequences)
      .def("__len__", [](const Batch& batch) { return batch.sequences.size(); })
      .def(nb::self == nb::self, nb::sig("def __eq__(self, arg: object, /) -> bool"))
      .def("__repr__", &shown);

  module.def("read_batch", &read_batch, "file"_a,
             "Reads dhp.batch/1 JSON, or what `dhp index` writes: all of its samples as one batch. Raises InputError.");
  module.def("parse_batch_json", &parse_batch_json, "text"_a, "source"_a,
             "Parses dhp.batch/1 JSON; `source` names the text in errors. Raises InputError.");
  module.def("to_json", nb::overload_cast<const Batch&>(&to_json), "batch"_a, "As dhp.batch/1 JSON.");
}

}  // namespace dhp::bindings
