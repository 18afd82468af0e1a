#include "torch/agreement.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <bit>
#include <sstream>

namespace dhp {
namespace {

constexpr std::uint64_t kFnvOffset = 14695981039346656037ULL;
constexpr std::uint64_t kFnvPrime = 1099511628211ULL;

/// FNV-1a (RFC 9923), 64 bits.
std::int64_t hash_bytes(const void* data, std::size_t size) {
  std::uint64_t hash = kFnvOffset;
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (std::size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * kFnvPrime;
  return std::bit_cast<std::int64_t>(hash);
}

std::string show(std::span<const std::int64_t> values) {
  constexpr std::size_t kShown = 8;
  std::ostringstream text;
  text << "[";
  for (std::size_t i = 0; i < std::min(values.size(), kShown); ++i) text << (i > 0 ? ", " : "") << values[i];
  if (values.size() > kShown) text << ", ... " << values.size() << " in all";
  text << "]";
  return text.str();
}

}  // namespace

Signature::Signature(std::string operation) : operation_(std::move(operation)) {
  add_word("operation", hash_bytes(operation_.data(), operation_.size()), operation_);
}

void Signature::add_word(const char* name, std::int64_t word, std::string shown) {
  TORCH_INTERNAL_ASSERT(size_ < kWords);
  names_[size_] = name;
  words_[size_] = word;
  shown_[size_] = std::move(shown);
  ++size_;
}

void Signature::add(const char* name, std::int64_t value) { add_word(name, value, ""); }

void Signature::add(const char* name, double value) {
  add_word(name, std::bit_cast<std::int64_t>(value), std::to_string(value));
}

void Signature::add(const char* name, std::span<const std::int64_t> values) {
  add_word(name, hash_bytes(values.data(), values.size_bytes()), show(values));
}

std::string Signature::difference(const Words& other) const {
  for (std::size_t i = 0; i < size_; ++i) {
    if (words_[i] == other[i]) continue;
    const std::string name = names_[i];
    if (!shown_[i].empty()) return name + ": " + shown_[i] + " here, something else there";
    return name + ": " + std::to_string(words_[i]) + " here, " + std::to_string(other[i]) + " there";
  }
  return "";
}

void agree(Transport& transport, std::span<const Greeting> greetings, const std::string& doing) {
  const auto options = at::TensorOptions().dtype(at::kLong);
  std::vector<Transfer> sends;
  std::vector<Transfer> receives;
  std::vector<const Signature*> expected;
  for (const Greeting& greeting : greetings) {
    at::Tensor buffer = at::empty({Signature::kWords}, options);
    if (greeting.direction == Direction::kReceive) {
      receives.push_back({greeting.direction, greeting.peer, Role::kHeader, std::move(buffer)});
      expected.push_back(greeting.signature);
    } else {
      std::memcpy(buffer.mutable_data_ptr(), greeting.signature->words().data(), sizeof(Signature::Words));
      sends.push_back({greeting.direction, greeting.peer, Role::kHeader, std::move(buffer)});
    }
  }
  // What came is looked at first: a peer that makes another call may never take what is sent to it.
  const std::string comparing = doing + ", comparing the call with the others'";
  const auto receiving = transport.post(receives, comparing);
  const auto sending = transport.post(sends, comparing);
  receiving->wait();
  for (std::size_t i = 0; i < receives.size(); ++i) {
    Signature::Words words{};
    std::memcpy(words.data(), receives[i].buffer.const_data_ptr(), sizeof(words));
    const std::string difference = expected[i]->difference(words);
    if (difference.empty()) continue;
    const std::string message = describe_rank(transport) + " and rank " + std::to_string(receives[i].peer) +
                                " disagree about " + expected[i]->operation() + ": " + difference + " (here is rank " +
                                std::to_string(transport.rank()) + ")";
    transport.record_failure(message);
    C10_THROW_ERROR(DistError, message);
  }
  sending->wait();
}

}  // namespace dhp
