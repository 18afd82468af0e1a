#pragma once

#include <concepts>
#include <string>

#include "base/json_reader.h"
#include "dhp/trace.h"

namespace dhp::sim {

/// A Chrome trace of events, one a line. `head` is what stands before them.
class TraceEvents {
 public:
  TraceEvents(const TextSink& write, const std::string& head) : write_(write), text_(head + "\"traceEvents\": [\n") {}

  /// `fields` is the inside of the event's braces.
  void add(const std::string& fields) {
    constexpr std::size_t kPart = 1U << 20U;
    text_ += separator_;
    text_ += fields;
    text_ += '}';
    separator_ = ",\n{";
    if (text_.size() < kPart) return;
    write_(text_);
    text_.clear();
  }
  void end() { write_(text_ + "\n]}\n"); }

 private:
  const TextSink& write_;
  std::string text_;  // not yet written
  const char* separator_ = "{";
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
