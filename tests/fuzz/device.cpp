#include <cmath>

#include "dhp/device.h"
#include "readers.h"

namespace dhp::fuzz {

void device(std::string_view text) {
  const auto parsed = unless_input_error([&] { return parse_device(text, "device.json"); });
  if (!parsed) return;
  for (const AttentionRate& rate : parsed->attention) {
    require(rate.flop_per_s > 0.0 && std::isfinite(rate.flop_per_s), "a rate is a positive number");
    require(rate.token_pairs >= 0.0 && std::isfinite(rate.token_pairs), "a token's fixed work is not negative");
    require(rate.sequence_s >= 0.0 && std::isfinite(rate.sequence_s), "a sequence's fixed time is not negative");
    require(parsed->attention_of(rate.head_dim).head_dim == rate.head_dim, "the nearest rate is the rate itself");
  }
}

}  // namespace dhp::fuzz
