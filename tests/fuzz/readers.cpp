#include "readers.h"

#include <cstdio>
#include <cstdlib>

namespace dhp::fuzz {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}

bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned first = byte(i);
    std::size_t length = 1;
    if (first >= 0x80) {
      if (first < 0xc2 || first > 0xf4) return false;
      length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
      if (i + length > text.size()) return false;
      const unsigned second = byte(i + 1);
      const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;   // no overlong forms
      const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;  // no surrogates, none beyond the last
      if (second < low || second > high) return false;
      for (std::size_t k = i + 2; k < i + length; ++k) {
        if ((byte(k) & 0xc0U) != 0x80U) return false;
      }
    }
    i += length;
  }
  return true;
}

}  // namespace dhp::fuzz
