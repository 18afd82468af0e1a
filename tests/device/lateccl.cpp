#include "lateccl.h"

#include <ATen/ATen.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "contacts.h"

namespace late {
namespace {

std::atomic<Fault> fault = Fault::kNone;  // tests set it while autograd's thread posts
std::atomic<bool> coalescing = true;

/// Of all backends that there were, in the order in which they were made; to be told of when they are gone.
struct AllContacts {
  std::mutex mutex;  // guards all below
  std::vector<std::shared_ptr<Contacts>> by_backend;
};

AllContacts& all_contacts() {
  static auto* instance = new AllContacts;  // threads outlive main
  return *instance;
}

/// Of one group, shared by its stream's entries.
struct Communicator {
  explicit Communicator(c10::intrusive_ptr<c10d::Backend> of) : carrier(std::move(of)) {}

  const c10::intrusive_ptr<c10d::Backend> carrier;
  std::mutex mutex;  // guards all below
  std::condition_variable changed;
  bool is_aborted = false;
  std::vector<c10::intrusive_ptr<c10d::Work>> under_way;
  std::exception_ptr error;  // of a transfer that stays for ever
};

class LateWork final : public c10d::Work {
 public:
  LateWork(std::shared_ptr<Communicator> of, Mark at, int rank, c10d::OpType type, std::vector<at::Tensor> outputs)
      : c10d::Work(rank, type), communicator_(std::move(of)), at_(at), outputs_(std::move(outputs)) {}

  bool isCompleted() override { return done(at_); }
  bool isSuccess() const override { return exception() == nullptr; }
  std::exception_ptr exception() const override {
    std::lock_guard lock(communicator_->mutex);
    return communicator_->error;
  }
  void synchronize() override {
    if (fault != Fault::kWait) wait_on_stream(current_stream().id(), at_);
  }
  bool wait(std::chrono::milliseconds) override {
    synchronize();
    return true;
  }
  std::vector<at::Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    const std::vector<c10::Device> devices = {this_device()};
    auto future = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::ofTensors(), devices);
    // Complete at once, with an event of the group's stream.
    const c10::Stream before = exchange_stream(stream_of(at_.stream));
    future->markCompleted(c10::IValue(outputs_));
    exchange_stream(before);
    return future;
  }

 private:
  const std::shared_ptr<Communicator> communicator_;
  const Mark at_;
  const std::vector<at::Tensor> outputs_;
};

struct Leg {
  at::Tensor buffer;  // bytes
  int peer = 0;
  bool is_send = false;
};

at::Tensor as_bytes(const at::Tensor& tensor) { return tensor.view(-1).view(at::kByte); }

/// In the handler of a broken transfer, which ends by an abort alone.
void stay(Communicator& communicator) {
  std::unique_lock lock(communicator.mutex);
  if (!communicator.is_aborted && !communicator.error) communicator.error = std::current_exception();
  communicator.changed.wait(lock, [&] { return communicator.is_aborted; });
}

/// Returns when all works are done, or the group is aborted; false then.
bool finish(Communicator& communicator, const std::vector<c10::intrusive_ptr<c10d::Work>>& works) {
  for (const auto& work : works) {
    try {
      work->wait();
    } catch (...) {
      stay(communicator);
    }
  }
  std::lock_guard lock(communicator.mutex);
  communicator.under_way.clear();
  return !communicator.is_aborted;
}

/// All legs at once; the group's next entry starts when all of them are done.
void transfer(Communicator& communicator, const std::vector<Leg>& legs) {
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  {
    std::lock_guard lock(communicator.mutex);
    for (const Leg& leg : legs) {
      if (communicator.is_aborted) break;
      std::vector<at::Tensor> buffers = {leg.buffer};
      auto& carrier = *communicator.carrier;
      works.push_back(leg.is_send ? carrier.send(buffers, leg.peer, 0) : carrier.recv(buffers, leg.peer, 0));
    }
    communicator.under_way = works;
  }
  if (finish(communicator, works)) return;
  for (const Leg& leg : legs) {
    if (!leg.is_send) poison(leg.buffer.data_ptr(), leg.buffer.nbytes());
  }
}

class LateBackend final : public c10d::Backend {
 public:
  LateBackend(const c10::intrusive_ptr<c10d::Backend>& carrier, Policy policy)
      : c10d::Backend(carrier->getRank(), carrier->getSize()),
        communicator_(std::make_shared<Communicator>(carrier)),
        contacts_(std::make_shared<Contacts>(carrier)),
        stream_(new_stream(policy).id()),
        options_(c10::make_intrusive<Options>("lateccl", std::chrono::hours(24))) {
    std::lock_guard lock(all_contacts().mutex);
    all_contacts().by_backend.push_back(contacts_);
  }

  const std::string getBackendName() const override { return "lateccl"; }
  bool supportsCoalescing() const override { return coalesces_; }
  void setTimeout(std::chrono::milliseconds timeout) override { options_->timeout = timeout; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return options_; }

  void startCoalescing() override {
    TORCH_CHECK(coalesces_, "lateccl: this one does not coalesce");
    TORCH_CHECK(!is_coalescing_, "startCoalescing twice");
    is_coalescing_ = true;
  }
  c10::intrusive_ptr<c10d::Work> endCoalescing() override {
    is_coalescing_ = false;
    return start_legs();
  }
  c10::intrusive_ptr<c10d::Work> batch(const std::vector<std::string>& kinds, const std::vector<at::Tensor>& tensors,
                                       const std::vector<std::uint32_t>& peers) {
    TORCH_CHECK(!coalesces_ && kinds.size() == tensors.size() && kinds.size() == peers.size() && !kinds.empty());
    for (std::size_t i = 0; i < kinds.size(); ++i) {
      TORCH_CHECK(kinds[i] == "isend" || kinds[i] == "irecv", "lateccl: a transfer of kind ", kinds[i]);
      legs_.push_back({as_bytes(view_of(tensors[i])), static_cast<int>(peers[i]), kinds[i] == "isend"});
    }
    return start_legs();
  }
  c10::intrusive_ptr<c10d::Work> send(std::vector<at::Tensor>& tensors, int peer, int) override {
    return add(tensors, peer, true);
  }
  c10::intrusive_ptr<c10d::Work> recv(std::vector<at::Tensor>& tensors, int peer, int) override {
    return add(tensors, peer, false);
  }

  void abort() override {
    std::vector<c10::intrusive_ptr<c10d::Work>> works;
    {
      std::lock_guard lock(communicator_->mutex);
      communicator_->is_aborted = true;
      works = communicator_->under_way;
    }
    communicator_->changed.notify_all();
    contacts_->abort();
    for (const auto& work : works) work->abort();
  }

  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions& options) override {
    return start(c10d::OpType::ALLREDUCE, tensors,
                 [views = views_of(tensors), options](c10d::Backend& carrier) mutable {
                   return carrier.allreduce(views, options);
                 });
  }
  c10::intrusive_ptr<c10d::Work> broadcast(std::vector<at::Tensor>& tensors,
                                           const c10d::BroadcastOptions& options) override {
    return start(c10d::OpType::BROADCAST, tensors,
                 [views = views_of(tensors), options](c10d::Backend& carrier) mutable {
                   return carrier.broadcast(views, options);
                 });
  }
  c10::intrusive_ptr<c10d::Work> _allgather_base(at::Tensor& out, at::Tensor& in,
                                                 const c10d::AllgatherOptions& options) override {
    return start(c10d::OpType::_ALLGATHER_BASE, {out},
                 [to = view_of(out), from = view_of(in), options](c10d::Backend& carrier) {
                   std::vector<std::vector<at::Tensor>> parts = {to.view(-1).chunk(carrier.getSize())};
                   std::vector<at::Tensor> own = {from.view(-1)};
                   return carrier.allgather(parts, own, options);
                 });
  }
  c10::intrusive_ptr<c10d::Work> _reduce_scatter_base(at::Tensor& out, at::Tensor& in,
                                                      const c10d::ReduceScatterOptions& options) override {
    return start(c10d::OpType::_REDUCE_SCATTER_BASE, {out},
                 [to = view_of(out), from = view_of(in), options](c10d::Backend& carrier) {
                   std::vector<at::Tensor> sums = {from.clone()};
                   c10d::AllreduceOptions whole;
                   whole.reduceOp = options.reduceOp;
                   auto work = carrier.allreduce(sums, whole);
                   work->wait();
                   to.view(-1).copy_(sums[0].view(-1).chunk(carrier.getSize())[index(carrier.getRank())]);
                   return work;
                 });
  }
  c10::intrusive_ptr<c10d::Work> barrier(const c10d::BarrierOptions& options) override {
    auto work =
        start(c10d::OpType::BARRIER, {}, [options](c10d::Backend& carrier) { return carrier.barrier(options); });
    wait_on_host(mark(stream_));
    return work;
  }

 private:
  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

  static at::Tensor view_of(const at::Tensor& tensor) {
    TORCH_CHECK(is_late(tensor), "lateccl: found a tensor on ", tensor.device(), ", expected the late device");
    TORCH_CHECK(tensor.is_contiguous(), "lateccl: a tensor is not contiguous");
    return host_view(tensor);
  }
  static std::vector<at::Tensor> views_of(const std::vector<at::Tensor>& tensors) {
    std::vector<at::Tensor> views;
    for (const at::Tensor& tensor : tensors) views.push_back(view_of(tensor));
    return views;
  }

  c10::intrusive_ptr<c10d::Work> add(const std::vector<at::Tensor>& tensors, int peer, bool is_send) {
    TORCH_CHECK(tensors.size() == 1);
    const Leg leg{as_bytes(view_of(tensors[0])), peer, is_send};
    TORCH_CHECK(is_coalescing_, "lateccl: a transfer outside of a group: two ranks could wait for each other");
    legs_.push_back(leg);
    return nullptr;
  }

  c10::intrusive_ptr<c10d::Work> start_legs() {
    if (legs_.empty()) return nullptr;
    const auto legs = std::exchange(legs_, {});
    std::set<Contacts::End> ends;
    for (const Leg& leg : legs) ends.insert({leg.peer, leg.is_send, leg.buffer.nbytes()});
    contacts_->meet(ends);
    if (fault != Fault::kUngrouped) return start_transfer(legs, c10d::OpType::COALESCED);
    c10::intrusive_ptr<c10d::Work> last;
    for (const Leg& leg : legs) last = start_transfer({leg}, c10d::OpType::COALESCED);
    return last;
  }

  c10::intrusive_ptr<c10d::Work> start_transfer(const std::vector<Leg>& legs, c10d::OpType type) {
    auto work = enter(type, {}, [legs](Communicator& communicator) { transfer(communicator, legs); });
    for (const Leg& leg : legs) {
      if (fault != Fault::kReuse || !leg.is_send) continue;
      enqueue(current_stream().id(), [buffer = leg.buffer] { poison(buffer.data_ptr(), buffer.nbytes()); });
    }
    return work;
  }

  template <typename Collective>
  c10::intrusive_ptr<c10d::Work> start(c10d::OpType type, std::vector<at::Tensor> outputs, Collective collective) {
    return enter(type, std::move(outputs), [collective](Communicator& communicator) mutable {
      c10::intrusive_ptr<c10d::Work> work;
      {
        std::lock_guard lock(communicator.mutex);
        if (communicator.is_aborted) return;
      }
      try {
        work = collective(*communicator.carrier);
      } catch (...) {
        return stay(communicator);
      }
      finish(communicator, {work});
    });
  }

  template <typename Body>
  c10::intrusive_ptr<c10d::Work> enter(c10d::OpType type, std::vector<at::Tensor> outputs, Body body) {
    if (fault != Fault::kStart) wait_on_stream(stream_, mark(current_stream().id()));
    const Mark at = enqueue(stream_, [communicator = communicator_, body]() mutable { body(*communicator); });
    return c10::make_intrusive<LateWork>(communicator_, at, rank_, type, std::move(outputs));
  }

  const std::shared_ptr<Communicator> communicator_;
  const std::shared_ptr<Contacts> contacts_;
  const bool coalesces_ = coalescing;
  const c10::StreamId stream_;
  const c10::intrusive_ptr<Options> options_;
  bool is_coalescing_ = false;
  std::vector<Leg> legs_;
};

}  // namespace

void set_fault(const std::string& name) {
  static const std::map<std::string, Fault> names = {{"none", Fault::kNone},
                                                     {"wait", Fault::kWait},
                                                     {"start", Fault::kStart},
                                                     {"reuse", Fault::kReuse},
                                                     {"ungrouped", Fault::kUngrouped}};
  fault = names.at(name);
}

void set_coalescing(bool on) { coalescing = on; }

c10::intrusive_ptr<c10d::Work> post_batch(const c10::intrusive_ptr<c10d::Backend>& backend,
                                          const std::vector<std::string>& kinds, const std::vector<at::Tensor>& tensors,
                                          const std::vector<std::uint32_t>& peers) {
  auto* own = dynamic_cast<LateBackend*>(backend.get());
  TORCH_CHECK(own != nullptr, "not a backend of the late device");
  return own->batch(kinds, tensors, peers);
}

std::vector<std::map<std::string, std::vector<int>>> contacts() {
  std::vector<std::map<std::string, std::vector<int>>> told;
  std::lock_guard lock(all_contacts().mutex);
  for (const auto& contacts : all_contacts().by_backend) told.push_back(contacts->told());
  return told;
}

c10::intrusive_ptr<c10d::Backend> make_lateccl(c10::intrusive_ptr<c10d::Backend> carrier, Policy policy) {
  return c10::make_intrusive<LateBackend>(carrier, policy);
}

}  // namespace late
