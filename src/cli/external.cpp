#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "cli/cli.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kPrefix = "dhp-";

fs::path own_folder() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path{} : self.parent_path();
}

bool is_program(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0;
}

bool is_plain_name(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(),
                                      [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '_'; });
}

}  // namespace

fs::path find_external(const std::string& name) {
  if (!is_plain_name(name)) return {};
  const std::string program = std::string(kPrefix) + name;
  std::vector<fs::path> folders = {own_folder()};
  if (const char* path = std::getenv("PATH")) {
    std::istringstream list(path);
    for (std::string folder; std::getline(list, folder, ':');) folders.emplace_back(folder);
  }
  for (const fs::path& folder : folders) {
    if (!folder.empty() && is_program(folder / program)) return folder / program;
  }
  return {};
}

std::vector<std::string> externals_beside() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(own_folder(), error)) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with(kPrefix)) continue;
    const std::string name = file.substr(kPrefix.size());
    if (is_plain_name(name) && is_program(entry.path())) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

void run_external(const fs::path& program, const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {program.string()};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  pointers.reserve(words.size() + 1);
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execv(program.c_str(), pointers.data());
  throw InputError(program.string(), "", std::string("cannot be run: ") + std::strerror(errno));
}

}  // namespace dhp::cli
