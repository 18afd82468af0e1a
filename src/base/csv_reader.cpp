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
    throw InputError(source_, location(), "names the column \"" + names_[i] + "\" twice");
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
    throw InputError(source_, location(),
                     "found " + std::to_string(cells_.size()) + " cells, expected " + std::to_string(names_.size()) +
                         " as in the header");
  }
  return true;
}

/// Blank lines are skipped. False at the end of the text.
bool CsvReader::read_row(std::vector<std::string>& cells) {
  cells.clear();
  while (!rest_.empty()) {
    const std::size_t end = std::min(rest_.find('\n'), rest_.size());
    std::string_view row = trimmed(rest_.substr(0, end));
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    ++line_;
    if (row.empty()) continue;
    if (row.find('"') != std::string_view::npos) {
      throw InputError(
          source_, location(),
          "has a quoted cell, expected bare cells between commas; leave out columns of text, and the quotes "
          "around numbers and names of columns");
    }
    for (;;) {
      const std::size_t comma = std::min(row.find(','), row.size());
      cells.emplace_back(trimmed(row.substr(0, comma)));
      if (comma == row.size()) return true;
      row.remove_prefix(comma + 1);
    }
  }
  return false;
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
  throw InputError(source_, location() + ": " + names_[column], problem);
}

}  // namespace dhp
