#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>

#include "device.h"

namespace late {
namespace {

constexpr std::size_t kAlignment = 512;  // bytes, as CUDA's allocator

/// Never returned to the system: late work that still uses it must be wrong, not crash.
struct Block {
  void* pointer = nullptr;
  std::size_t bytes = 0;
  c10::StreamId stream = 0;  ///< whose order protects reuse
  std::vector<c10::StreamId> users = {};
};

/// Blocks by stream and size, reused last in, first out.
struct Pool {
  std::mutex mutex;  // guards all below
  std::map<std::pair<c10::StreamId, std::size_t>, std::vector<Block*>> free;
  std::unordered_map<const void*, Block*> used;
  std::vector<std::pair<Block*, std::vector<Mark>>> awaited;  // freed, but other streams are still to get somewhere
};

Pool& pool() {
  static auto* instance = new Pool;
  return *instance;
}

std::size_t rounded(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

/// `bytes` is a multiple of `alignment`.
void* allocate_host(std::size_t alignment, std::size_t bytes) {
  void* pointer = std::aligned_alloc(alignment, bytes);
  if (pointer == nullptr) throw std::bad_alloc();
  return pointer;
}

void poison_in_order(const Block& block) {
  enqueue(block.stream, [pointer = block.pointer, bytes = block.bytes] { poison(pointer, bytes); });
}

/// With the lock. As if somebody else got the block at once, which the order of the stream allows.
void reuse(Pool& p, Block* block) {
  poison_in_order(*block);
  p.free[{block->stream, block->bytes}].push_back(block);
}

void reuse_awaited(Pool& p) {
  std::erase_if(p.awaited, [&](const auto& entry) {
    for (const Mark at : entry.second) {
      if (!done(at)) return false;
    }
    reuse(p, entry.first);
    return true;
  });
}

void release(void* context) {
  auto* block = static_cast<Block*>(context);
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  p.used.erase(block->pointer);
  if (block->users.empty()) return reuse(p, block);
  std::vector<Mark> marks;
  for (const c10::StreamId user : std::exchange(block->users, {})) marks.push_back(mark(user));
  p.awaited.emplace_back(block, std::move(marks));
}

struct LateAllocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    const c10::Device device = this_device();
    if (bytes == 0) return {nullptr, nullptr, [](void*) {}, device};
    const std::size_t room = rounded(bytes, kAlignment);
    const c10::StreamId stream = current_stream().id();
    Pool& p = pool();
    std::lock_guard lock(p.mutex);
    reuse_awaited(p);
    auto& free = p.free[{stream, room}];
    if (free.empty()) free.push_back(new Block{allocate_host(kAlignment, room), room, stream});
    Block* block = free.back();
    free.pop_back();
    poison_in_order(*block);
    p.used[block->pointer] = block;
    return {block->pointer, block, release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    enqueue(current_stream().id(), [=] { std::memcpy(to, from, bytes); });
  }
};

struct Pinned {
  std::mutex mutex;
  std::map<const char*, std::size_t> blocks;  // by address
};

Pinned& pinned() {
  static auto* instance = new Pinned;
  return *instance;
}

/// Freed memory stays, since late work may still read it, and is poison: nothing orders the host's memory.
struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    const std::size_t room = rounded(std::max<std::size_t>(bytes, 1), 64);
    auto* pointer = static_cast<char*>(allocate_host(64, room));
    std::lock_guard lock(pinned().mutex);
    pinned().blocks[pointer] = room;
    const auto free = [](void* freed) {
      std::lock_guard freeing(pinned().mutex);
      poison(freed, pinned().blocks[static_cast<char*>(freed)]);
    };
    return {pointer, pointer, free, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { std::memcpy(to, from, bytes); }
};

}  // namespace

void poison(void* data, std::size_t bytes) { std::memset(data, 0xFF, bytes); }  // NaN, and -1

c10::Allocator* allocator() {
  static auto* instance = new LateAllocator;
  return instance;
}

c10::Allocator* pinned_allocator() {
  static auto* instance = new PinnedAllocator;
  return instance;
}

bool is_pinned(const void* pointer) {
  std::lock_guard lock(pinned().mutex);
  const auto behind = pinned().blocks.upper_bound(static_cast<const char*>(pointer));
  if (behind == pinned().blocks.begin()) return false;
  const auto& [begin, bytes] = *std::prev(behind);
  return pointer < begin + bytes;
}

void record_stream(const void* data, c10::StreamId stream) {
  Pool& p = pool();
  std::lock_guard lock(p.mutex);
  const auto found = p.used.find(data);
  if (found != p.used.end() && found->second->stream != stream) found->second->users.push_back(stream);
}

}  // namespace late
