#include "dhp/shard.h"

#include <stdexcept>
#include <string>

namespace dhp {
namespace {

void check_arguments(std::int64_t tokens, int degree) {
  if (degree < 1) throw std::invalid_argument("shard: degree " + std::to_string(degree) + " is below 1");
  if (tokens < 0) throw std::invalid_argument("shard: length " + std::to_string(tokens) + " is negative");
}

/// Length of one of the 2 * degree chunks.
std::int64_t chunk_tokens(std::int64_t tokens, int degree) {
  const std::int64_t chunks = 2 * static_cast<std::int64_t>(degree);
  return tokens / chunks + (tokens % chunks != 0 ? 1 : 0);
}

void check_token(std::int64_t tokens, int degree, std::int64_t token) {
  const std::int64_t padded = padded_tokens(tokens, degree);
  if (token < 0 || token >= padded) {
    throw std::invalid_argument("shard: token " + std::to_string(token) + " is outside the " + std::to_string(padded) +
                                " padded tokens");
  }
}

}  // namespace

std::int64_t padded_tokens(std::int64_t tokens, int degree) {
  check_arguments(tokens, degree);
  return degree == 1 ? tokens : 2 * static_cast<std::int64_t>(degree) * chunk_tokens(tokens, degree);
}

std::int64_t shard_tokens(std::int64_t tokens, int degree) { return padded_tokens(tokens, degree) / degree; }

std::array<TokenRange, 2> shard_ranges(std::int64_t tokens, int degree, int position) {
  check_arguments(tokens, degree);
  if (position < 0 || position >= degree) {
    throw std::invalid_argument("shard: position " + std::to_string(position) + " is outside a group of " +
                                std::to_string(degree));
  }
  if (degree == 1) return {TokenRange{0, tokens}, TokenRange{tokens, tokens}};
  const std::int64_t chunk = chunk_tokens(tokens, degree);
  const std::int64_t mirror = 2 * static_cast<std::int64_t>(degree) - 1 - position;
  return {TokenRange{position * chunk, (position + 1) * chunk}, TokenRange{mirror * chunk, (mirror + 1) * chunk}};
}

int owner_of(std::int64_t tokens, int degree, std::int64_t token) {
  check_token(tokens, degree, token);
  if (degree == 1) return 0;
  const std::int64_t index = token / chunk_tokens(tokens, degree);
  return static_cast<int>(index < degree ? index : 2 * static_cast<std::int64_t>(degree) - 1 - index);
}

std::int64_t local_index_of(std::int64_t tokens, int degree, std::int64_t token) {
  check_token(tokens, degree, token);
  if (degree == 1) return token;
  const std::int64_t chunk = chunk_tokens(tokens, degree);
  const bool second = token / chunk >= degree;
  return token % chunk + (second ? chunk : 0);
}

}  // namespace dhp
