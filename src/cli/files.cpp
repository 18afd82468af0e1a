#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "cli/cli.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

namespace fs = std::filesystem;

/// Why the last call failed, and what to do about it.
std::string reason(const fs::path& path, int error) {
  std::error_code ignored;
  const fs::path folder = path.parent_path();
  if (error == ENOENT && !folder.empty() && !fs::exists(folder, ignored)) {
    return "there is no folder " + folder.string() + "; make it, or give another path";
  }
  return std::strerror(error);
}

bool write(const fs::path& path, const std::string& text) {
  errno = 0;
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  return !stream.fail();
}

/// Devices, pipes and whatever stands for an open file are written to; only files are replaced.
bool is_replaceable(const fs::path& path) {
  std::error_code ignored;
  if (path.string().starts_with("/dev/") || path.string().starts_with("/proc/")) return false;
  const fs::file_status status = fs::status(path, ignored);
  return !fs::exists(status) || fs::is_regular_file(status);
}

}  // namespace

void write_atomically(const std::string& file, const std::string& text) {
  const auto fail = [&](const std::string& why) { throw InputError(file, "", "cannot be written: " + why); };
  std::error_code error;
  if (fs::is_directory(file, error)) fail("it is a folder; add the name of a file");
  if (!is_replaceable(file)) {
    if (!write(file, text)) fail(reason(file, errno));
    return;
  }
  // What a link points to is replaced, the link stays.
  const fs::path target = fs::is_symlink(file, error) ? fs::weakly_canonical(file, error) : fs::path(file);
  const fs::path temporary = target.string() + ".tmp" + std::to_string(::getpid());
  const auto give_up = [&](const std::string& why) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    fail(why);
  };
  if (!write(temporary, text)) give_up(reason(target, errno));
  fs::rename(temporary, target, error);
  if (error) give_up(error.message());
}

}  // namespace dhp::cli
