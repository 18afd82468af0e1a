#include <cmath>

#include "dhp/device.h"
#include "readers.h"

namespace dhp::fuzz {

void device(std::string_view text) {
  const auto parsed = unless_input_error([&] { return parse_device(text, "device.json"); });
  if (!parsed) return;
  for (const AttentionTable& table : parsed->attention) {
    const AttentionRate rate = fit_attention(table);
    require(rate.flop_per_s > 0.0 && std::isfinite(rate.flop_per_s), "a rate is a positive number");
    require(rate.token_pairs >= 0.0 && std::isfinite(rate.token_pairs), "a token's fixed work is not negative");
    require(rate.sequence_s >= 0.0 && std::isfinite(rate.sequence_s), "a sequence's fixed time is not negative");
    require(std::isfinite(attention_flop_per_s(rate, table, table.tokens.front())), "a modelled rate is finite");
    require(parsed->attention_of(table.head_dim).head_dim == table.head_dim, "the nearest table is the table itself");
  }
}

}  // namespace dhp::fuzz
