#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

// A device for tests, "late": it does what an accelerator may do, and as late as it may. Streams are queues that a
// thread works off, when is a matter of policy. Memory is the host's, poisoned when it is handed out and when it is
// freed, in the order of its stream: what reads too early or is freed too early gives NaN, and never crashes.
// docs/accelerators.md tells what it shows, and what it does not.
namespace late {

inline constexpr auto kType = c10::DeviceType::PrivateUse1;

/// When a stream works: eager: at once. lazy: only up to what somebody demands, the host that synchronises or a stream
/// that has come to a wait for it; after 20 ms without demand, one entry. random: after naps of up to 2 ms.
enum class Policy { kEager, kLazy, kRandom };
Policy parse_policy(const std::string& name);

inline constexpr c10::DeviceIndex kDevices = 8;  // of one process each, as a node has them
/// The one that is current in this thread.
c10::Device this_device();

/// A place in a stream's queue.
struct Mark {
  c10::StreamId stream = 0;
  std::uint64_t sequence = 0;
};

c10::Stream new_stream(Policy policy);
c10::Stream stream_of(c10::StreamId id);
c10::Stream current_stream();
c10::Stream exchange_stream(c10::Stream stream);  // what was current
void set_policy(c10::StreamId stream, Policy policy);
/// All streams are worked off by one thread in the order in which the host has filled them, as a device with one queue
/// does. To be called before any other use.
void make_serial();
void seed(std::uint64_t value);

Mark enqueue(c10::StreamId stream, std::function<void()> work);
Mark mark(c10::StreamId stream);  // all that is enqueued there by now
bool done(Mark at);
/// Demands it. Throws what work has thrown since the last wait of a host.
void wait_on_host(Mark at);
void wait_on_stream(c10::StreamId stream, Mark at);
void synchronize_all();
/// A kernel of so many seconds, in the current stream.
void stall(double seconds);
/// How often a lazy stream has gone on because nobody had asked for 20 ms.
std::int64_t unasked();

c10::Allocator* allocator();
c10::Allocator* pinned_allocator();
bool is_pinned(const void* pointer);
/// Keeps the block of `data` from reuse until that stream is where it is now.
void record_stream(const void* data, c10::StreamId stream);
/// As freed memory is, at once.
void poison(void* data, std::size_t bytes);

/// The same memory as a CPU tensor, which does not keep it alive, as a kernel does not.
at::Tensor host_view(const at::Tensor& tensor);
inline bool is_late(const at::Tensor& tensor) { return tensor.defined() && tensor.device().type() == kType; }

/// Waits of the host for the device, and copies that are no waits but cost staging, by operator.
void count_wait(const std::string& name);
std::map<std::string, int> take_counts();

}  // namespace late
