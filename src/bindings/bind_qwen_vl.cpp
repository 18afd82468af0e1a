#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/qwen_vl.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

using namespace qwen_vl;
void bind_qwen_rules(nb::module_& module) {
  nb::enum_<Processor>(module, "Processor", "Whose code resizes pictures and samples clips.")
      .value("qwen2_vl", Processor::qwen2_vl, "transformers, Qwen2-VL and Qwen2.5-VL: limits on each frame")
      .value("qwen3_vl", Processor::qwen3_vl, "transformers, Qwen3-VL: limits on frames x height x width")
      .value("qwen_vl_utils", Processor::qwen_vl_utils, "the package qwen-vl-utils")
      .value("glm4v", Processor::glm4v, "transformers, GLM-4V: limits on frames x height x width");

  ValueClass<Rules>(module, "Rules", "The token and patch rule of a checkpoint's processor files.")
      .def(
          "__init__",
          [](Rules* self, int patch_size, int temporal_patch_size, int merge_size, std::int64_t image_min_pixels,
             std::int64_t image_max_pixels, std::int64_t video_min_pixels, std::int64_t video_max_pixels, double fps,
             int min_frames, int max_frames, Processor processor, std::int64_t video_total_pixels, int max_duration_s) {
            new (self) Rules{patch_size,       temporal_patch_size, merge_size,    image_min_pixels, image_max_pixels,
                             video_min_pixels, video_max_pixels,    fps,           min_frames,       max_frames,
                             processor,        video_total_pixels,  max_duration_s};
          },
          "patch_size"_a = Rules{}.patch_size, "temporal_patch_size"_a = Rules{}.temporal_patch_size,
          "merge_size"_a = Rules{}.merge_size, "image_min_pixels"_a = Rules{}.image_min_pixels,
          "image_max_pixels"_a = Rules{}.image_max_pixels, "video_min_pixels"_a = Rules{}.video_min_pixels,
          "video_max_pixels"_a = Rules{}.video_max_pixels, "fps"_a = Rules{}.fps, "min_frames"_a = Rules{}.min_frames,
          "max_frames"_a = Rules{}.max_frames, "processor"_a = Processor::qwen3_vl, "video_total_pixels"_a = 0,
          "max_duration_s"_a = Rules{}.max_duration_s)
      .def_rw("patch_size", &Rules::patch_size)
      .def_rw("temporal_patch_size", &Rules::temporal_patch_size)
      .def_rw("merge_size", &Rules::merge_size)
      .def_rw("image_min_pixels", &Rules::image_min_pixels, "height x width")
      .def_rw("image_max_pixels", &Rules::image_max_pixels, "height x width")
      .def_rw("video_min_pixels", &Rules::video_min_pixels, "qwen3_vl: frames x height x width; else of a frame")
      .def_rw("video_max_pixels", &Rules::video_max_pixels, "likewise")
      .def_rw("fps", &Rules::fps, "sampled frames per second")
      .def_rw("min_frames", &Rules::min_frames)
      .def_rw("max_frames", &Rules::max_frames)
      .def_rw("processor", &Rules::processor)
      .def_rw("video_total_pixels", &Rules::video_total_pixels, "qwen_vl_utils: frame pairs x height x width of a clip")
      .def_rw("max_duration_s", &Rules::max_duration_s, "glm4v: longer clips are sampled at a lower rate");
  module.def("parse_rules", &parse_rules, "image_json"_a, "image_source"_a, "video_json"_a.none() = nb::none(),
             "video_source"_a = "", "processor"_a = Processor::qwen3_vl,
             "Parses the texts of the two processor files. Raises InputError.");
}

void bind_qwen_media(nb::module_& module) {
  ValueClass<Grid>(module, "Grid", "Vision patches of one picture or clip.")
      .def(
          "__init__",
          [](Grid* self, std::int64_t frames, std::int64_t height, std::int64_t width) {
            new (self) Grid{frames, height, width};
          },
          "frames"_a = 1, "height"_a = 0, "width"_a = 0)
      .def_rw("frames", &Grid::frames, "temporal patches (frame pairs); 1 for a picture")
      .def_rw("height", &Grid::height, "in patches")
      .def_rw("width", &Grid::width, "in patches")
      .def_prop_ro("patches", &Grid::patches);

  ValueClass<Sampling>(module, "Sampling", "How a clip is sampled; None leaves the rule as it is.")
      .def(
          "__init__",
          [](Sampling* self, std::optional<double> fps, std::optional<int> frames,
             std::optional<std::int64_t> max_pixels) {
            new (self) Sampling{fps, frames, max_pixels};
          },
          "fps"_a = nb::none(), "frames"_a = nb::none(), "max_pixels"_a = nb::none())
      .def_rw("fps", &Sampling::fps, "replaces Rules.fps", nb::arg().none())
      .def_rw("frames", &Sampling::frames, "number of frames; excludes fps", nb::arg().none())
      .def_rw("max_pixels", &Sampling::max_pixels, "of one frame; only lowers the rule's limit", nb::arg().none());

  ValueClass<Clip>(module, "Clip", "What is read of a clip.")
      .def_ro("grid", &Clip::grid)
      .def_ro("frame_indices", &Clip::frame_indices, "frames to decode, counted from the clip's first; may repeat")
      .def_ro("timestamps_s", &Clip::timestamps_s, "one per temporal patch, from the clip's start");

  module.def("visual_tokens", &visual_tokens, "rules"_a, "grid"_a,
             "Language-model tokens of a grid, without markers and timestamps.");
  module.def("image_grid", &image_grid, "rules"_a, "height"_a, "width"_a, "max_pixels"_a.none() = nb::none(),
             "The grid of a picture of height x width pixels. `max_pixels` replaces the rule's limit. Raises "
             "InputError for an aspect ratio beyond 200 or a size below 1.");
  module.def("sample_clip", &sample_clip, "rules"_a, "height"_a, "width"_a, "total_frames"_a, "source_fps"_a,
             "sampling"_a = Sampling{},
             "Which frames of a clip are read, and its grid. Raises InputError for fewer frames than "
             "temporal_patch_size.");
}

}  // namespace

void bind_qwen_vl(nb::module_& module) {
  nb::module_ submodule =
      module.def_submodule("qwen_vl", "The token and patch rules of Qwen2-VL, Qwen2.5-VL and Qwen3-VL.");
  bind_qwen_rules(submodule);
  bind_qwen_media(submodule);
}

}  // namespace dhp::bindings
