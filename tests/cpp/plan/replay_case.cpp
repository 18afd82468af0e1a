#include "replay_case.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "dhp/error.h"
#include "dhp/plan_options.h"

namespace dhp::test {
namespace {

constexpr const char* kCommand = "dhp plan --batch batch.json --cluster cluster.json --cost cost.json";

void write_text(const std::filesystem::path& file, const std::string& text) {
  std::ofstream stream(file, std::ios::binary);
  stream << text;
  if (!stream.flush()) throw InputError(file.string(), "", "cannot be written");
}

std::string flag_of(const std::string& name) {
  std::string flag = "--";
  for (const char letter : name) flag += letter == '_' ? '-' : letter;
  return flag;
}

std::string command_of(const PlanOptions& options) {
  std::string text = kCommand;
  for (const OptionInfo& info : plan_options()) {
    const std::string value = option_text(options, info.name);
    if (value == info.default_text && info.name != "planner") continue;
    text.append(" ").append(flag_of(info.name));
    if (info.kind != OptionInfo::Kind::flag) text.append(" ").append(value);
  }
  return text.append("\n");
}

PlanOptions options_of(const std::string& command, const std::string& source) {
  if (!command.starts_with(kCommand)) throw InputError(source, "", "does not begin with " + std::string(kCommand));
  std::istringstream words(command.substr(std::string(kCommand).size()));
  PlanOptions options;
  for (std::string flag; words >> flag;) {
    const auto& known = plan_options();
    const auto found =
        std::find_if(known.begin(), known.end(), [&](const auto& one) { return flag_of(one.name) == flag; });
    if (found == known.end()) throw InputError(source, flag, "is not an option of plans");
    std::string value = "true";
    if (found->kind != OptionInfo::Kind::flag) words >> value;
    set_option(options, found->name, value, flag);
  }
  return options;
}

}  // namespace

void write_case(const Case& made, const std::string& folder) {
  const std::filesystem::path path = folder;
  std::filesystem::create_directories(path);
  write_text(path / "batch.json", to_json(made.batch));
  write_text(path / "cluster.json", to_json(made.cluster));
  write_text(path / "cost.json", to_json(made.cost));
  write_text(path / "command.txt", command_of(made.options));
}

Case read_case(const std::string& folder) {
  const std::string command_file = folder + "/command.txt";
  std::ifstream stream(command_file);
  std::string command;
  std::getline(stream, command);
  return {.batch = read_batch(folder + "/batch.json"),
          .cluster = read_cluster(folder + "/cluster.json"),
          .cost = read_cost_model(folder + "/cost.json"),
          .options = options_of(command, command_file)};
}

}  // namespace dhp::test
