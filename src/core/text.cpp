#include "core/text.h"

namespace dhp {

std::string grouped(std::int64_t number) {
  constexpr std::size_t kGroup = 3;
  std::string text = std::to_string(number);
  const std::size_t sign = number < 0 ? 1 : 0;
  for (std::size_t at = text.size(); at > sign + kGroup;) text.insert(at -= kGroup, 1, ',');
  return text;
}

std::string ranks_text(int ranks) { return std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks"); }

}  // namespace dhp
