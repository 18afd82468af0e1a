#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/analytic_cost.h"
#include "dhp/presets.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

using Rate = std::tuple<int, double, double, double, double>;  // the fields of an AttentionRate

void bind_presets(nb::module_& module) {
  nb::class_<Preset>(module, "Preset", "A file of data/models, data/devices or data/clusters, embedded in the program.")
      .def_ro("name", &Preset::name)
      .def_ro("text", &Preset::text)
      .def("__repr__", [](const Preset& preset) { return "Preset(" + std::string(preset.name) + ")"; });
  ValueClass<NamedText>(module, "NamedText", "A text and what messages call it.")
      .def_ro("source", &NamedText::source)
      .def_ro("text", &NamedText::text);
  module.def("model_presets", &model_presets, "Models as Hugging Face config.json.");
  module.def("device_presets", &device_presets, "Devices as dhp.device/1 JSON.");
  module.def("cluster_presets", &cluster_presets, "Clusters as dhp.cluster/1 JSON.");
  module.def("read_model_config", &read_model_config, "model"_a,
             "Reads a preset, a config.json, or the checkpoint folder that contains one. Raises InputError.");
}

void bind_devices(nb::module_& module) {
  ValueClass<Device>(module, "Device", "What a device achieves: bytes and FLOP a second of one rank, seconds.")
      .def_ro("name", &Device::name)
      .def_ro("memory_bytes", &Device::memory_bytes)
      .def_ro("memory_bytes_per_s", &Device::memory_bytes_per_s)
      .def_ro("bytes_per_value", &Device::bytes_per_value, "of activations in training (bf16 2, fp32 4)")
      .def_ro("linear_flop_per_s", &Device::linear_flop_per_s, "dense layers in training")
      .def_ro("launch_s", &Device::launch_s, "fixed cost of one attention step of one layer")
      .def_ro("sequence_launch_s", &Device::sequence_launch_s, "the same per packed sequence")
      .def_ro("task_s", &Device::task_s, "fixed cost of a task (host work)")
      .hidden(
          "attention",
          [](const Device& device) {
            std::vector<Rate> rates;
            for (const AttentionRate& rate : device.attention) {
              rates.emplace_back(rate.head_dim, rate.flop_per_s, rate.token_pairs, rate.sequence_s, rate.backward_rate);
            }
            return nb::cast(rates);
          },
          [](Device& device, nb::handle state) {
            for (const auto& [head_dim, flop_per_s, token_pairs, sequence_s, backward_rate] :
                 nb::cast<std::vector<Rate>>(state)) {
              device.attention.push_back({head_dim, flop_per_s, token_pairs, sequence_s, backward_rate});
            }
          });
  module.def("read_device", &read_device, "name"_a,
             "Reads a dhp.device/1 file, or takes the preset of that name. Raises InputError.");
}

void bind_options_of_cost(nb::module_& module) {
  ValueClass<Freeze>(module, "Freeze", "Parts of a model that do not train.")
      .def(
          "__init__",
          [](Freeze* self, bool vit, bool aligner, bool llm) {
            new (self) Freeze{vit, aligner, llm};
          },
          "vit"_a = false, "aligner"_a = false, "llm"_a = false)
      .def_rw("vit", &Freeze::vit)
      .def_rw("aligner", &Freeze::aligner, "every matrix between tower and language model")
      .def_rw("llm", &Freeze::llm);
  nb::enum_<Recompute>(module, "Recompute", "What of the forward pass is computed again in the backward pass.")
      .value("full", Recompute::full)
      .value("keep_attention", Recompute::keep_attention, "all but attention")
      .value("none", Recompute::none);
  module.def("parse_freeze", &parse_freeze, "names"_a, "source"_a,
             "Parses parts by name, separated by commas: \"vit,aligner\". Raises InputError for another name.");
}

}  // namespace

void bind_analytic_cost(nb::module_& module) {
  bind_presets(module);
  bind_devices(module);
  bind_options_of_cost(module);
  const CostOptions defaults;
  module.def(
      "analytic_cost",
      [](std::string_view config_json, const std::string& source, std::string device, int ranks, Recompute recompute,
         const Freeze& freeze, int zero, int lora_rank, std::optional<std::tuple<double, double, double>> state) {
        CostOptions options{std::move(device), ranks, recompute, freeze, zero, lora_rank};
        if (state) options.state = std::make_from_tuple<StateBytes>(*state);
        return analytic_cost(config_json, source, options);
      },
      "config_json"_a, "source"_a, nb::kw_only(), "device"_a = defaults.device, "ranks"_a = defaults.ranks,
      "recompute"_a = defaults.recompute, "freeze"_a = defaults.freeze, "zero"_a = defaults.zero, "lora_rank"_a = 0,
      "state"_a = nb::none(),
      "Counts FLOP and bytes of a Hugging Face config.json (its text) into a cost model; `source` names it\n"
      "in errors. `ranks` share what `zero` shards. `state`: instead of what mixed precision holds, bytes a\n"
      "parameter: of every one, of one that trains, and of one that trains, shared by the ranks. `lora_rank`: of\n"
      "adapters on the language model, which alone train. Raises InputError "
      "for\n"
      "an unknown family or device.");
}

}  // namespace dhp::bindings
