#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/json_reader.h"

namespace dhp {

/// A processor's settings in a checkpoint folder, as transformers looks for them: `section` of processor_config.json,
/// else a file of its own.
class ProcessorSettings {
 public:
  /// Throws InputError for files that are not JSON objects.
  ProcessorSettings(const std::filesystem::path& folder, const char* section, const char* own_file) {
    const std::filesystem::path common_file = folder / "processor_config.json";
    if (std::filesystem::exists(common_file)) {
      document_.emplace(read_text_file(common_file.string()), common_file.string());
      if (const JsonObject root = document_->root(); root.has_value(section)) {
        settings_ = root.object(section);
        return;
      }
    }
    const std::filesystem::path file = folder / own_file;
    if (!std::filesystem::exists(file)) return;
    document_.emplace(read_text_file(file.string()), file.string());
    settings_ = document_->root();
  }

  /// Nothing where the folder has no such settings.
  const std::optional<JsonObject>& get() const { return settings_; }

 private:
  std::optional<JsonDocument> document_;
  std::optional<JsonObject> settings_;  // a view into the document
};

}  // namespace dhp
