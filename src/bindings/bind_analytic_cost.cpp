#include <nanobind/operators.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "dhp/analytic_cost.h"
#include "dhp/presets.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

const auto kEqual = nb::sig("def __eq__(self, arg: object, /) -> bool");

void bind_presets(nb::module_& module) {
  nb::class_<Preset>(module, "Preset", "A file of data/models, data/devices or data/clusters, embedded in the program.")
      .def_ro("name", &Preset::name)
      .def_ro("text", &Preset::text)
      .def("__repr__", [](const Preset& preset) { return "<Preset " + std::string(preset.name) + ">"; });
  nb::class_<NamedText>(module, "NamedText", "A text and what messages call it.")
      .def_ro("source", &NamedText::source)
      .def_ro("text", &NamedText::text)
      .def("__repr__", [](const NamedText& text) { return "<NamedText " + text.source + ">"; });
  module.def("model_presets", &model_presets, "Models as Hugging Face config.json.");
  module.def("device_presets", &device_presets, "Devices as dhp.device/1 JSON.");
  module.def("cluster_presets", &cluster_presets, "Clusters as dhp.cluster/1 JSON.");
  module.def("dataset_presets", &dataset_presets, "Tables of data sets as CSV.");
  module.def("read_file_or_preset", &read_file_or_preset, "name"_a, "presets"_a,
             "The file of that name, else the preset. Raises InputError that lists the presets if it is neither.");
  module.def("model_name", &model_name, "model"_a,
             "What a model is called here: qwen3-vl-8b for Qwen/Qwen3-VL-8B-Instruct, its name on the hub.");
  module.def("read_model_config", &read_model_config, "model"_a,
             "A preset's name, a config.json, or the checkpoint folder that holds one. Raises InputError.");
}

void bind_devices(nb::module_& module) {
  nb::class_<AttentionRate>(module, "AttentionRate",
                            "Speed of attention at any length: s tokens take as long as pairs + token_pairs * s pairs\n"
                            "at the full rate, and sequence_s on top.")
      .def_ro("head_dim", &AttentionRate::head_dim)
      .def_ro("flop_per_s", &AttentionRate::flop_per_s, "of very long sequences")
      .def_ro("token_pairs", &AttentionRate::token_pairs)
      .def_ro("sequence_s", &AttentionRate::sequence_s, "fixed time of a sequence and layer, all heads")
      .def_ro("backward_rate", &AttentionRate::backward_rate, "backward over forward rate")
      .def("__repr__", [](const AttentionRate& rate) {
        return "<AttentionRate " + std::to_string(rate.flop_per_s / 1e12) + " TFLOP/s at length>";
      });
  nb::class_<Device>(module, "Device", "What a device achieves.")
      .def_ro("name", &Device::name)
      .def_ro("memory_bytes", &Device::memory_bytes)
      .def_ro("memory_bytes_per_s", &Device::memory_bytes_per_s)
      .def_ro("bytes_per_value", &Device::bytes_per_value, "of activations in training (bf16 2, fp32 4)")
      .def_ro("linear_flop_per_s", &Device::linear_flop_per_s, "dense layers in training")
      .def_ro("launch_s", &Device::launch_s, "fixed cost of one attention step of one layer")
      .def_ro("sequence_launch_s", &Device::sequence_launch_s, "the same per packed sequence")
      .def_ro("task_s", &Device::task_s, "fixed cost of a task (host work)")
      .def_ro("attention", &Device::attention, "a rate a head size")
      .def("attention_of", &Device::attention_of, "head_dim"_a, "The rate of the nearest head size.")
      .def("__repr__", [](const Device& device) { return "<Device " + device.name + ">"; });
  module.def("devices", &devices, "The device presets.");
  module.def("read_device", &read_device, "name"_a, "A dhp.device/1 file or a preset's name. Raises InputError.");
  module.def("parse_device", &parse_device, "text"_a, "source"_a, "Parses dhp.device/1 JSON. Raises InputError.");
}

void bind_report(nb::module_& module) {
  nb::class_<ParameterCounts>(module, "ParameterCounts", "Parameters of a model by part.")
      .def_ro("language_body", &ParameterCounts::language_body, "layers and last norm")
      .def_ro("embeddings", &ParameterCounts::embeddings, "input embedding, and output head where the two are not tied")
      .def_ro("vision", &ParameterCounts::vision, "tower and all mergers")
      .def("total", &ParameterCounts::total)
      .def("__repr__",
           [](const ParameterCounts& counts) { return "<ParameterCounts " + std::to_string(counts.total()) + ">"; });
  nb::class_<PassWork>(module, "PassWork", "Work of one pass over one unit.")
      .def_ro("flop", &PassWork::flop)
      .def_ro("bytes", &PassWork::bytes, "activations read and written")
      .def_ro("seconds", &PassWork::seconds);
  nb::class_<ModuleCost>(module, "ModuleCost", "One row of the module table: all layers together.")
      .def_ro("name", &ModuleCost::name, "vision, projector, embedding, layers, attention, head")
      .def_ro("unit", &ModuleCost::unit, "patch, patch pair, token, pair, sequence or step")
      .def_ro("parameters", &ModuleCost::parameters)
      .def_ro("forward", &ModuleCost::forward)
      .def_ro("backward", &ModuleCost::backward)
      .def_ro("recompute", &ModuleCost::recompute)
      .def("__repr__", [](const ModuleCost& row) { return "<ModuleCost " + row.name + " per " + row.unit + ">"; });
  nb::class_<MemoryCost>(module, "MemoryCost", "Bytes of a rank; token_ and patch_ a token and a patch.")
      .def_ro("parameters", &MemoryCost::parameters)
      .def_ro("gradients", &MemoryCost::gradients)
      .def_ro("optimizer", &MemoryCost::optimizer)
      .def_ro("reserve", &MemoryCost::reserve)
      .def_ro("token_kept", &MemoryCost::token_kept)
      .def_ro("token_live_layer", &MemoryCost::token_live_layer)
      .def_ro("token_logits", &MemoryCost::token_logits)
      .def_ro("patch_kept", &MemoryCost::patch_kept);
  nb::class_<CostReport>(module, "CostReport", "What dhp cost prints.")
      .def_ro("family", &CostReport::family)
      .def_ro("parameters", &CostReport::parameters)
      .def_ro("modules", &CostReport::modules)
      .def_ro("attention", &CostReport::attention)
      .def_ro("memory", &CostReport::memory)
      .def_ro("cost", &CostReport::cost)
      .def("__repr__", [](const CostReport& report) { return "<CostReport " + report.cost.name + ">"; });
}

void bind_options_of_cost(nb::module_& module) {
  nb::class_<Freeze>(module, "Freeze", "Parts of a model that do not train.")
      .def(
          "__init__",
          [](Freeze* self, bool vit, bool aligner, bool llm) {
            new (self) Freeze{vit, aligner, llm};
          },
          "vit"_a = false, "aligner"_a = false, "llm"_a = false)
      .def_rw("vit", &Freeze::vit)
      .def_rw("aligner", &Freeze::aligner, "every matrix between tower and language model")
      .def_rw("llm", &Freeze::llm)
      .def(nb::self == nb::self, kEqual)
      .def("__repr__", [](const Freeze& freeze) {
        const auto word = [](bool value) { return value ? "True" : "False"; };
        return std::string("Freeze(vit=") + word(freeze.vit) + ", aligner=" + word(freeze.aligner) +
               ", llm=" + word(freeze.llm) + ")";
      });
  nb::enum_<Recompute>(module, "Recompute", "What of the forward pass is computed again in the backward pass.")
      .value("full", Recompute::full)
      .value("none", Recompute::none);
  module.def("parse_freeze", &parse_freeze, "names"_a, "source"_a, "\"vit,aligner\". Raises InputError.");
  module.def("parse_recompute", &parse_recompute, "name"_a, "source"_a, "\"full\" or \"none\". Raises InputError.");
}

/// Binds `function` with CostOptions as keywords.
template <typename Result>
void bind_counting(nb::module_& module, const char* name,
                   Result (*function)(std::string_view, const std::string&, const CostOptions&), const char* help) {
  const CostOptions defaults;
  module.def(
      name,
      [function](std::string_view config_json, const std::string& source, std::string device, int ranks,
                 Recompute recompute, const Freeze& freeze, int zero) {
        return function(config_json, source, {std::move(device), ranks, recompute, freeze, zero});
      },
      "config_json"_a, "source"_a, nb::kw_only(), "device"_a = defaults.device, "ranks"_a = defaults.ranks,
      "recompute"_a = defaults.recompute, "freeze"_a = defaults.freeze, "zero"_a = defaults.zero, help);
}

CostReport report(std::string_view config_json, const std::string& source, const CostOptions& options) {
  return analytic_report(config_json, source, options);
}

}  // namespace

void bind_analytic_cost(nb::module_& module) {
  bind_presets(module);
  bind_devices(module);
  bind_report(module);
  bind_options_of_cost(module);
  module.def("count_parameters", &count_parameters, "config_json"_a, "source"_a,
             "Parameters of the model of a Hugging Face config.json (its text). Raises InputError.");
  bind_counting(module, "analytic_cost", &analytic_cost,
                "Counts FLOP and bytes of a Hugging Face config.json (its text) into a cost model; `source` names it\n"
                "in errors. `ranks` share what `zero` shards. Raises InputError for an unknown family or device.");
  bind_counting(module, "analytic_report", &report, "The same with its module table and memory.");
}

}  // namespace dhp::bindings
