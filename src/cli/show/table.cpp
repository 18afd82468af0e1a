#include "cli/show/table.h"

#include <algorithm>

namespace dhp::cli {

std::size_t width_of(const std::string& text) {
  constexpr unsigned kMask = 0xC0;
  constexpr unsigned kContinuation = 0x80;
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & kMask) != kContinuation; }));
}

std::string TextTable::text(const std::string& indent) const {
  std::vector<std::string> headings;
  std::vector<std::size_t> widths;
  for (const Column& column : columns_) {
    headings.push_back(column.heading);
    widths.push_back(width_of(column.heading));
  }
  for (const std::vector<std::string>& row : rows_) {
    // The last cell of a short row does not widen its column.
    const std::size_t counted = row.size() < columns_.size() ? row.size() - 1 : row.size();
    for (std::size_t i = 0; i < counted; ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string text;
  const auto add_row = [&](const std::vector<std::string>& row) {
    std::string line = indent;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const bool runs_on = i + 1 == row.size() && row.size() < columns_.size();
      const std::size_t width = width_of(row[i]);
      const std::string pad(runs_on || width > widths[i] ? 0 : widths[i] - width, ' ');
      if (i > 0) line += "  ";
      line += columns_[i].align == Align::right ? pad + row[i] : row[i] + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  };
  add_row(headings);
  for (const std::vector<std::string>& row : rows_) add_row(row);
  return text;
}

}  // namespace dhp::cli
