#include <charconv>
#include <limits>

#include "base/json_reader.h"
#include "cli/cli.h"

namespace dhp::cli {
namespace {

/// A check that the text is a number of this kind from `least` to `most`.
template <typename Number>
CLI::Validator in_range(Number least, Number most, const std::string& expected) {
  const auto check = [least, most, expected](const std::string& text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool is_number = error == std::errc() && end == text.data() + text.size();
    if (is_number && value >= least && value <= most) return std::string();
    return "found " + text + ", expected " + expected;
  };
  return {check, "", "range"};
}

}  // namespace

CLI::Validator whole_from(std::int64_t least, std::int64_t most) {
  return in_range(least, most, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
}

CLI::Validator number_from(double least, double most) {
  return in_range(least, most, "a number from " + format_number(least) + " to " + format_number(most));
}

CLI::Option* add_noise_option(CLI::App& command, const std::string& help,
                              const std::function<void(const ErrorSizes& sizes)>& set) {
  const auto read = [set](const std::string& text) { set(parse_error_sizes(text, "--noise")); };
  return command.add_option_function<std::string>("--noise", read, help)->type_name("SEQ[,TASK[,RANK]]");
}

CLI::Validator any_seed() { return whole_from(0, std::numeric_limits<std::int64_t>::max()); }

}  // namespace dhp::cli
