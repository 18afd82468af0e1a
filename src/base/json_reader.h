#pragma once

#include <cstdint>
#include <exception>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dhp {

/// Most bytes of files that hold settings: clusters, costs, processors.
inline constexpr std::size_t kMostSettingBytes = std::size_t{64} << 20;
/// Most bytes of a batch, of samples and of a plan: what has more is the wrong file, or a pipe without an end.
inline constexpr std::size_t kMostDataBytes = std::size_t{16} << 30;

/// A text file or a pipe, to be read. Throws InputError naming the file if it is missing, a folder, a device (some have
/// no end) or a file that is larger.
std::ifstream open_text_file(const std::string& file, std::size_t most_bytes);

/// Bytes of a file; nothing for a pipe, and where the size is not known.
std::optional<std::size_t> size_of_file(const std::string& file);

/// The whole of a text file or a pipe. Throws InputError naming the file if it is missing, a folder, a device (some
/// have no end), unreadable or larger.
std::string read_text_file(const std::string& file, std::size_t most_bytes = kMostSettingBytes);

/// One JSON object and where it stands, so that every complaint names file, path, found value and expectation:
///
///     JsonDocument document(text, "batch.json");
///     for (const JsonObject& entry : document.root().objects("sequences")) entry.whole("tokens", 1, kMaxTokens);
///     // batch.json: sequences[3].tokens: found -5, expected a whole number from 1 to 1099511627776
///
/// A view: the document must outlive it. Fields that nobody asks for are ignored.
class JsonObject {
 public:
  /// `value` must outlive the view. Throws InputError if it is not an object.
  JsonObject(const nlohmann::json& value, const std::string& source, std::string path);

  bool has(const char* key) const { return value_->contains(key); }

  std::int64_t whole(const char* key, std::int64_t min, std::int64_t max) const;
  std::int64_t whole_or(const char* key, std::int64_t fallback, std::int64_t min, std::int64_t max) const;
  /// A whole number that fits an int.
  int integer(const char* key, int min, int max = std::numeric_limits<int>::max()) const;
  int integer_or(const char* key, int fallback, int min, int max = std::numeric_limits<int>::max()) const;

  double positive(const char* key) const;
  double non_negative(const char* key) const;
  double non_negative_or(const char* key, double fallback) const;
  /// Any finite number.
  double number(const char* key) const;

  bool boolean_or(const char* key, bool fallback) const;
  std::string text(const char* key) const;
  std::string text_or(const char* key, const std::string& fallback) const;

  JsonObject object(const char* key) const;
  std::vector<JsonObject> objects(const char* key) const;
  std::vector<std::int64_t> wholes(const char* key, std::int64_t min, std::int64_t max) const;
  std::vector<int> integers(const char* key, int min, int max) const;
  std::vector<double> numbers(const char* key) const;

  bool is_array(const char* key) const { return has(key) && value_->at(key).is_array(); }

  /// Throws unless the field `format` is exactly `format`.
  void expect_format(std::string_view format) const;

  /// Is the field there and not null?
  bool has_value(const char* key) const { return has(key) && !value_->at(key).is_null(); }

  /// Throws InputError about a field of this object.
  [[noreturn]] void fail(const std::string& key, const std::string& problem) const;
  std::string path_of(const std::string& key) const;
  const std::string& source() const { return *source_; }

 private:
  const nlohmann::json& field(const char* key, const std::string& expected) const;
  double bounded_number(const char* key, const std::string& expected, double min, bool open) const;
  const nlohmann::json& array(const char* key, const std::string& expected) const;

  const nlohmann::json* value_;
  const std::string* source_;
  std::string path_;
};

/// An array of the root whose objects are read one after the other and not kept, as there may be very many. They all
/// stand in the same place, one after the other: an entry is gone when `read` returns.
struct JsonEntries {
  const char* key = "";
  std::function<void()> begin = {};                        ///< the array begins (anew, where the key is repeated)
  std::function<void(const JsonObject& entry)> read = {};  ///< may throw InputError; then nothing more is read
};

/// A parsed text. Throws InputError with line and column for anything that is not JSON.
class JsonDocument {
 public:
  JsonDocument(std::string_view text, std::string source);
  /// Keeps these fields of the root alone. What is wrong with entries is told by expect_entries(), so that complaints
  /// come in the order in which fields are asked for.
  JsonDocument(std::string_view text, std::string source, const std::vector<std::string_view>& fields,
               const JsonEntries& entries = {});
  /// The same of a file, of which no more than a piece is kept in memory at a time.
  JsonDocument(std::ifstream& file, std::string source, const std::vector<std::string_view>& fields,
               const JsonEntries& entries = {});
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  JsonObject root() const { return {value_, source_, ""}; }
  /// Throws what reading the entries threw, or InputError where there is no array of objects.
  void expect_entries(const char* key) const;

 private:
  std::exception_ptr wrong_ = {};  // of the first entry that is
  std::string source_;
  nlohmann::json value_;
};

/// The shortest decimal that reads back as the same double. Throws std::invalid_argument for NaN and infinities, which
/// JSON cannot hold.
std::string format_number(double value);

/// The same for messages: "nan" and "inf" too.
std::string number_text(double value);

/// A JSON string literal, quotes included.
std::string format_text(const std::string& text);

/// `[1, 2, 3]`
template <typename Int>
std::string format_list(const std::vector<Int>& values) {
  std::string text = "[";
  for (const Int value : values) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(value);
  }
  return text + "]";
}

}  // namespace dhp
