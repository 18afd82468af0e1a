#include <nanobind/operators.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "dhp/dataset.h"
#include "dhp/tokens.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

const auto kEqual = nb::sig("def __eq__(self, arg: object, /) -> bool");

void bind_families(nb::module_& module) {
  nb::enum_<Family>(module, "Family", "Families of models whose token rules are known.")
      .value("qwen2_vl", Family::qwen2_vl)
      .value("qwen2_5_vl", Family::qwen2_5_vl)
      .value("qwen3_vl", Family::qwen3_vl)
      .value("internvl", Family::internvl);
  nb::enum_<MediaSampling>(module, "MediaSampling", "Whose code resizes pictures and samples clips.")
      .value("hugging_face", MediaSampling::hugging_face, "transformers")
      .value("qwen_vl_utils", MediaSampling::qwen_vl_utils, "the package qwen-vl-utils")
      .value("internvl_chat", MediaSampling::internvl_chat, "OpenGVLab/InternVL");
  module.def("parse_family", &parse_family, "name"_a, "source"_a,
             "\"qwen3-vl\", or the name of a model of the family; `source` names the option in errors.");
  module.def("parse_media_sampling", &parse_media_sampling, "name"_a, "source"_a,
             "\"hf\", \"qwen-vl-utils\" or \"internvl-chat\".");
  module.def("own_sampling", &own_sampling, "family"_a, "The authors' own: qwen_vl_utils or internvl_chat.");
}

void bind_rules(nb::module_& module) {
  nb::class_<TokenRules>(module, "TokenRules", "What pictures and clips become in a model's sequences.")
      .def(
          "__init__",
          [](TokenRules* self, Family family, std::variant<qwen_vl::Rules, internvl::Rules> rules) {
            new (self) TokenRules{family, std::move(rules)};
          },
          "family"_a, "rules"_a)
      .def_rw("family", &TokenRules::family)
      .def_rw("rules", &TokenRules::rules)
      .def("sampling", &TokenRules::sampling)
      .def(nb::self == nb::self, kEqual)
      .def("__repr__", [](const TokenRules& rules) {
        return "<TokenRules of " + std::string(to_string(rules.family)) + ", " +
               std::string(to_string(rules.sampling())) + ">";
      });
  module.def("token_rules", &token_rules, "family"_a, "sampling"_a,
             "The rules of a family's released checkpoints. Raises InputError.");
  module.def("read_token_rules", &read_token_rules, "checkpoint_folder"_a, "sampling"_a = MediaSampling::hugging_face,
             "The rules of a checkpoint folder. Raises InputError.");
  module.def("parse_internvl_rules", &parse_internvl_rules, "image_json"_a, "source"_a,
             "preprocessor_config.json of a converted InternVL. Raises InputError.");
  module.def("parse_internvl_chat_config", &parse_internvl_chat_config, "json"_a, "source"_a,
             "config.json of an InternVL as OpenGVLab ships it. Raises InputError.");
}

void bind_media(nb::module_& module) {
  nb::class_<Video>(module, "Video", "A clip's file.")
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
  nb::class_<MediumOptions>(module, "MediumOptions", "What replaces a rule for one medium; None leaves it.")
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
  nb::class_<MediumTokens>(module, "MediumTokens", "What a picture or a clip becomes in a sequence.")
      .def_ro("tokens", &MediumTokens::tokens, "visual tokens: after merging")
      .def_ro("patches", &MediumTokens::patches, "of the vision tower: before merging")
      .def_ro("marker_tokens", &MediumTokens::marker_tokens)
      .def_ro("timestamp_tokens", &MediumTokens::timestamp_tokens, "text that says when")
      .def_ro("frames", &MediumTokens::frames, "sampled frames; 1 for a picture")
      .def_ro("grid", &MediumTokens::grid, "in patches")
      .def_ro("tiles", &MediumTokens::tiles, "of InternVL's pictures")
      .def("all", &MediumTokens::all, "What the medium adds to its sequence.")
      .def("__repr__", [](const MediumTokens& tokens) {
        return "<MediumTokens: " + std::to_string(tokens.tokens) + " tokens, " + std::to_string(tokens.patches) +
               " patches>";
      });
  module.def("image_tokens", &image_tokens, "rules"_a, "height"_a, "width"_a, "options"_a = MediumOptions{},
             "What a picture becomes. Raises InputError.");
  module.def("video_tokens", &video_tokens, "rules"_a, "video"_a, "options"_a = MediumOptions{},
             "What a clip becomes. Raises InputError.");
}

void bind_dataset(nb::module_& module) {
  nb::class_<MediaSample>(module, "MediaSample", "A sample as a data set has it, before any model's rule.")
      .def(
          "__init__",
          [](MediaSample* self, double duration_s, std::int64_t width, std::int64_t height, double fps,
             std::int64_t text_tokens, std::int64_t tokens, std::int64_t patches, std::int64_t frame_patches,
             std::string place) {
            new (self) MediaSample{duration_s, width,         height,          fps, text_tokens, tokens,
                                   patches,    frame_patches, std::move(place)};
          },
          "duration_s"_a = 0.0, "width"_a = 0, "height"_a = 0, "fps"_a = MediaSample{}.fps, "text_tokens"_a = 0,
          "tokens"_a = 0, "patches"_a = 0, "frame_patches"_a = 0, "place"_a = "")
      .def_rw("duration_s", &MediaSample::duration_s, "of a clip; 0: a picture")
      .def_rw("width", &MediaSample::width, "pixels; 0: text alone")
      .def_rw("height", &MediaSample::height)
      .def_rw("fps", &MediaSample::fps, "of the file")
      .def_rw("text_tokens", &MediaSample::text_tokens, "template, prompt and answer")
      .def_rw("tokens", &MediaSample::tokens, "where above 0: already counted, like patches")
      .def_rw("patches", &MediaSample::patches)
      .def_rw("frame_patches", &MediaSample::frame_patches)
      .def_rw("place", &MediaSample::place, "where it was read, for errors")
      .def(nb::self == nb::self, kEqual)
      .def("__repr__", [](const MediaSample& sample) {
        return "<MediaSample of " + std::to_string(sample.duration_s) + " s, " + std::to_string(sample.width) + "x" +
               std::to_string(sample.height) + ">";
      });
  nb::class_<DatasetInfo>(module, "DatasetInfo", "A data set that draw_samples knows.")
      .def_ro("name", &DatasetInfo::name)
      .def_ro("has_media", &DatasetInfo::has_media, "False: lengths in tokens, no model needed")
      .def_ro("help", &DatasetInfo::help)
      .def("__repr__", [](const DatasetInfo& info) { return "<DatasetInfo " + info.name + ">"; });
  module.attr("kPromptTokens") = kPromptTokens;
  module.attr("kMaxSamples") = kMaxSamples;
  module.def("datasets", &datasets, "All names that draw_samples takes.");
  module.def("draw_samples", &draw_samples, "name"_a, "count"_a, "seed"_a, "prompt_tokens"_a = kPromptTokens,
             "`count` samples of a named data set, the same on every machine. Raises InputError.");
  module.def("draw_from", &draw_from, "samples"_a, "count"_a, "seed"_a,
             "`count` of the samples, drawn without repetition, epoch by epoch. Raises InputError.");
  module.def("read_sample_csv", &read_sample_csv, "file"_a, "prompt_tokens"_a = kPromptTokens,
             "Reads CSV with columns duration_s,width,height[,fps][,text_tokens] or tokens,patches[,frame_patches]. "
             "Raises InputError.");
  module.def("parse_sample_csv", &parse_sample_csv, "text"_a, "source"_a, "prompt_tokens"_a = kPromptTokens,
             "Parses such CSV; `source` names the text in errors. Raises InputError.");
  module.def("parse_sample_index", &parse_sample_index, "text"_a, "source"_a,
             "The samples of what `dhp index` writes, in its order. Raises InputError.");
  module.def("read_sample_file", &read_sample_file, "file"_a, "prompt_tokens"_a = kPromptTokens,
             "Reads either: such CSV, or what `dhp index` has written. Raises InputError.");
  module.def("make_batch", &make_batch, "rules"_a, "samples"_a, "options"_a = MediumOptions{}, "seed"_a = 0,
             "source"_a = "samples", "The batch a model makes of samples; ids count from 0. Raises InputError.");
}

}  // namespace

void bind_tokens(nb::module_& module) {
  bind_families(module);
  bind_rules(module);
  bind_media(module);
  bind_dataset(module);
}

}  // namespace dhp::bindings
