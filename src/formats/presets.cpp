#include "dhp/presets.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "base/json_reader.h"
#include "base/listing.h"
#include "dhp/error.h"

namespace dhp {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  return text;
}

const Preset* find_preset(const std::string& name, const std::vector<Preset>& presets) {
  const auto found = std::find_if(presets.begin(), presets.end(), [&](const Preset& one) { return one.name == name; });
  return found == presets.end() ? nullptr : &*found;
}

}  // namespace

std::string model_name(const std::string& model) {
  const std::size_t slash = model.find('/');
  const bool on_hub = slash != std::string::npos && slash > 0 && model.rfind('/') == slash && model[0] != '.';
  std::string name = lower(on_hub ? model.substr(slash + 1) : model);
  for (const std::string_view variant : {"-instruct", "-thinking", "-hf"}) {
    if (name.ends_with(variant)) name.resize(name.size() - variant.size());
  }
  return name;
}

NamedText read_file_or_preset(const std::string& name, const std::vector<Preset>& presets) {
  std::error_code ignored;
  const bool exists = std::filesystem::exists(name, ignored);
  if (const Preset* preset = find_preset(lower(name), presets); preset != nullptr && !exists) {
    return {.source = std::string(preset->name), .text = std::string(preset->text)};
  }
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
  const Preset* preset = find_preset(model_name(model), model_presets());
  if (preset != nullptr && !std::filesystem::exists(model, ignored)) {
    return {.source = std::string(preset->name), .text = std::string(preset->text)};
  }
  return read_file_or_preset(model, model_presets());
}

}  // namespace dhp
