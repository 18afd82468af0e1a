#include "base/csv_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/json_reader.h"
#include "dhp/error.h"

namespace dhp {
namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) + 1 - first);
}

/// A cell as a message quotes it.
std::string shown(const std::string& cell) {
  constexpr std::size_t kMost = 60;
  return "found \"" + cell.substr(0, kMost) + "\", expected ";
}

}  // namespace

CsvReader::CsvReader(std::string_view text, std::string source) : rest_(text), source_(std::move(source)) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (rest_.starts_with(kByteOrderMark)) rest_.remove_prefix(kByteOrderMark.size());
  if (!read_row(names_)) throw InputError(source_, "", "is empty, expected a line that names the columns");
  for (std::size_t i = 0; i < names_.size(); ++i) {
    if (names_[i].empty() || std::find(names_.begin(), names_.begin() + static_cast<std::ptrdiff_t>(i), names_[i]) ==
                                 names_.begin() + static_cast<std::ptrdiff_t>(i)) {
      continue;
    }
    throw InputError(source_, place(), "names the column \"" + names_[i] + "\" twice");
  }
}

std::optional<std::size_t> CsvReader::column(std::string_view name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found == names_.end()) return std::nullopt;
  return static_cast<std::size_t>(found - names_.begin());
}

std::string CsvReader::header() const {
  std::string text;
  for (std::size_t i = 0; i < names_.size(); ++i) text += (i == 0 ? "" : ",") + names_[i];
  return text;
}

bool CsvReader::next() {
  if (!read_row(cells_)) return false;
  if (cells_.size() != names_.size()) {
    throw InputError(source_, place(),
                     "found " + std::to_string(cells_.size()) + " cells, expected " + std::to_string(names_.size()) +
                         " as in the header");
  }
  return true;
}

/// Blank lines are skipped. False at the end of the text.
bool CsvReader::read_row(std::vector<std::string>& cells) {
  for (;;) {
    if (rest_.empty()) return false;
    const std::size_t end = rest_.find('\n');
    if (!trimmed(rest_.substr(0, end)).empty()) break;
    rest_.remove_prefix(end == std::string_view::npos ? rest_.size() : end + 1);
    ++next_line_;
  }
  line_ = next_line_;
  cells.clear();
  for (;;) {
    cells.push_back(read_cell());
    if (rest_.empty()) return true;
    const char separator = rest_.front();
    rest_.remove_prefix(1);
    if (separator == ',') continue;
    ++next_line_;
    return true;
  }
}

/// Up to a comma or a line's end, which stay in the rest.
std::string CsvReader::read_cell() {
  const std::size_t first = rest_.find_first_not_of(kBlanks);
  if (first != std::string_view::npos && rest_[first] == '"') {
    rest_.remove_prefix(first + 1);
    return read_quoted();
  }
  const std::size_t end = std::min(rest_.find_first_of(",\n"), rest_.size());
  std::string cell(trimmed(rest_.substr(0, end)));
  rest_.remove_prefix(end);
  return cell;
}

std::string CsvReader::read_quoted() {
  std::string cell;
  for (;;) {
    const std::size_t quote = rest_.find('"');
    if (quote == std::string_view::npos) {
      throw InputError(source_, place(), "has a quote that is not closed");
    }
    const std::string_view part = rest_.substr(0, quote);
    next_line_ += std::count(part.begin(), part.end(), '\n');
    cell += part;
    rest_.remove_prefix(quote + 1);
    if (!rest_.starts_with('"')) break;
    cell += '"';
    rest_.remove_prefix(1);
  }
  const std::size_t end = std::min(rest_.find_first_of(",\n"), rest_.size());
  if (!trimmed(rest_.substr(0, end)).empty()) {
    throw InputError(source_, place(), "has text after a closing quote, expected a comma or the line's end");
  }
  rest_.remove_prefix(end);
  return cell;
}

double CsvReader::number(std::size_t column, double low, double high) const {
  const std::string& text = cell(column);
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= low && value <= high) return value;
  fail(column, shown(text) + "a number from " + format_number(low) + " to " + format_number(high));
}

std::int64_t CsvReader::whole(std::size_t column, std::int64_t low, std::int64_t high) const {
  const std::string& text = cell(column);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= low && value <= high) return value;
  fail(column, shown(text) + "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
}

void CsvReader::fail(std::size_t column, const std::string& problem) const {
  throw InputError(source_, place() + ": " + names_[column], problem);
}

}  // namespace dhp
