#include "dhp/error_sizes.h"

#include <charconv>

#include "base/number_limits.h"

namespace dhp {
namespace {

struct Field {
  const char* name;
  double ErrorSizes::*size;
};
constexpr Field kFields[] = {
    {"sequence", &ErrorSizes::sequence}, {"task", &ErrorSizes::task}, {"rank", &ErrorSizes::rank}};

}  // namespace

ErrorSizes parse_error_sizes(std::string_view text, const std::string& source) {
  ErrorSizes sizes{0.0, 0.0, 0.0};
  const char* at = text.data();
  const char* const end = at + text.size();
  for (const Field& field : kFields) {
    const auto [behind, error] = std::from_chars(at, end, sizes.*field.size);
    const bool is_last = behind == end;
    if (error != std::errc{} || (!is_last && (*behind != ',' || field.size == &ErrorSizes::rank))) break;
    if (is_last) {
      validate(sizes, source);
      return sizes;
    }
    at = behind + 1;
  }
  throw InputError(source, "",
                   "found \"" + std::string(text) + "\", expected SEQ[,TASK[,RANK]], numbers from 0 to " +
                       format_number(kMostErrorSize));
}

std::string to_text(const ErrorSizes& sizes) {
  std::string text = number_text(sizes.sequence);
  if (sizes.task != 0.0 || sizes.rank != 0.0) text += "," + number_text(sizes.task);
  if (sizes.rank != 0.0) text += "," + number_text(sizes.rank);
  return text;
}

void validate(const ErrorSizes& sizes, const std::string& source, const std::string& location) {
  for (const Field& field : kFields) {
    const std::string name = location.empty() ? field.name : location + "." + field.name;
    check_number(sizes.*field.size, 0.0, kMostErrorSize, name, source);
  }
}

}  // namespace dhp
