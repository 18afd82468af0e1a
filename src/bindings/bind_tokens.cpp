#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/tokens.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

void bind_rules(nb::module_& module) {
  nb::class_<TokenRules>(module, "TokenRules", "What pictures and clips become in a model's sequences.");
  module.def(
      "token_rules",
      [](std::string_view family, std::string_view sampling) {
        return token_rules(parse_family(family, "family"), parse_media_sampling(sampling, "sampling"));
      },
      "family"_a, "sampling"_a = "hf",
      "The rules of a family's released checkpoints: \"qwen3-vl\", or the name of a model of the family. `sampling` "
      "says\n"
      "whose code resizes pictures and samples clips: \"hf\", \"qwen-vl-utils\" or \"internvl-chat\". Raises "
      "InputError.");
  module.def(
      "read_token_rules",
      [](const std::string& folder, std::string_view sampling) {
        return read_token_rules(folder, parse_media_sampling(sampling, "sampling"));
      },
      "checkpoint_folder"_a, "sampling"_a = "hf", "The rules of a checkpoint folder. Raises InputError.");
}

void bind_media(nb::module_& module) {
  ValueClass<Video>(module, "Video", "A clip as its file has it: pixels, frames, frames a second.")
      .def(
          "__init__",
          [](Video* self, std::int64_t height, std::int64_t width, std::int64_t total_frames, double fps) {
            new (self) Video{height, width, total_frames, fps};
          },
          "height"_a, "width"_a, "total_frames"_a, "fps"_a)
      .def_rw("height", &Video::height)
      .def_rw("width", &Video::width)
      .def_rw("total_frames", &Video::total_frames)
      .def_rw("fps", &Video::fps);
  ValueClass<MediumOptions>(module, "MediumOptions", "What replaces a rule for one medium; None leaves it.")
      .def(
          "__init__",
          [](MediumOptions* self, std::optional<double> fps, std::optional<int> frames,
             std::optional<std::int64_t> max_pixels, std::optional<int> max_tiles) {
            new (self) MediumOptions{fps, frames, max_pixels, max_tiles};
          },
          "fps"_a = nb::none(), "frames"_a = nb::none(), "max_pixels"_a = nb::none(), "max_tiles"_a = nb::none())
      .def_rw("fps", &MediumOptions::fps, "sampled frames a second; excludes frames", nb::arg().none())
      .def_rw("frames", &MediumOptions::frames, "sampled frames", nb::arg().none())
      .def_rw("max_pixels", &MediumOptions::max_pixels, "of a picture or a frame; Qwen only", nb::arg().none())
      .def_rw("max_tiles", &MediumOptions::max_tiles, "of a picture; InternVL only", nb::arg().none());
  ValueClass<MediumTokens>(module, "MediumTokens", "What a picture or a clip becomes in a sequence.")
      .def_ro("tokens", &MediumTokens::tokens, "visual tokens: after merging")
      .def_ro("patches", &MediumTokens::patches, "of the vision tower: before merging")
      .def_ro("marker_tokens", &MediumTokens::marker_tokens)
      .def_ro("timestamp_tokens", &MediumTokens::timestamp_tokens, "text that says when")
      .def_ro("frames", &MediumTokens::frames, "sampled frames; 1 for a picture")
      .def_ro("grid", &MediumTokens::grid, "in patches")
      .def_prop_ro(
          "tiles", [](const MediumTokens& tokens) { return tokens.tiles.count(); }, "of InternVL's pictures")
      .hidden(
          "tiles",
          [](const MediumTokens& tokens) {
            return nb::make_tuple(tokens.tiles.columns, tokens.tiles.rows, tokens.tiles.thumbnail);
          },
          [](MediumTokens& tokens, nb::handle state) {
            const auto [columns, rows, thumbnail] = nb::cast<std::tuple<int, int, bool>>(state);
            tokens.tiles = {columns, rows, thumbnail};
          })
      .def("all", &MediumTokens::all, "What the medium adds to its sequence.");
  module.def("image_tokens", &image_tokens, "rules"_a, "height"_a, "width"_a, "options"_a = MediumOptions{},
             "The tokens of a picture of height x width pixels. Raises InputError for sizes and options that the rules "
             "refuse.");
  module.def("video_tokens", &video_tokens, "rules"_a, "video"_a, "options"_a = MediumOptions{},
             "The tokens of a clip. Raises InputError for sizes, counts and options that the rules refuse.");
}

}  // namespace

void bind_tokens(nb::module_& module) {
  bind_rules(module);
  bind_media(module);
}

}  // namespace dhp::bindings
