#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <stdexcept>
#include <thread>

#include "device.h"

namespace late {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(20);

struct Queue {
  std::deque<std::function<void()>> work;
  std::uint64_t enqueued = 0;
  std::uint64_t finished = 0;
  std::uint64_t demanded = 0;
  Policy policy = Policy::kLazy;
  bool has_thread = false;
};

struct Machine {
  std::mutex mutex;  // guards all below
  std::condition_variable changed;
  std::map<c10::StreamId, Queue> queues;
  c10::StreamId next_stream = 1;
  bool serial = false;
  std::exception_ptr error;  // the first since a host has waited
  std::mt19937_64 random{7};
  std::int64_t unasked = 0;
};

Machine& machine() {
  static auto* instance = new Machine;  // threads outlive main
  return *instance;
}

thread_local c10::StreamId current = 0;

void nap(Machine& m, std::unique_lock<std::mutex>& lock) {
  const auto length = std::chrono::microseconds(m.random() % 4 == 0 ? m.random() % 2000 : 0);
  lock.unlock();
  std::this_thread::sleep_for(length);
  lock.lock();
}

void run(Queue& queue) {
  Machine& m = machine();
  std::unique_lock lock(m.mutex);
  while (true) {
    m.changed.wait(lock, [&] { return !queue.work.empty(); });
    const auto is_wanted = [&] { return queue.policy != Policy::kLazy || queue.demanded > queue.finished; };
    if (queue.policy == Policy::kRandom) nap(m, lock);
    if (!m.changed.wait_for(lock, kPatience, is_wanted)) ++m.unasked;
    auto work = std::move(queue.work.front());
    queue.work.pop_front();
    lock.unlock();
    std::exception_ptr error;
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    work = nullptr;  // what it holds may free memory, which locks
    lock.lock();
    if (error && !m.error) m.error = error;
    ++queue.finished;
    m.changed.notify_all();
  }
}

/// With the lock.
Queue& queue_of(Machine& m, c10::StreamId id) {
  Queue& queue = m.queues[m.serial ? 0 : id];
  if (!queue.has_thread) std::thread([&queue] { run(queue); }).detach();
  queue.has_thread = true;  // not where there was none to be had: the next call tries again
  return queue;
}

void demand_and_wait(Mark at, std::unique_lock<std::mutex>& lock) {
  Machine& m = machine();
  Queue& queue = queue_of(m, at.stream);
  queue.demanded = std::max(queue.demanded, at.sequence);
  m.changed.notify_all();
  m.changed.wait(lock, [&] { return queue.finished >= at.sequence; });
}

}  // namespace

Policy parse_policy(const std::string& name) {
  if (name == "eager") return Policy::kEager;
  if (name == "lazy") return Policy::kLazy;
  if (name == "random") return Policy::kRandom;
  throw std::invalid_argument("no policy of streams: " + name);
}

c10::Stream stream_of(c10::StreamId id) { return c10::Stream(c10::Stream::UNSAFE, this_device(), id); }

c10::Stream new_stream(Policy policy) {
  Machine& m = machine();
  std::lock_guard lock(m.mutex);
  const c10::StreamId id = m.next_stream++;
  queue_of(m, id).policy = policy;
  return stream_of(id);
}

c10::Stream current_stream() { return stream_of(current); }

c10::Stream exchange_stream(c10::Stream stream) { return stream_of(std::exchange(current, stream.id())); }

void set_policy(c10::StreamId stream, Policy policy) {
  Machine& m = machine();
  std::lock_guard lock(m.mutex);
  queue_of(m, stream).policy = policy;
  m.changed.notify_all();
}

void make_serial() {
  Machine& m = machine();
  std::lock_guard lock(m.mutex);
  if (!m.queues.empty()) throw std::logic_error("make_serial: there are streams already");
  m.serial = true;
}

void seed(std::uint64_t value) {
  std::lock_guard lock(machine().mutex);
  machine().random.seed(value);
}

Mark enqueue(c10::StreamId stream, std::function<void()> work) {
  Machine& m = machine();
  std::lock_guard lock(m.mutex);
  Queue& queue = queue_of(m, stream);
  queue.work.push_back(std::move(work));
  m.changed.notify_all();
  return {stream, ++queue.enqueued};
}

Mark mark(c10::StreamId stream) {
  Machine& m = machine();
  std::lock_guard lock(m.mutex);
  return {stream, queue_of(m, stream).enqueued};
}

bool done(Mark at) {
  Machine& m = machine();
  std::lock_guard lock(m.mutex);
  return queue_of(m, at.stream).finished >= at.sequence;
}

void wait_on_host(Mark at) {
  Machine& m = machine();
  std::unique_lock lock(m.mutex);
  demand_and_wait(at, lock);
  if (m.error) std::rethrow_exception(std::exchange(m.error, nullptr));
}

void wait_on_stream(c10::StreamId stream, Mark at) {
  if (stream == at.stream || machine().serial) return;
  enqueue(stream, [at] {
    std::unique_lock lock(machine().mutex);
    demand_and_wait(at, lock);
  });
}

void synchronize_all() {
  Machine& m = machine();
  std::vector<Mark> marks;
  {
    std::lock_guard lock(m.mutex);
    for (const auto& [id, queue] : m.queues) marks.push_back({id, queue.enqueued});
  }
  for (const Mark at : marks) wait_on_host(at);
}

void stall(double seconds) {
  enqueue(current, [seconds] { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); });
}

std::int64_t unasked() {
  std::lock_guard lock(machine().mutex);
  return machine().unasked;
}

}  // namespace late
