#include "base/json_reader.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "dhp/error.h"

namespace dhp {
namespace {

using Json = nlohmann::json;

/// What stands there, short enough for a message.
std::string describe(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array of " + std::to_string(value.size());
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  constexpr std::size_t kLongest = 60;
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

std::string whole_range(std::int64_t min, std::int64_t max) {
  if (max == std::numeric_limits<std::int64_t>::max()) {
    return min == std::numeric_limits<std::int64_t>::min() ? "a whole number of 64 bits"
                                                           : "a whole number of at least " + std::to_string(min);
  }
  return "a whole number from " + std::to_string(min) + " to " + std::to_string(max);
}

/// The number, if it is whole, fits and lies in the range.
std::optional<std::int64_t> whole_in(const Json& value, std::int64_t min, std::int64_t max) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return std::nullopt;
  }
  const auto number = value.get<std::int64_t>();
  if (number < min || number > max) return std::nullopt;
  return number;
}

[[noreturn]] void fail_as_too_large(const std::string& file, std::size_t most_bytes) {
  throw InputError(file, "",
                   "has more than " + std::to_string(most_bytes >> 20U) +
                       " MiB, too much for a file of this kind; is it the right one?");
}

}  // namespace

std::ifstream open_text_file(const std::string& file, std::size_t most_bytes) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(file, ignored);
  if (std::filesystem::is_directory(status)) throw InputError(file, "", "is a folder, expected a file");
  if (std::filesystem::is_character_file(status) || std::filesystem::is_block_file(status)) {
    throw InputError(file, "", "is a device, expected a file or a pipe");
  }
  errno = 0;
  std::ifstream stream(file, std::ios::binary);
  if (!stream) {
    const char* reason = errno != 0 ? std::strerror(errno) : "unknown reason";
    throw InputError(file, "", std::string("cannot be opened (") + reason + "); check the path");
  }
  if (size_of_file(file).value_or(0) > most_bytes) fail_as_too_large(file, most_bytes);
  return stream;
}

std::optional<std::size_t> size_of_file(const std::string& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) return std::nullopt;
  const std::uintmax_t size = std::filesystem::file_size(file, error);
  return error ? std::nullopt : std::optional(static_cast<std::size_t>(size));
}

std::string read_text_file(const std::string& file, std::size_t most_bytes) {
  std::ifstream stream = open_text_file(file, most_bytes);
  // In one piece where the size is known: a text that grows takes twice its size and more.
  constexpr std::size_t kChunk = std::size_t{1} << 16;
  const std::size_t known = size_of_file(file).value_or(0);
  std::string text;
  std::size_t size = 0;
  do {
    if (size > most_bytes) fail_as_too_large(file, most_bytes);
    text.resize(size + (known > size ? known - size + 1 : kChunk));
    stream.read(text.data() + size, static_cast<std::streamsize>(text.size() - size));
    size += static_cast<std::size_t>(stream.gcount());
  } while (stream);
  if (stream.bad()) throw InputError(file, "", "cannot be read to its end");
  text.resize(size);
  return text;
}

JsonObject::JsonObject(const Json& value, const std::string& source, std::string path)
    : value_(&value), source_(&source), path_(std::move(path)) {
  if (!value.is_object()) throw InputError(source, path_, "found " + describe(value) + ", expected an object");
}

std::string JsonObject::path_of(const std::string& key) const { return path_.empty() ? key : path_ + "." + key; }

void JsonObject::fail(const std::string& key, const std::string& problem) const {
  throw InputError(*source_, path_of(key), problem);
}

const Json& JsonObject::field(const char* key, const std::string& expected) const {
  const auto found = value_->find(key);
  if (found == value_->end()) fail(key, "missing, expected " + expected);
  return *found;
}

std::int64_t JsonObject::whole(const char* key, std::int64_t min, std::int64_t max) const {
  const auto found = value_->find(key);
  if (found == value_->end()) fail(key, "missing, expected " + whole_range(min, max));
  const auto number = whole_in(*found, min, max);
  if (!number) fail(key, "found " + describe(*found) + ", expected " + whole_range(min, max));
  return *number;
}

std::int64_t JsonObject::whole_or(const char* key, std::int64_t fallback, std::int64_t min, std::int64_t max) const {
  return has(key) ? whole(key, min, max) : fallback;
}

int JsonObject::integer(const char* key, int min, int max) const { return static_cast<int>(whole(key, min, max)); }

int JsonObject::integer_or(const char* key, int fallback, int min, int max) const {
  return has(key) ? integer(key, min, max) : fallback;
}

double JsonObject::bounded_number(const char* key, const std::string& expected, double min, bool open) const {
  const Json& value = field(key, expected);
  // The parser refuses NaN, Infinity and decimals beyond the range of double, so that a number is finite.
  const bool ok = value.is_number() && (open ? value.get<double>() > min : value.get<double>() >= min);
  if (!ok) fail(key, "found " + describe(value) + ", expected " + expected);
  return value.get<double>();
}

double JsonObject::positive(const char* key) const { return bounded_number(key, "a number above 0", 0.0, true); }

double JsonObject::non_negative(const char* key) const {
  return bounded_number(key, "a number of at least 0", 0.0, false);
}

double JsonObject::non_negative_or(const char* key, double fallback) const {
  return has(key) ? non_negative(key) : fallback;
}

double JsonObject::number(const char* key) const {
  return bounded_number(key, "a number", std::numeric_limits<double>::lowest(), false);
}

bool JsonObject::boolean_or(const char* key, bool fallback) const {
  if (!has(key)) return fallback;
  const Json& value = field(key, "true or false");
  if (!value.is_boolean()) fail(key, "found " + describe(value) + ", expected true or false");
  return value.get<bool>();
}

std::string JsonObject::text(const char* key) const {
  const Json& value = field(key, "a string");
  if (!value.is_string()) fail(key, "found " + describe(value) + ", expected a string");
  return value.get<std::string>();
}

std::string JsonObject::text_or(const char* key, const std::string& fallback) const {
  return has(key) ? text(key) : fallback;
}

JsonObject JsonObject::object(const char* key) const { return {field(key, "an object"), *source_, path_of(key)}; }

const Json& JsonObject::array(const char* key, const std::string& expected) const {
  const Json& value = field(key, expected);
  if (!value.is_array()) fail(key, "found " + describe(value) + ", expected " + expected);
  return value;
}

std::vector<JsonObject> JsonObject::objects(const char* key) const {
  const Json& values = array(key, "an array of objects");
  std::vector<JsonObject> result;
  result.reserve(values.size());
  const std::string path = path_of(key);
  for (std::size_t i = 0; i < values.size(); ++i) {
    result.emplace_back(values[i], *source_, path + "[" + std::to_string(i) + "]");
  }
  return result;
}

std::vector<std::int64_t> JsonObject::wholes(const char* key, std::int64_t min, std::int64_t max) const {
  const Json& values = array(key, "an array of whole numbers");
  std::vector<std::int64_t> result;
  result.reserve(values.size());
  for (const Json& value : values) {
    const auto number = whole_in(value, min, max);
    if (!number) {
      fail(std::string(key) + "[" + std::to_string(result.size()) + "]",
           "found " + describe(value) + ", expected " + whole_range(min, max));
    }
    result.push_back(*number);
  }
  return result;
}

std::vector<int> JsonObject::integers(const char* key, int min, int max) const {
  const std::vector<std::int64_t> values = wholes(key, min, max);
  std::vector<int> result;
  result.reserve(values.size());
  for (const std::int64_t value : values) result.push_back(static_cast<int>(value));
  return result;
}

std::vector<double> JsonObject::numbers(const char* key) const {
  std::vector<double> result;
  for (const Json& value : array(key, "an array of numbers")) {
    if (!value.is_number()) {
      fail(std::string(key) + "[" + std::to_string(result.size()) + "]",
           "found " + describe(value) + ", expected a number");
    }
    result.push_back(value.get<double>());
  }
  return result;
}

void JsonObject::expect_format(std::string_view format) const {
  std::string expected = "\"";
  expected += format;
  expected += '"';
  const Json& value = field("format", expected);
  if (!value.is_string() || value.get_ref<const std::string&>() != format) {
    fail("format", "found " + describe(value) + ", expected " + expected + "; is this the right kind of file?");
  }
}

std::string format_number(double value) {
  if (!std::isfinite(value)) throw std::invalid_argument("JSON cannot hold a number that is not finite");
  return number_text(value);
}

std::string number_text(double value) {
  std::array<char, 32> buffer{};  // the longest double needs 24
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
  return {buffer.data(), end};
}

std::string format_text(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dhp
