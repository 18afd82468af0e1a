#include "cli/planners.h"

#include <algorithm>
#include <sstream>

#include "base/listing.h"
#include "dhp/error.h"
#include "dhp/planner.h"

namespace dhp::cli {
namespace {

bool is_known(const std::string& planner) {
  const std::vector<PlannerInfo> infos = planners();
  return std::any_of(infos.begin(), infos.end(), [name = planner.substr(0, planner.find(':'))](const auto& info) {
    return info.name.substr(0, info.name.find(':')) == name;
  });
}

[[noreturn]] void refuse(const std::string& name) {
  const std::string known = listed(planners(), [](const PlannerInfo& planner) { return planner.name; });
  throw InputError("--planners", "", "found \"" + name + "\", which is no planner; expected some of " + known);
}

}  // namespace

void add_planners_option(CLI::App& command, std::string& list) {
  command.add_option("--planners", list, "planners of dhp plan, separated by commas; default: all")
      ->type_name("NAME,...");
}

std::vector<std::string> planner_names(const std::string& list) {
  std::vector<std::string> names;
  if (list.empty()) {
    for (const PlannerInfo& planner : planners()) {
      if (planner.name.find(':') == std::string::npos) names.push_back(planner.name);
    }
    return names;
  }
  std::istringstream words(list);
  for (std::string name; std::getline(words, name, ',');) {
    if (!is_known(name)) refuse(name);
    names.push_back(name);
  }
  return names;
}

}  // namespace dhp::cli
