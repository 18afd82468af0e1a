#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dhp {

/// CSV with a header, row by row: bare cells between commas. A byte order mark, blank lines and spaces around cells are
/// let pass, quotes are refused. Complaints name file, line, column, found value and expectation:
///
///     CsvReader csv(text, "clips.csv");
///     const auto duration = csv.column("duration_s");
///     while (csv.next()) csv.number(*duration, 0.0, 1e6);
///     // clips.csv: line 7: duration_s: found "abc", expected a number from 0 to 1e+06
class CsvReader {
 public:
  /// Throws InputError where there is no header. `text` must outlive the reader.
  CsvReader(std::string_view text, std::string source);

  std::optional<std::size_t> column(std::string_view name) const;
  /// The header as written, for messages.
  std::string header() const;

  /// Goes to the next row; false after the last. Throws InputError for a row with other than the header's number of
  /// cells, and for quotes.
  bool next();

  const std::string& cell(std::size_t column) const { return cells_[column]; }
  double number(std::size_t column, double low, double high) const;
  std::int64_t whole(std::size_t column, std::int64_t low, std::int64_t high) const;
  std::int64_t line() const { return line_; }
  /// "line 7"
  std::string location() const { return "line " + std::to_string(line_); }
  [[noreturn]] void fail(std::size_t column, const std::string& problem) const;

 private:
  bool read_row(std::vector<std::string>& cells);

  std::string_view rest_;
  std::string source_;
  std::vector<std::string> names_;
  std::vector<std::string> cells_;
  std::int64_t line_ = 0;  ///< of the row
};

}  // namespace dhp
