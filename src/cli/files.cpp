#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "cli/cli.h"
#include "dhp/error.h"

namespace dhp::cli {

void write_atomically(const std::string& file, const std::string& text) {
  const std::string temporary = file + ".tmp" + std::to_string(::getpid());
  const auto fail = [&](const std::string& why) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw InputError(file, "", "cannot be written: " + why);
  };
  errno = 0;
  std::ofstream stream(temporary, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  if (!stream) fail(std::strerror(errno));
  std::error_code error;
  std::filesystem::rename(temporary, file, error);
  if (error) fail(error.message());
}

}  // namespace dhp::cli
