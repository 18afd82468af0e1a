// What torch asks a device of its own for: streams, events, and where memory comes from.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>
#include <memory>

#include "device.h"

namespace late {
namespace {

using Clock = std::chrono::steady_clock;

thread_local c10::DeviceIndex current_device = 0;

struct Event {
  Mark at;
  std::shared_ptr<Clock::time_point> reached;
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto index = device.index() < 0 ? c10::DeviceIndex(0) : device.index();
    return {kType, std::exchange(current_device, index)};
  }
  c10::Device getDevice() const override { return this_device(); }
  void setDevice(c10::Device device) const override { exchangeDevice(device); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { exchangeDevice(device); }
  c10::Stream getStream(c10::Device) const override { return current_stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream_of(0); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override { return new_stream(Policy::kLazy); }
  c10::Stream getNewStream(c10::Device, int) const override { return new_stream(Policy::kLazy); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return exchange_stream(stream); }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex, c10::EventFlag) const override {
    if (*event == nullptr) *event = new Event;
    auto reached = std::make_shared<Clock::time_point>();
    auto& recorded = *static_cast<Event*>(*event);
    recorded.reached = reached;
    recorded.at = enqueue(stream.id(), [reached] { *reached = Clock::now(); });
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) wait_on_stream(stream.id(), static_cast<Event*>(event)->at);
  }
  bool queryEvent(void* event) const override { return event == nullptr || done(static_cast<Event*>(event)->at); }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  void synchronizeEvent(void* event) const override {
    if (event == nullptr || done(static_cast<Event*>(event)->at)) return;
    count_wait("event");
    wait_on_host(static_cast<Event*>(event)->at);
  }
  double elapsedTime(void* from, void* to, c10::DeviceIndex) const override {
    const auto took = *static_cast<Event*>(to)->reached - *static_cast<Event*>(from)->reached;
    return std::chrono::duration<double, std::milli>(took).count();
  }
  bool queryStream(const c10::Stream& stream) const override { return done(mark(stream.id())); }
  void synchronizeStream(const c10::Stream& stream) const override { wait_on_host(mark(stream.id())); }
  void synchronizeDevice(c10::DeviceIndex) const override { synchronize_all(); }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    record_stream(data.get(), stream.id());
  }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  void setCurrentDevice(c10::DeviceIndex device) const override { current_device = device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return std::exchange(current_device, device);
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override { return exchangeDevice(device); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override {
    static auto* generator = new at::Generator(at::detail::createCPUGenerator());
    return *generator;
  }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
};

const bool registered = [] {
  c10::SetAllocator(kType, allocator());
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  return true;
}();

}  // namespace

c10::Device this_device() { return {kType, current_device}; }

}  // namespace late
