#include "cli/old_names.h"

#include <algorithm>

#include "cli/cli.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

struct Renamed {
  std::string command;
  std::string then;
  std::string now;
};

const std::vector<Renamed>& renamed_options() {
  static const std::vector<Renamed> kOptions = {{"plan", "--schedule", "--planner"},
                                                {"compare", "--schedules", "--planners"},
                                                {"simulate", "--schedules", "--planners"},
                                                {"dataset", "--name", "--data"}};
  return kOptions;
}

/// Whether the word is that option, with or without a value: "--schedule", "--schedule=free".
bool is_option(const std::string& word, const std::string& option) {
  return word == option || word.starts_with(option + "=");
}

/// Puts --plan before a plan that `dhp check` and `dhp explain` were given without it.
void name_plan(std::vector<std::string>& words, const CLI::App& command) {
  for (std::size_t i = 1; i < words.size(); ++i) {
    if (words[i].starts_with('-')) {
      const std::string& flag = words[i];
      const CLI::Option* const option = command.get_option_no_throw(flag.substr(0, flag.find('=')));
      if (option == nullptr) return;  // parsing refuses it
      if (option->get_items_expected_max() > 0 && flag.find('=') == std::string::npos) ++i;
      continue;
    }
    if (std::any_of(words.begin(), words.end(), [](const std::string& word) { return is_option(word, "--plan"); })) {
      return;  // a word too many, which parsing refuses
    }
    complain("note", words[i] + " is now --plan " + words[i] + "; the next release drops the old name");
    words.insert(words.begin() + static_cast<std::ptrdiff_t>(i), "--plan");
    return;
  }
}

}  // namespace

void replace_old_names(std::vector<std::string>& words, const CLI::App& app) {
  for (const char* command : {"check", "explain"}) {
    if (words.front() == command) name_plan(words, *app.get_subcommand(command));
  }
  for (const Renamed& option : renamed_options()) {
    const auto has = [&](const std::string& name) {
      return std::any_of(words.begin(), words.end(), [&](const std::string& word) { return is_option(word, name); });
    };
    if (words.front() != option.command || !has(option.then)) continue;
    if (has(option.now)) {
      throw InputError(option.then, "", "is the old name of " + option.now + ", which is given too; leave it out");
    }
    complain("note", option.then + " is now " + option.now + "; the next release drops the old name");
    for (std::string& word : words) {
      if (is_option(word, option.then)) word.replace(0, option.then.size(), option.now);
    }
  }
}

}  // namespace dhp::cli
