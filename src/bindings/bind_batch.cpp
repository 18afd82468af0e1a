#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/batch.h"
#include "dhp/error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

using Columns = std::array<std::vector<std::int64_t>, 4>;  // ids, tokens, patches, frame patches

nb::object columns_of(const Batch& batch) {
  Columns columns;
  for (auto& column : columns) column.reserve(batch.sequences.size());
  for (const Sequence& s : batch.sequences) {
    columns[0].push_back(s.id);
    columns[1].push_back(s.tokens);
    columns[2].push_back(s.patches);
    columns[3].push_back(s.frame_patches);
  }
  return nb::cast(columns);
}

void set_columns(Batch& batch, nb::handle state) {
  const auto [ids, tokens, patches, frame_patches] = nb::cast<Columns>(state);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    batch.sequences.push_back({ids.at(i), tokens.at(i), patches.at(i), frame_patches.at(i)});
  }
}

}  // namespace

void bind_batch(nb::module_& module) {
  nb::exception<InputError>(module, "InputError", PyExc_ValueError).attr("__doc__") =
      "Bad input: the message names the file (or option), the location in it, what was found and what was expected.";

  ValueClass<Sequence>(module, "Sequence", "One training sample as the planner sees it.")
      .def(
          "__init__",
          [](Sequence* self, std::int64_t id, std::int64_t tokens, std::int64_t patches, std::int64_t frame_patches) {
            new (self) Sequence{id, tokens, patches, frame_patches};
          },
          "id"_a, "tokens"_a, "patches"_a = 0, "frame_patches"_a = 0)
      .def_rw("id", &Sequence::id, "unique in its batch")
      .def_rw("tokens", &Sequence::tokens, "language-model tokens: text and merged visual tokens")
      .def_rw("patches", &Sequence::patches, "vision patches before merging; 0 for text")
      .def_rw(
          "frame_patches", &Sequence::frame_patches,
          "of its largest picture, pair of frames or tile, which is not split between ranks; 0: can be split at will");

  ValueClass<Batch>(module, "Batch", "A global batch: everything one optimizer step trains on.")
      .def(
          "__init__", [](Batch* self, std::vector<Sequence> sequences) { new (self) Batch{std::move(sequences)}; },
          "sequences"_a = std::vector<Sequence>{})
      .def_rw("sequences", &Batch::sequences)
      .packed(&columns_of, &set_columns)
      .def("__len__", [](const Batch& batch) { return batch.sequences.size(); });

  module.def(
      "read_batch", &read_batch, "file"_a,
      "Reads dhp.batch/1 JSON, or an index from `dhp index`: all of its samples as one batch. Raises InputError.");
  module.def("parse_batch_json", &parse_batch_json, "text"_a, "source"_a,
             "Parses dhp.batch/1 JSON; `source` names the text in errors. Raises InputError.");
  module.def("to_json", nb::overload_cast<const Batch&>(&to_json), "batch"_a, "As dhp.batch/1 JSON.");
}

}  // namespace dhp::bindings
