#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "torch/transport/agreed_calls.h"
#include "torch/transport/transport.h"

namespace dhp::rt {

/// What the members of a group must have in common to exchange bulk data: a few numbers, sent ahead of it. A carrier
/// answers a difference in byte counts by ending the process, so ranks that disagree must find out first.
class Signature {
 public:
  /// `operation` reads "ring_attention forward"; it is compared like every other value.
  explicit Signature(std::string operation);

  void add(const char* name, std::int64_t value);
  void add(const char* name, double value);
  /// Of a list or a text only a hash travels; the message of a difference shows this rank's.
  void add(const char* name, std::span<const std::int64_t> values);
  void add(const char* name, const std::string& text);

  const std::string& operation() const { return operation_; }
  const SignatureWords& words() const { return words_; }

  /// Empty if equal, else what differs: "k heads: 8 here, 4 there".
  std::string difference(const SignatureWords& other) const;

 private:
  void add_word(const char* name, std::int64_t word, std::string shown);

  std::string operation_;
  SignatureWords words_{};
  std::size_t size_ = 0;
  std::array<const char*, kSignatureWords> names_{};
  std::array<std::string, kSignatureWords> shown_;
};

/// A signature that goes to a peer, or that must come from it.
struct Greeting {
  int peer;
  Direction direction;
  const Signature* signature;
};

/// Exchanges the signatures and compares what comes with what is expected, in the order of the greetings; throws
/// c10::DistError on the first difference, recorded for all ranks, naming both.
void agree(Transport& transport, std::span<const Greeting> greetings, const std::string& doing);

}  // namespace dhp::rt
