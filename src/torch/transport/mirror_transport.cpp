#include "torch/transport/mirror_transport.h"

#include <c10/util/Exception.h>

#include "torch/transport/device_carrier.h"
#include "torch/transport/thread_transport.h"

namespace dhp::rt {
namespace {

class MirrorTicket final : public Ticket {
 public:
  void wait() override {}
};

class MirrorTransport final : public Transport {
 public:
  MirrorTransport(int size, int rank, c10::Device device) : size_(size), rank_(rank), device_(device) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  c10::Device device() const override { return device_; }
  bool has_peers() const override { return false; }

  std::unique_ptr<Ticket> post(std::span<const Transfer> transfers, const std::string& /*doing*/) override {
    for (const Transfer& transfer : transfers) {
      at::Tensor buffer = transfer.buffer;
      if (transfer.direction == Direction::kReceive) buffer.zero_();
    }
    return std::make_unique<MirrorTicket>();
  }

  void record_failure(const std::string& message) noexcept override {
    if (!failure_) failure_ = message;
  }
  std::optional<std::string> failure(bool /*look*/) override { return failure_; }
  void set_timeout(std::chrono::milliseconds /*timeout*/) override {}  // nothing to wait for
  void set_label(const std::string& label) override { label_ = label; }
  std::string label() const override { return label_; }

 private:
  const int size_;
  const int rank_;
  const c10::Device device_;
  std::optional<std::string> failure_;
  std::string label_;
};

}  // namespace

std::shared_ptr<Transport> make_mirror_transport(int size, int rank, c10::Device device) {
  TORCH_CHECK_VALUE(size > 0 && rank >= 0 && rank < size, "a mirror group needs a rank from 0 to size - 1, got rank ",
                    rank, " of ", size);
  return std::make_shared<MirrorTransport>(size, rank, device);
}

void create_mirror_group(const std::string& name, int size, int rank, const std::string& device) {
  register_transport(name, make_mirror_transport(size, rank, with_index(c10::Device(device))));
}

}  // namespace dhp::rt
