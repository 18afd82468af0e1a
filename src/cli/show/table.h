#pragma once

#include <string>
#include <vector>

#include "base/text.h"

namespace dhp::cli {

/// Rows of text under headings, in columns as wide as their contents. A row may have fewer cells than there are
/// headings; its last cell may then run on to the right.
class TextTable {
 public:
  enum class Align { left, right };
  struct Column {
    std::string heading;
    Align align = Align::right;
  };

  explicit TextTable(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void add(std::vector<std::string> cells) {
    for (std::string& cell : cells) cell = on_one_line(cell);
    rows_.push_back(std::move(cells));
  }

  /// Headings and rows, each line ended, nothing but text at a line's end. `indent` stands before every line.
  std::string text(const std::string& indent = "") const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// Characters of UTF-8 text.
std::size_t width_of(const std::string& text);

}  // namespace dhp::cli
