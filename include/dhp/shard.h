#pragma once

#include <array>
#include <cstdint>

namespace dhp {

/// Zigzag sharding. A sequence on a group of `degree` ranks is padded at its end to a multiple of 2*degree (degree 1:
/// not at all) and cut into 2*degree equal chunks; the rank at ring position r holds chunks r and 2*degree-1-r, in that
/// order. Example, degree 3 and 12 padded tokens: position 0 holds 0,1,10,11; position 1 holds 2,3,8,9; position 2
/// holds 4,5,6,7. Every position then has the same causal attention work.
///
/// All functions throw std::invalid_argument for a degree below 1, a position outside the group or a negative length.

/// Half-open range of token indices.
struct TokenRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  std::int64_t size() const { return end - begin; }
  bool operator==(const TokenRange&) const = default;
};

/// Length after padding.
std::int64_t padded_tokens(std::int64_t tokens, int degree);

/// Tokens each member of the group holds, pads included.
std::int64_t shard_tokens(std::int64_t tokens, int degree);

/// The ranges that a position holds, in local order; indices at or beyond `tokens` are pads. For degree 1 the second
/// range is empty.
std::array<TokenRange, 2> shard_ranges(std::int64_t tokens, int degree, int position);

/// The ring position that holds a token (pads included). Throws also for a token outside the padded sequence.
int owner_of(std::int64_t tokens, int degree, std::int64_t token);

/// The position of a token in its owner's shard.
std::int64_t local_index_of(std::int64_t tokens, int degree, std::int64_t token);

}  // namespace dhp
