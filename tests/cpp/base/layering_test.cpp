// Who may include whom; docs/architecture.md says why. And no name is that of two types.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path kRoot = fs::path(DHP_DATA_DIR) / "..";

/// Of the folder and all folders in it.
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

/// The rooms whose private headers the files of a room may include, beside its own; public headers are
/// everybody's.
const std::map<std::string, std::set<std::string>> kMayInclude = {
    {"base", {}},
    {"formats", {"base"}},
    {"tokens", {"base"}},
    {"exchange", {"base"}},
    {"cost", {"base"}},
    {"cost/bound", {"base", "cost"}},
    {"cost/count", {"base", "tokens"}},
    {"plan", {"base", "formats", "cost"}},
    {"plan/search", {"base", "cost", "plan"}},
    {"plan/free", {"base", "plan", "plan/search"}},
    {"plan/lockstep", {"base", "plan", "plan/search"}},
    {"plan/static", {"base", "plan"}},
    {"plan/peers", {"base", "plan"}},
    {"plan/check", {"base", "formats"}},
    {"plan/explain", {"base", "formats", "plan"}},
    {"sim", {"base", "cost", "formats"}},
    {"sim/trace", {"base", "exchange", "sim"}},
    {"cli", {"base", "cli/show"}},
    {"cli/show", {"base"}},
    {"bindings", {"base"}},
    {"torch", {"torch/attention", "torch/rows", "torch/transport"}},
    {"torch/transport", {"exchange"}},
    {"torch/attention", {"base", "exchange", "torch/transport"}},
    {"torch/rows", {"base", "torch/transport"}},
};

std::string folder_of(const std::string& path) { return fs::path(path).parent_path().string(); }

TEST(Layering, TheCoreDoesNotSeeTorch) {
  int includes = 0;
  for (const auto& [room, others] : kMayInclude) {
    if (room.starts_with("torch")) continue;
    for (const fs::path& file : sources_in(kRoot / "src" / room)) {
      for (const std::string& include : includes_of(file)) {
        ++includes;
        EXPECT_FALSE(starts_with_any(include, {"torch", "ATen", "c10"})) << file << " includes " << include;
      }
    }
  }
  EXPECT_GT(includes, 100);
}

TEST(Layering, RoomsIncludeOnlyTheRoomsThatTheyMay) {
  int seen = 0;
  for (const fs::path& file : sources_in(kRoot / "src")) {
    const std::string room = fs::relative(file.parent_path(), kRoot / "src").string();
    ASSERT_TRUE(kMayInclude.contains(room)) << "a new room, " << room << ": say here what it may include";
    for (const std::string& include : includes_of(file)) {
      const std::string other = folder_of(include);
      if (!kMayInclude.contains(other) || other == room) continue;
      ++seen;
      EXPECT_TRUE(kMayInclude.at(room).contains(other)) << file << " includes " << include;
    }
  }
  EXPECT_GT(seen, 50);
  for (const fs::path& file : sources_in(kRoot / "include/dhp")) {
    for (const std::string& include : includes_of(file)) {
      const bool of_project = include.find('/') != std::string::npos;
      EXPECT_TRUE(!of_project || include.starts_with("dhp/")) << file << " includes " << include;
    }
  }
}

TEST(Layering, TheUmbrellaHeaderIncludesEveryOther) {
  const fs::path folder = kRoot / "include/dhp";
  std::vector<std::string> expected;
  for (const fs::path& file : sources_in(folder)) {
    if (file.filename() != "dhp.h") expected.push_back("dhp/" + file.filename().string());
  }
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(includes_of(folder / "dhp.h"), expected);
}

/// Names of types in a file, with their namespaces; without those of unnamed namespaces, which are of the file
/// alone.
std::vector<std::string> types_in(const fs::path& file) {
  std::ifstream stream(file);
  std::vector<std::string> spaces;
  std::vector<std::string> types;
  static const std::regex kOpen("namespace ?([A-Za-z_:]*) \\{");
  static const std::regex kClose("\\}  // namespace.*");
  static const std::regex kType("(?:struct|class|enum class) (\\w+)(?: final)?(?: : [^{]*)? \\{.*");
  for (std::string line; std::getline(stream, line);) {
    std::smatch match;
    if (std::regex_match(line, match, kOpen)) {
      spaces.push_back(match[1]);
    } else if (std::regex_match(line, kClose) && !spaces.empty()) {
      spaces.pop_back();
    } else if (std::regex_match(line, match, kType)) {
      if (std::find(spaces.begin(), spaces.end(), "") != spaces.end()) continue;
      std::string name;
      for (const std::string& space : spaces) name += space + "::";
      types.push_back(name + match[1].str());
    }
  }
  return types;
}

// Two types of one name in one program are undefined behaviour that no compiler and no linker tells of.
TEST(Layering, NoTwoTypesShareAName) {
  std::map<std::string, fs::path> homes;
  for (const char* folder : {"include", "src"}) {
    for (const fs::path& file : sources_in(kRoot / folder)) {
      for (const std::string& type : types_in(file)) {
        const auto [home, is_new] = homes.emplace(type, file);
        EXPECT_TRUE(is_new) << type << " is in " << home->second << " and in " << file;
      }
    }
  }
  EXPECT_GT(homes.size(), 150u);
  EXPECT_TRUE(homes.contains("dhp::Segment") && homes.contains("dhp::rt::Segment"));
}

TEST(Layering, TheCheckerSharesNoCodeWithPlanners) {
  // formats/shape.h: what every function that takes a cluster asks of it, before anything is planned or checked.
  // plan/check/met_ranks.h: the two checkers' own counting.
  const std::set<std::string> allowed = {"dhp/plan.h",      "dhp/bound.h",           "dhp/cost_model.h",
                                         "dhp/cluster.h",   "dhp/batch.h",           "base/json_reader.h",
                                         "formats/shape.h", "plan/check/met_ranks.h"};
  for (const std::string& include : includes_of(kRoot / "src/plan/check/check_plan.cpp")) {
    const bool of_project = include.find('/') != std::string::npos;
    EXPECT_TRUE(!of_project || allowed.contains(include)) << include;
  }
}

}  // namespace
