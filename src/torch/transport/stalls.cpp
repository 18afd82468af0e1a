#include "torch/transport/stalls.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <exception>

namespace dhp::rt {
namespace {

/// In the current stream, with a time.
c10::Event timed_event(c10::Device device) {
  c10::Event event(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  event.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  return event;
}

}  // namespace

void Stalls::begin() {
  const std::lock_guard lock(mutex_);
  is_measuring_ = true;
  spans_.emplace_back();
}

void Stalls::end() {
  const std::lock_guard lock(mutex_);
  is_measuring_ = false;
}

std::vector<double> Stalls::take_seconds() {
  std::vector<std::vector<Pair>> spans;
  {
    const std::lock_guard lock(mutex_);
    is_measuring_ = false;
    spans.swap(spans_);
  }
  constexpr double kSecondsPerMillisecond = 1e-3;
  std::vector<double> seconds;
  for (const auto& span : spans) {
    double sum = 0.0;
    for (const auto& [before, after] : span) {
      if (!after.query()) after.synchronize();
      sum += before.elapsedTime(after) * kSecondsPerMillisecond;
    }
    seconds.push_back(sum);
  }
  return seconds;
}

bool Stalls::is_measuring() {
  const std::lock_guard lock(mutex_);
  return is_measuring_;
}

void Stalls::add(Pair pair) {
  const std::lock_guard lock(mutex_);
  if (is_measuring_) spans_.back().push_back(std::move(pair));
}

Stalls::Wait::Wait(Stalls& stalls, c10::Device device) : stalls_(stalls), device_(device) {
  if (!device.is_cpu() && stalls.is_measuring()) before_ = timed_event(device);
}

Stalls::Wait::~Wait() {
  if (!before_) return;
  try {
    stalls_.add({std::move(*before_), timed_event(device_)});
  } catch (const std::exception&) {
    // The device has failed: the next call to it says so.
  }
}

}  // namespace dhp::rt
