#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dhp {

/// A file of data/models, data/devices, data/clusters or data/datasets, embedded in the program under its name without
/// ".json" or ".csv".
struct Preset {
  std::string_view name = {};
  std::string_view text = {};
};

/// Models as Hugging Face `config.json`, devices as `dhp.device/1`, clusters as `dhp.cluster/1`; sorted by name.
const std::vector<Preset>& model_presets();
const std::vector<Preset>& device_presets();
const std::vector<Preset>& cluster_presets();
/// The files from which `dhp dataset` draws real lengths (data/datasets/README.md), CSV.
const std::vector<Preset>& dataset_presets();

/// A text and the name that messages use for it.
struct NamedText {
  std::string source = {};
  std::string text = {};
  bool operator==(const NamedText&) const = default;
};

/// The file of that name, or else the preset. Throws InputError that lists the presets if it is neither.
NamedText read_file_or_preset(const std::string& name, const std::vector<Preset>& presets);

/// The model's short name: "qwen3-vl-8b" for "Qwen/Qwen3-VL-8B-Instruct", its name on the hub. Fine-tuning changes no
/// shape, so its suffix is dropped. A path is returned as it is, in lower case.
std::string model_name(const std::string& model);

/// The config of a model: a preset's name ("qwen3-vl-8b", or "Qwen/Qwen3-VL-8B-Instruct", as on the hub), a
/// `config.json`, or the checkpoint folder that contains one. Throws InputError.
NamedText read_model_config(const std::string& model);

}  // namespace dhp
