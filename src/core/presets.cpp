#include "dhp/presets.h"

#include <algorithm>
#include <filesystem>

#include "core/json_reader.h"
#include "core/listing.h"
#include "dhp/error.h"

namespace dhp {

NamedText read_file_or_preset(const std::string& name, const std::vector<Preset>& presets) {
  std::error_code ignored;
  const bool exists = std::filesystem::exists(name, ignored);
  const auto preset = std::find_if(presets.begin(), presets.end(), [&](const Preset& one) { return one.name == name; });
  if (!exists && preset != presets.end()) return {.source = name, .text = std::string(preset->text)};
  // What looks like a path is one: the system's own reason says more than a list of names.
  if (exists || name.find('/') != std::string::npos || name.ends_with(".json")) {
    return {.source = name, .text = read_text_file(name)};
  }
  throw InputError(name, "", "is neither a file nor a preset; presets: " + listed(presets, [](const Preset& one) {
                               return one.name;
                             }));
}

NamedText read_model_config(const std::string& model) {
  std::error_code ignored;
  if (std::filesystem::is_directory(model, ignored)) {
    const std::string file = (std::filesystem::path(model) / "config.json").string();
    return {.source = file, .text = read_text_file(file)};
  }
  return read_file_or_preset(model, model_presets());
}

}  // namespace dhp
