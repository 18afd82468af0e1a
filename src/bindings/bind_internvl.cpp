#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/internvl.h"
#include "dhp/tokens.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {

void bind_internvl(nb::module_& parent) {
  using namespace internvl;
  nb::module_ module =
      parent.def_submodule("internvl", "The tile rules of InternVL, as transformers cuts pictures and counts frames.");
  nb::enum_<Processor>(module, "Processor", "Whose code counts the frames of a clip.")
      .value("internvl_chat", Processor::internvl_chat, "the authors' own")
      .value("internvl", Processor::internvl, "transformers");
  ValueClass<Rules>(module, "Rules", "The tile rule of a checkpoint's processor file.")
      .def(
          "__init__",
          [](Rules* self, int tile_size, int patch_size, int merge_size, int min_tiles, int max_tiles, bool thumbnail,
             Processor processor) {
            new (self) Rules{.tile_size = tile_size,
                             .patch_size = patch_size,
                             .merge_size = merge_size,
                             .min_tiles = min_tiles,
                             .max_tiles = max_tiles,
                             .thumbnail = thumbnail,
                             .processor = processor};
          },
          "tile_size"_a = Rules{}.tile_size, "patch_size"_a = Rules{}.patch_size, "merge_size"_a = Rules{}.merge_size,
          "min_tiles"_a = Rules{}.min_tiles, "max_tiles"_a = Rules{}.max_tiles, "thumbnail"_a = Rules{}.thumbnail,
          "processor"_a = Processor::internvl)
      .def_rw("tile_size", &Rules::tile_size, "pixels of a tile's side")
      .def_rw("patch_size", &Rules::patch_size, "pixels of a patch's side")
      .def_rw("merge_size", &Rules::merge_size, "patches of a token's side")
      .def_rw("min_tiles", &Rules::min_tiles, "without thumbnail")
      .def_rw("max_tiles", &Rules::max_tiles, "without thumbnail; 1: pictures are not cut")
      .def_rw("thumbnail", &Rules::thumbnail, "one more tile, the whole picture, if there are several")
      .def_rw("min_frames", &Rules::min_frames)
      .def_rw("max_frames", &Rules::max_frames)
      .def_rw("processor", &Rules::processor)
      .def_prop_ro("tokens_per_tile", &tokens_per_tile)
      .def_prop_ro("patches_per_tile", &patches_per_tile);
  ValueClass<Tiles>(module, "Tiles", "How a picture is cut.")
      .def_ro("columns", &Tiles::columns)
      .def_ro("rows", &Tiles::rows)
      .def_ro("thumbnail", &Tiles::thumbnail)
      .def_prop_ro("count", &Tiles::count, "tiles, the thumbnail too");
  module.def(
      "parse_rules",
      [](std::string_view image_json, const std::string& source) {
        Rules rules = parse_internvl_rules(image_json, source);
        rules.processor = Processor::internvl;
        return rules;
      },
      "image_json"_a, "source"_a,
      "Parses the text of a converted checkpoint's processor file; patch_size and merge_size are config.json's "
      "to say. Raises InputError.");
  module.def("image_tiles", &image_tiles, "rules"_a, "height"_a, "width"_a, "max_tiles"_a.none() = nb::none(),
             "How a picture of height x width pixels is cut. Raises InputError for a size below 1.");
  module.def(
      "clip_frames",
      [](const Rules& rules, std::int64_t total_frames, double source_fps, std::optional<double> fps,
         std::optional<int> frames) {
        return clip_frames(rules, total_frames, source_fps, Sampling{fps, frames});
      },
      "rules"_a, "total_frames"_a, "source_fps"_a, "fps"_a.none() = nb::none(), "frames"_a.none() = nb::none(),
      "Frames taken of a clip, each a tile: `fps` of them a second, or so many. Raises InputError for more than there "
      "are.");
}

}  // namespace dhp::bindings
