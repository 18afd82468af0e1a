#include "base/text.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace dhp {
namespace {

/// Bytes of the UTF-8 character at the start of a text; 0 if there is none.
std::size_t character_size(std::string_view text) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const std::size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (text.size() < size) return 0;
  // The second byte rules out overlong forms, surrogates and what lies beyond the last character.
  const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < size; ++i) {
    if ((byte(i) & 0xc0U) != 0x80U) return 0;
  }
  return size;
}

/// The character of these bytes, which are UTF-8.
unsigned code_of(std::string_view bytes) {
  const unsigned first = static_cast<unsigned char>(bytes[0]);
  if (bytes.size() == 1) return first;
  unsigned code = first & (0xffU >> (bytes.size() + 1));
  for (const char byte : bytes.substr(1)) code = code << 6U | (static_cast<unsigned char>(byte) & 0x3fU);
  return code;
}

bool steers(unsigned code) {
  constexpr std::array<std::pair<unsigned, unsigned>, 8> kRanges = {{{0x00, 0x08},
                                                                     {0x0b, 0x1f},
                                                                     {0x7f, 0x9f},
                                                                     {0x61c, 0x61c},
                                                                     {0x200e, 0x200f},
                                                                     {0x2028, 0x202e},
                                                                     {0x2066, 0x2069},
                                                                     {0xfff9, 0xfffb}}};
  return std::any_of(kRanges.begin(), kRanges.end(),
                     [&](const auto& range) { return code >= range.first && code <= range.second; });
}

std::string escaped(std::string_view text, bool json) {
  std::string result;
  while (!text.empty()) {
    const std::size_t size = character_size(text);
    const unsigned code = size > 0 ? code_of(text.substr(0, size)) : 0xfffd;
    if (size == 0) {
      result += "\xef\xbf\xbd";
    } else if (steers(code)) {
      std::array<char, 8> escape{};
      std::snprintf(escape.data(), escape.size(), json || code > 0xff ? "\\u%04x" : "\\x%02x", code);
      result += escape.data();
    } else {
      result += text.substr(0, size);
    }
    text.remove_prefix(size > 0 ? size : 1);
  }
  return result;
}

}  // namespace

std::string printable(std::string_view text) { return escaped(text, false); }

std::string on_one_line(std::string_view text) {
  std::string line;
  for (const char c : printable(text)) line += c == '\n' ? "\\n" : c == '\t' ? "\\t" : std::string(1, c);
  return line;
}

std::string printable_json(std::string_view json) { return escaped(json, true); }

std::string grouped(std::int64_t number) {
  constexpr std::size_t kGroup = 3;
  std::string text = std::to_string(number);
  const std::size_t sign = number < 0 ? 1 : 0;
  for (std::size_t at = text.size(); at > sign + kGroup;) text.insert(at -= kGroup, 1, ',');
  return text;
}

std::string ranks_text(int ranks) { return std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks"); }

}  // namespace dhp
