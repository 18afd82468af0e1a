// Who may include whom: cli, bindings -> sim -> plan -> cost -> core; none of them sees torch.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = fs::path(DHP_DATA_DIR) / "..";

std::vector<fs::path> sources_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::exists(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".h" || extension == ".cpp") files.push_back(entry.path());
  }
  return files;
}

/// What stands between the quotes or angle brackets of `#include` lines.
std::vector<std::string> includes_of(const fs::path& file) {
  std::ifstream stream(file);
  std::vector<std::string> result;
  for (std::string line; std::getline(stream, line);) {
    line.erase(std::remove(line.begin(), line.end(), ' '), line.end());
    if (line.rfind("#include", 0) != 0) continue;
    const std::size_t begin = line.find_first_of("<\"");
    const std::size_t end = line.find_first_of(">\"", begin + 1);
    if (begin != std::string::npos && end != std::string::npos) {
      result.push_back(line.substr(begin + 1, end - begin - 1));
    }
  }
  return result;
}

bool starts_with_any(const std::string& text, const std::vector<std::string>& prefixes) {
  for (const std::string& prefix : prefixes) {
    if (text.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

TEST(Layering, TheCoreDoesNotSeeTorch) {
  int files = 0;
  int includes = 0;
  for (const char* folder : {"include/dhp", "src/core", "src/cost", "src/plan", "src/sim", "src/cli"}) {
    for (const fs::path& file : sources_in(kRoot / folder)) {
      ++files;
      for (const std::string& include : includes_of(file)) {
        ++includes;
        EXPECT_FALSE(starts_with_any(include, {"torch", "ATen", "c10", "dhp/torch"}))
            << file << " includes " << include;
      }
    }
  }
  EXPECT_GT(files, 20);
  EXPECT_GT(includes, 100);
}

TEST(Layering, RoomsIncludeDownwardsOnly) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> forbidden = {
      {"src/core", {"cost/", "plan/", "cli/", "sim/", "torch/"}},
      {"src/cost", {"plan/", "cli/", "sim/", "torch/"}},
      {"src/plan", {"cli/", "sim/", "torch/"}},
      {"src/sim", {"cli/", "torch/"}},
      {"include/dhp", {"core/", "cost/", "plan/", "cli/", "sim/", "torch/", "nlohmann", "CLI"}},
  };
  for (const auto& [folder, prefixes] : forbidden) {
    const auto files = sources_in(kRoot / folder);
    EXPECT_FALSE(files.empty()) << folder;
    for (const fs::path& file : files) {
      for (const std::string& include : includes_of(file)) {
        EXPECT_FALSE(starts_with_any(include, prefixes)) << file << " includes " << include;
      }
    }
  }
}

TEST(Layering, TheCheckerSharesNoCodeWithPlanners) {
  // plan/shape.h: what every function that takes a cluster asks of it, before anything is planned or checked.
  const std::set<std::string> allowed = {"dhp/plan.h",  "dhp/bound.h",        "dhp/cost_model.h", "dhp/cluster.h",
                                         "dhp/batch.h", "core/json_reader.h", "plan/shape.h"};
  for (const std::string& include : includes_of(kRoot / "src/plan/check.cpp")) {
    const bool of_project = include.find('/') != std::string::npos;
    EXPECT_TRUE(!of_project || allowed.contains(include)) << include;
  }
}

}  // namespace
