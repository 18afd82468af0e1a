// A JSON text on its way to a document: all of it, or what is asked for, with its entries read in passing.
#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json_reader.h"
#include "dhp/error.h"

namespace dhp {
namespace {

using Json = nlohmann::json;

/// Listens to nlohmann's parser. Of the root it keeps some fields; every entry takes the place of the one before, so
/// that entries of one kind need no memory of their own.
class Builder {
 public:
  Builder(const std::string& source, const std::vector<std::string_view>& fields, const JsonEntries& entries)
      : source_(source), fields_(fields), entries_(entries) {}

  Json take_root() { return std::move(root_); }
  std::exception_ptr wrong() const { return wrong_; }

  // What the parser calls. All but parse_error() go on.
  bool null() { return place(nullptr); }
  bool boolean(bool value) { return place(value); }
  bool number_integer(Json::number_integer_t value) { return place(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return place(value); }
  bool number_float(Json::number_float_t value, const std::string&) { return place(value); }
  bool string(std::string& value) { return place(value); }
  bool binary(Json::binary_t&) { return true; }  // never in a text
  bool start_object(std::size_t) { return open(Json::value_t::object); }
  bool start_array(std::size_t) { return open(Json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(const std::string& key) {
    Json* parent = open_.back();
    if (all_ != nullptr && wrong_) {
      member_ = nullptr;
    } else if (parent == &entry_) {
      member_ = member_of_entry(key);
    } else if (open_.size() == 1) {
      is_entries_ = entries_.read && key == entries_.key;
      const bool kept = is_entries_ || std::find(fields_.begin(), fields_.end(), key) != fields_.end();
      member_ = kept ? &root_[key] : nullptr;
    } else {
      member_ = parent != nullptr ? &(*parent)[key] : nullptr;
    }
    return true;
  }

  template <typename Exception>
  bool parse_error(std::size_t, const std::string&, const Exception& error) {
    throw Exception(error);
  }

 private:
  static constexpr std::size_t kMostValues = std::size_t{1} << 22;  // of one entry
  static constexpr std::size_t kMostMembers = 1000;                 // of one entry, which are looked for one by one

  /// A field of the entry. Entries mostly have the same fields in the same order.
  struct Member {
    std::string key;
    Json* value = nullptr;
    bool is_there = false;
  };

  bool in_entries() const { return all_ != nullptr && open_.back() == all_; }

  /// Where the next value goes; nullptr: it is not kept.
  Json* slot() {
    if (open_.empty()) return &root_;
    if (all_ != nullptr) {
      if (open_.back() == all_) {
        values_ = 0;
      } else if (++values_ > kMostValues && !wrong_) {
        fail_as_too_many(kMostValues, "values");
      }
      if (wrong_) return nullptr;
      if (open_.back() == all_) return &entry_;
    }
    Json* parent = open_.back();
    if (parent == nullptr || !parent->is_array()) return parent == nullptr ? nullptr : member_;
    return &parent->emplace_back();
  }

  template <typename Value>
  bool place(const Value& value) {
    if (Json* place = slot(); place != nullptr) *place = value;
    if (!open_.empty() && in_entries()) read_entry();
    return true;
  }

  bool place(std::string& value) {
    Json* place = slot();
    if (place != nullptr && place->is_string()) {
      place->get_ref<std::string&>() = value;  // its memory serves again
    } else if (place != nullptr) {
      *place = value;
    }
    if (!open_.empty() && in_entries()) read_entry();
    return true;
  }

  bool open(Json::value_t kind) {
    Json* place = slot();
    if (place != nullptr && place->type() != kind) {
      *place = kind;
      if (place == &entry_) members_.clear();
    } else if (place != nullptr && place != &entry_) {
      place->clear();
    }
    if (place == &entry_) {
      if (kind == Json::value_t::array) entry_.clear();
      next_ = 0;
      there_ = 0;
      for (Member& member : members_) member.is_there = false;
    }
    if (open_.size() == 1 && is_entries_ && kind == Json::value_t::array) {
      all_ = place;
      read_ = 0;
      wrong_ = {};
      entries_.begin();
    }
    open_.push_back(place);
    return true;
  }

  bool close() {
    if (open_.back() == all_) all_ = nullptr;
    open_.pop_back();
    if (!open_.empty() && in_entries()) read_entry();
    return true;
  }

  /// nullptr: one too many.
  Json* member_of_entry(const std::string& key) {
    const auto is_key = [&](const Member& member) { return member.key == key; };
    auto found = next_ < members_.size() && is_key(members_[next_])
                     ? members_.begin() + static_cast<std::ptrdiff_t>(next_)
                     : std::find_if(members_.begin(), members_.end(), is_key);
    if (found == members_.end()) found = members_.insert(found, {key, &entry_[key]});
    next_ = static_cast<std::size_t>(found - members_.begin()) + 1;
    if (!std::exchange(found->is_there, true) && ++there_ > kMostMembers) {
      fail_as_too_many(kMostMembers, "fields");
      return nullptr;
    }
    return found->value;
  }

  void read_entry() {
    if (wrong_) return;
    if (entry_.is_object()) {
      std::erase_if(members_, [&](const Member& member) {
        if (!member.is_there) entry_.erase(member.key);
        return !member.is_there;
      });
    } else {
      members_.clear();
    }
    try {
      entries_.read({entry_, source_, path_of_entry()});
      ++read_;
    } catch (const InputError&) {
      wrong_ = std::current_exception();
    }
  }

  std::string path_of_entry() const { return std::string(entries_.key) + "[" + std::to_string(read_) + "]"; }

  void fail_as_too_many(std::size_t most, const char* of_what) {
    const std::string reason = "has more than " + std::to_string(most) + " " + of_what + ", too many for one";
    wrong_ = std::make_exception_ptr(InputError(source_, path_of_entry(), reason));
  }

  const std::string& source_;
  const std::vector<std::string_view>& fields_;
  const JsonEntries& entries_;
  Json root_;
  std::vector<Json*> open_;  // objects and arrays around the next value, outermost first; nullptr: not kept
  Json* member_ = nullptr;   // the value of the last key
  bool is_entries_ = false;  // the last key of the root is that of the entries
  Json* all_ = nullptr;      // the array of entries, inside of it
  std::size_t read_ = 0;     // entries
  std::size_t values_ = 0;   // of the entry at hand
  Json entry_;
  std::vector<Member> members_;  // of the entry
  std::size_t next_ = 0;         // the member that probably comes next
  std::size_t there_ = 0;        // members that the entry at hand has
  std::exception_ptr wrong_ = {};
};

/// "line 3, column 14" of the byte with this index.
std::string location_in(std::string_view text, std::size_t byte) {
  const std::string_view before = text.substr(0, std::min(byte, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 == 0: the first line
  return "line " + std::to_string(line) + ", column " + std::to_string(before.size() - line_start + 1);
}

/// The same of a file.
std::string location_in(std::ifstream& file, std::size_t byte) {
  file.clear();
  file.seekg(0);
  std::size_t line = 1;
  std::size_t column = 1;
  for (std::size_t i = 0; i < byte; ++i) {
    const bool ends = file.get() == '\n';
    line += ends ? 1 : 0;
    column = ends ? 1 : column + 1;
  }
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

std::size_t size_of(std::string_view text) { return text.size(); }

std::size_t size_of(std::ifstream& file) {
  file.clear();
  file.seekg(0, std::ios::end);
  return static_cast<std::size_t>(file.tellg());
}

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

bool is_blank(std::ifstream& file) {
  std::array<char, 4096> piece{};
  bool blank = true;
  while (blank && file) {
    file.read(piece.data(), piece.size());
    blank = is_blank(std::string_view(piece.data(), static_cast<std::size_t>(file.gcount())));
  }
  file.clear();
  file.seekg(0);
  return blank;
}

/// What `parse` returns. Throws InputError in its place for a text that is not JSON.
template <typename Text, typename Parse>
auto parsed(Text& text, const std::string& source, const Parse& parse) {
  if (is_blank(text)) throw InputError(source, "", "is empty, expected a JSON object");
  try {
    return parse();
  } catch (const Json::parse_error& error) {
    const std::size_t byte = error.byte > 0 ? error.byte - 1 : 0;
    std::string reason = error.what();
    if (byte >= size_of(text)) {
      reason = "the text ends too early; is the file cut off?";
    } else if (const auto start = reason.find(": ", reason.find("] ")); start != std::string::npos) {
      reason = reason.substr(start + 2);
    }
    throw InputError(source, location_in(text, byte), "not valid JSON: " + reason);
  } catch (const Json::exception& error) {  // a number too large for a double
    std::string reason = error.what();
    if (const auto start = reason.find("] "); start != std::string::npos) reason = reason.substr(start + 2);
    throw InputError(source, "", "not valid JSON: " + reason);
  }
}

}  // namespace

JsonDocument::JsonDocument(std::string_view text, std::string source)
    : source_(std::move(source)), value_(parsed(text, source_, [&] { return Json::parse(text); })) {}

JsonDocument::JsonDocument(std::string_view text, std::string source, const std::vector<std::string_view>& fields,
                           const JsonEntries& entries)
    : source_(std::move(source)) {
  Builder builder(source_, fields, entries);
  parsed(text, source_, [&] { return Json::sax_parse(text, &builder); });
  value_ = builder.take_root();
  wrong_ = builder.wrong();
}

JsonDocument::JsonDocument(std::ifstream& file, std::string source, const std::vector<std::string_view>& fields,
                           const JsonEntries& entries)
    : source_(std::move(source)) {
  Builder builder(source_, fields, entries);
  parsed(file, source_, [&] { return Json::sax_parse(file, &builder); });
  value_ = builder.take_root();
  wrong_ = builder.wrong();
}

void JsonDocument::expect_entries(const char* key) const {
  root().objects(key);
  if (wrong_) std::rethrow_exception(wrong_);
}

}  // namespace dhp
