// dhp: plans, checks, explains and simulates batches; `dhp NAME` runs dhp-NAME for every other NAME.

#include <algorithm>
#include <exception>
#include <iostream>
#include <new>

#include "base/text.h"
#include "cli/cli.h"
#include "cli/old_names.h"
#include "cli/version.h"
#include "dhp/error.h"
#include "dhp/peers.h"

namespace {

using namespace dhp::cli;

/// One line of help for the commands that the Python package adds; empty for others.
std::string python_command_help(const std::string& name) {
  if (name == "train") return "Train a model, planning every batch";
  if (name == "index") return "Count the tokens and patches of a data set";
  if (name == "report") return "Make a page about simulated and measured runs";
  if (name == "calibrate") return "Measure a model on this device and write a cost file";
  if (name == "check-model") return "Whether a checkpoint's kind of model trains exactly on shards";
  if (name == "convert") return "Make a Hugging Face checkpoint of OpenGVLab's InternVL";
  if (name == "build-ops") return "Compile the run-time for the installed torch";
  return "";
}

std::string external_help(const std::string& name) {
  const std::string help = python_command_help(name);
  return help.empty() ? "Run dhp-" + name : help;
}

std::string externals_text() {
  constexpr std::size_t kNameWidth = 28;  // CLI11's column
  std::string text;
  for (const std::string& name : externals_beside()) {
    std::string entry = "  " + name;
    entry.resize(std::max(entry.size() + 1, kNameWidth + 2), ' ');
    text += entry + external_help(name) + '\n';
  }
  return text.empty() ? text : "More commands:\n" + text;
}

std::string known_commands(const CLI::App& app) {
  std::string text;
  for (const CLI::App* sub : app.get_subcommands({})) text += (text.empty() ? "" : ", ") + sub->get_name();
  for (const std::string& name : externals_beside()) text += ", " + name;
  return text;
}

bool is_built_in(const CLI::App& app, const std::string& name) {
  for (const CLI::App* sub : app.get_subcommands({})) {
    if (sub->get_name() == name) return true;
  }
  return false;
}

int fail(const std::string& message) {
  complain("error", message);
  return kBadInput;
}

int run(int argc, char** argv) {
  dhp::add_peers();
  int exit_code = kOk;
  CLI::App app("Dynamic hybrid parallelism: which ranks share which sequences of a batch", "dhp");
  app.set_version_flag("--version", std::string("dhp ") + version());
  app.require_subcommand(1);
  add_plan_command(app, exit_code);
  add_check_command(app, exit_code);
  add_explain_command(app, exit_code);
  add_compare_command(app, exit_code);
  add_cost_command(app, exit_code);
  add_simulate_command(app, exit_code);
  add_tokens_command(app, exit_code);
  add_dataset_command(app, exit_code);
  if (const std::string more = externals_text(); !more.empty()) app.footer(more);

  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    std::cerr << app.help();
    return kBadInput;
  }
  if (words.front() == "help") words = {words.size() > 1 ? words[1] : "--help", "--help"};
  if (!words.front().starts_with('-') && !is_built_in(app, words.front())) {
    const std::filesystem::path program = find_external(words.front());
    if (program.empty() && !python_command_help(words.front()).empty()) {
      return fail("\"" + words.front() +
                  "\" comes with the Python package, which is not installed beside this program: " +
                  "make build installs it in build/venv");
    }
    if (program.empty()) {
      return fail("\"" + words.front() + "\" is not a command, and there is no program dhp-" + words.front() +
                  "; commands: " + known_commands(app));
    }
    run_external(program, {words.begin() + 1, words.end()});
  }
  replace_old_names(words, app);
  try {
    app.parse(std::vector<std::string>(words.rbegin(), words.rend()));  // it takes the last one first
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail(std::string(error.what()) + " (see dhp " +
                (is_built_in(app, words.front()) ? words.front() + " " : "") + "--help)");
  }
  return exit_code;
}

}  // namespace

void dhp::cli::complain(const std::string& kind, const std::string& text) {
  std::cerr << "dhp: " << kind << ": " << on_one_line(text) << std::endl;
}

int main(int argc, char** argv) {
  end_cleanly_on_interrupt();
  try {
    const int exit_code = run(argc, argv);
    std::cout.flush();
    if (!std::cout) return fail("standard output cannot be written");
    return exit_code;
  } catch (const dhp::InputError& error) {
    return fail(error.what());
  } catch (const std::bad_alloc&) {
    complain("error", "not enough memory for input of this size");
    return kNo;
  } catch (const std::exception& error) {
    complain("internal error", error.what());
    return 3;
  }
}
