#include <nanobind/operators.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "bindings/bindings.h"
#include "dhp/internvl.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

using namespace internvl;
const auto kEqual = nb::sig("def __eq__(self, arg: object, /) -> bool");

void bind_rules(nb::module_& module) {
  nb::enum_<Processor>(module, "Processor", "Whose code counts the frames of a clip.")
      .value("internvl_chat", Processor::internvl_chat, "OpenGVLab/InternVL")
      .value("internvl", Processor::internvl, "transformers");
  nb::class_<Rules>(module, "Rules", "Tiles and frames of InternVL2.5 and InternVL3.")
      .def(
          "__init__",
          [](Rules* self, int tile_size, int patch_size, int merge_size, int min_tiles, int max_tiles, bool thumbnail,
             int min_frames, int max_frames, Processor processor) {
            new (self) Rules{tile_size, patch_size, merge_size, min_tiles, max_tiles,
                             thumbnail, min_frames, max_frames, processor};
          },
          "tile_size"_a = Rules{}.tile_size, "patch_size"_a = Rules{}.patch_size, "merge_size"_a = Rules{}.merge_size,
          "min_tiles"_a = Rules{}.min_tiles, "max_tiles"_a = Rules{}.max_tiles, "thumbnail"_a = Rules{}.thumbnail,
          "min_frames"_a = Rules{}.min_frames, "max_frames"_a = Rules{}.max_frames,
          "processor"_a = Processor::internvl_chat)
      .def_rw("tile_size", &Rules::tile_size)
      .def_rw("patch_size", &Rules::patch_size)
      .def_rw("merge_size", &Rules::merge_size)
      .def_rw("min_tiles", &Rules::min_tiles, "without thumbnail")
      .def_rw("max_tiles", &Rules::max_tiles, "without thumbnail; 1: pictures are not cut")
      .def_rw("thumbnail", &Rules::thumbnail)
      .def_rw("min_frames", &Rules::min_frames)
      .def_rw("max_frames", &Rules::max_frames)
      .def_rw("processor", &Rules::processor)
      .def(nb::self == nb::self, kEqual)
      .def("__repr__", [](const Rules& rules) {
        return "<Rules of tiles of " + std::to_string(rules.tile_size) + ", " + std::to_string(rules.max_tiles) +
               " at most>";
      });
}

void bind_media(nb::module_& module) {
  nb::class_<Tiles>(module, "Tiles", "How a picture is cut.")
      .def(
          "__init__",
          [](Tiles* self, int columns, int rows, bool thumbnail) {
            new (self) Tiles{columns, rows, thumbnail};
          },
          "columns"_a = 1, "rows"_a = 1, "thumbnail"_a = false)
      .def_rw("columns", &Tiles::columns)
      .def_rw("rows", &Tiles::rows)
      .def_rw("thumbnail", &Tiles::thumbnail)
      .def("count", &Tiles::count)
      .def(nb::self == nb::self, kEqual)
      .def("__repr__", [](const Tiles& tiles) {
        return "<Tiles " + std::to_string(tiles.columns) + "x" + std::to_string(tiles.rows) +
               (tiles.thumbnail ? " and a thumbnail>" : ">");
      });
  nb::class_<Sampling>(module, "Sampling", "How a clip is sampled; with neither, the rule's max_frames.")
      .def(
          "__init__",
          [](Sampling* self, std::optional<double> fps, std::optional<int> frames) {
            new (self) Sampling{fps, frames};
          },
          "fps"_a = nb::none(), "frames"_a = nb::none())
      .def_rw("fps", &Sampling::fps, nb::arg().none())
      .def_rw("frames", &Sampling::frames, nb::arg().none());
  module.def("tokens_per_tile", &tokens_per_tile, "rules"_a, "(tile_size / patch_size / merge_size)^2");
  module.def("patches_per_tile", &patches_per_tile, "rules"_a, "(tile_size / patch_size)^2");
  module.def("image_tiles", &image_tiles, "rules"_a, "height"_a, "width"_a, "max_tiles"_a.none() = nb::none(),
             "How a picture is cut. Raises InputError.");
  module.def("clip_frames", &clip_frames, "rules"_a, "total_frames"_a, "source_fps"_a, "sampling"_a = Sampling{},
             "Frames of a clip; each is one tile. Raises InputError.");
  module.def("frame_label_tokens", &frame_label_tokens, "rules"_a, "number"_a,
             "Tokens of the text that names frame `number`, from 1.");
}

}  // namespace

void bind_internvl(nb::module_& module) {
  nb::module_ submodule = module.def_submodule("internvl", "Tiles and frames of InternVL2.5 and InternVL3.");
  bind_rules(submodule);
  bind_media(submodule);
}

}  // namespace dhp::bindings
