#pragma once

#include <string>

namespace dhp {

/// What `text_of` makes of each value, with commas between: "ring, direct". For messages that say what is known.
template <typename Values, typename TextOf>
std::string listed(const Values& values, const TextOf& text_of) {
  std::string text;
  for (const auto& value : values) {
    if (!text.empty()) text += ", ";
    text += text_of(value);
  }
  return text;
}

}  // namespace dhp
