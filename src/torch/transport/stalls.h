#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <mutex>
#include <optional>
#include <utility>
#include <vector>

namespace dhp::rt {

/// How long the current stream of a device had nothing to do because this rank waited for others: an event before and
/// one after each wait, of the stream for a transfer, or of the host for a message. A stream that still has work while
/// the host waits comes to both events at once. Nobody waits for the events: seconds are read when the host has waited
/// for the device anyway.
class Stalls {
 public:
  /// From here on, waits belong to a new span, until `end`.
  void begin();
  void end();
  /// Of each span since the last call, in order. Waits for the device where it is not that far.
  std::vector<double> take_seconds();

  /// Around a wait. Does nothing on a CPU, or outside of a span.
  class Wait {
   public:
    Wait(Stalls& stalls, c10::Device device);
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

   private:
    Stalls& stalls_;
    const c10::Device device_;
    std::optional<c10::Event> before_;
  };

 private:
  using Pair = std::pair<c10::Event, c10::Event>;

  bool is_measuring();
  void add(Pair pair);

  std::mutex mutex_;  // backward passes wait in the thread of autograd
  bool is_measuring_ = false;
  std::vector<std::vector<Pair>> spans_;
};

}  // namespace dhp::rt
