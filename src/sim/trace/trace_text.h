#pragma once

#include <concepts>
#include <string>
#include <vector>

#include "base/json_reader.h"

namespace dhp::sim {

/// Events of a Chrome trace, one a line.
class TraceEvents {
 public:
  /// `fields` is the inside of the event's braces.
  void add(const std::string& fields) {
    text_ += text_.empty() ? "{" : ",\n{";
    text_ += fields;
    text_ += '}';
  }
  /// `[…]`
  std::string list() const { return "[\n" + text_ + "\n]"; }

 private:
  std::string text_;
};

/// `"name": value`
inline std::string field(const char* name, const std::string& text) {
  return '"' + std::string(name) + "\": " + format_text(text);
}
inline std::string field(const char* name, double value) {
  return '"' + std::string(name) + "\": " + format_number(value);
}
template <std::integral Int>
std::string field(const char* name, Int value) {
  return '"' + std::string(name) + "\": " + std::to_string(value);
}
template <typename... Fields>
std::string fields(const std::string& first, const Fields&... more) {
  return (first + ... + (", " + more));
}
template <typename... Fields>
std::string arguments(const std::string& first, const Fields&... more) {
  return "\"args\": {" + fields(first, more...) + "}";
}

}  // namespace dhp::sim
