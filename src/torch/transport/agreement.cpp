#include "torch/transport/agreement.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <bit>
#include <sstream>

namespace dhp::rt {
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

Signature::Signature(std::string operation) : operation_(std::move(operation)) { add("operation", operation_); }

void Signature::add_word(const char* name, std::int64_t word, std::string shown) {
  TORCH_INTERNAL_ASSERT(size_ < kSignatureWords);
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

void Signature::add(const char* name, const std::string& text) {
  add_word(name, hash_bytes(text.data(), text.size()), text);
}

std::string Signature::difference(const SignatureWords& other) const {
  for (std::size_t i = 0; i < size_; ++i) {
    if (words_[i] == other[i]) continue;
    const std::string name = names_[i];
    if (!shown_[i].empty()) return name + ": " + shown_[i] + " here, something else there";
    return name + ": " + std::to_string(words_[i]) + " here, " + std::to_string(other[i]) + " there";
  }
  return "";
}

void agree(Transport& transport, std::span<const Greeting> greetings, const std::string& doing) {
  if (!transport.has_peers()) return;
  const auto options = at::TensorOptions().dtype(at::kLong);
  const std::string comparing = doing + ", comparing the call with the others'";
  struct Incoming {
    const Greeting* greeting;
    at::Tensor buffer;
    std::unique_ptr<Ticket> ticket;
  };
  std::vector<Incoming> incoming;
  std::vector<Transfer> sends;
  for (const Greeting& greeting : greetings) {
    at::Tensor buffer = at::empty({kSignatureWords}, options);
    const Transfer transfer{greeting.direction, greeting.peer, Role::kHeader, buffer};
    if (greeting.direction == Direction::kReceive) {
      incoming.push_back({&greeting, buffer, transport.post({&transfer, 1}, comparing)});
    } else {
      std::memcpy(buffer.mutable_data_ptr(), greeting.signature->words().data(), sizeof(SignatureWords));
      sends.push_back(transfer);
    }
  }
  const auto sending = transport.post(sends, comparing);
  // What came is looked at before the sends are waited for, and one by one: a peer that makes another call may neither
  // take what is sent to it nor send what is expected.
  for (const auto& [greeting, buffer, ticket] : incoming) {
    ticket->wait();
    SignatureWords words{};
    std::memcpy(words.data(), buffer.const_data_ptr(), sizeof(words));
    const std::string difference = greeting->signature->difference(words);
    if (difference.empty()) continue;
    const std::string message = describe_rank(transport) + " and rank " + std::to_string(greeting->peer) +
                                " disagree about " + greeting->signature->operation() + ": " + difference +
                                " (here is rank " + std::to_string(transport.rank()) + ")";
    transport.record_failure(message);
    C10_THROW_ERROR(DistError, message);
  }
  sending->wait();
}

}  // namespace dhp::rt
