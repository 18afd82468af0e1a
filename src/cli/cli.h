#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "dhp/error_sizes.h"
#include "dhp/trace.h"

namespace dhp::cli {

/// Exit codes of every command.
inline constexpr int kOk = 0;
inline constexpr int kNo = 1;        ///< an answer of "no": infeasible, or an invalid plan
inline constexpr int kBadInput = 2;  ///< files, options or values that make no sense

/// Built-in commands, one file each. The command's result goes to `exit_code`.
void add_plan_command(CLI::App& app, int& exit_code);
void add_check_command(CLI::App& app, int& exit_code);
void add_explain_command(CLI::App& app, int& exit_code);
void add_compare_command(CLI::App& app, int& exit_code);
void add_cost_command(CLI::App& app, int& exit_code);
void add_simulate_command(CLI::App& app, int& exit_code);
void add_tokens_command(CLI::App& app, int& exit_code);
void add_dataset_command(CLI::App& app, int& exit_code);

/// Prints "dhp: KIND: TEXT" to standard error on one line, whatever characters the text holds.
void complain(const std::string& kind, const std::string& text);

/// Adds --output-format. `json` is set when parsing.
void add_output_format(CLI::App& command, bool& json);

/// Checks of options that complain as readers of files do: "found -1, expected a whole number from 0 to 10".
CLI::Validator whole_from(std::int64_t least, std::int64_t most);
CLI::Validator number_from(double least, double most);
/// Adds --noise SEQ[,TASK[,RANK]].
CLI::Option* add_noise_option(CLI::App& command, const std::string& help,
                              const std::function<void(const ErrorSizes& sizes)>& set);
inline constexpr const char* kNoiseHelp =
    "log-normal errors of task times (standard deviations): of each sequence, each task, each rank of a task; 0: none";

/// Of what draws random numbers.
CLI::Validator any_seed();

/// A program `dhp-NAME` behind the command NAME: in the folder of this program, else in PATH; empty if there is none.
/// Names with anything but letters, digits, - and _ are never looked for.
std::filesystem::path find_external(const std::string& name);

/// Names of the external commands beside this program, sorted.
std::vector<std::string> externals_beside();

/// Replaces this process by the external command; `arguments` follow its name. Returns only by throwing.
[[noreturn]] void run_external(const std::filesystem::path& program, const std::vector<std::string>& arguments);

/// Writes beside the file, then renames: readers see the old text or the new one, never a part. `make` calls `write`
/// with the parts of the text, in order. What is no regular file (a pipe, /dev/stdout) is written to. A link that
/// somebody else has laid in a folder for all is not followed. Throws InputError.
void write_atomically(const std::string& file, const std::function<void(const TextSink& write)>& make);
void write_atomically(const std::string& file, std::string_view text);

/// Throws InputError where the file to be written is one of those that the command reads, whatever the two are called.
void refuse_overwriting(const std::string& file, const std::vector<std::string>& inputs);

/// An interrupt ends the program with one line and exit code 130, and leaves no part of a file; unless interrupts were
/// ignored already: then they stay so.
void end_cleanly_on_interrupt();

}  // namespace dhp::cli
