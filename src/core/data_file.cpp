#include "core/data_file.h"

#include <filesystem>

#include "core/json_reader.h"
#include "dhp/error.h"

namespace dhp {

std::string read_data_file(const std::string& file, std::size_t most_bytes) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(file, ignored);
  if (std::filesystem::is_character_file(status) || std::filesystem::is_block_file(status)) {
    throw InputError(file, "", "is a device, expected a file or a pipe");
  }
  return read_text_file(file, most_bytes);
}

}  // namespace dhp
