#pragma once

#include <optional>
#include <string>

#include "dhp/error.h"
#include "fuzz.h"

namespace dhp::fuzz {

/// Whether all of it is UTF-8: Python cannot show a message that is not.
bool is_utf8(std::string_view text);

/// What `action` returns; nothing if it throws InputError. All else escapes.
template <typename Action>
auto unless_input_error(const Action& action) -> std::optional<decltype(action())> {
  try {
    return action();
  } catch (const InputError& error) {
    require(is_utf8(error.what()), "a message is UTF-8");
    return std::nullopt;
  }
}

/// Reads, writes and reads again.
template <typename Value>
std::optional<Value> round_trip(std::string_view text, Value (*parse)(std::string_view, const std::string&),
                                Value (*parse_again)(std::string_view, const std::string&)) {
  const auto value = unless_input_error([&] { return parse(text, "fuzz"); });
  if (value) require(parse_again(to_json(*value), "again") == *value, "what was read survives being written");
  return value;
}

}  // namespace dhp::fuzz
