#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "torch/attention/device_numbers.h"
#include "torch/attention/kernel.h"

namespace dhp::rt {
namespace {

constexpr const char* kForward = "npu::npu_fusion_attention";
constexpr const char* kBackward = "npu::npu_fusion_attention_grad";
constexpr std::int64_t kTile = 16;  // of head sizes: the tiles of its matrix unit
constexpr std::int64_t kMostHeadSize = 768;
constexpr std::size_t kMostSegments = 1000;  // of a packed call
constexpr std::int64_t kCopies = 8;          // each number of the softmax stands so often: 32 bytes

/// Calls an operator that this library is not built against. Releases of torch_npu add arguments, so those given are
/// put where their names are, and all others keep their defaults.
torch::jit::Stack call_by_name(const char* name, const std::map<std::string, c10::IValue>& arguments) {
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name, "");
  torch::jit::Stack stack;
  std::size_t given = 0;
  for (const c10::Argument& argument : op.schema().arguments()) {
    const auto found = arguments.find(argument.name());
    TORCH_CHECK(found != arguments.end() || argument.default_value().has_value(), name,
                " of this torch_npu needs an argument that DHP does not know: ", argument.name());
    if (found != arguments.end()) ++given;
    stack.push_back(found != arguments.end() ? found->second : *argument.default_value());
  }
  TORCH_CHECK(given == arguments.size(), name, " of this torch_npu lacks an argument that DHP needs; its schema is ",
              op.schema());
  op.callBoxed(&stack);
  return stack;
}

/// Of any causal call, as sparse mode 3 has it: true where a key is later than its query. Kept for each stream.
at::Tensor causal_mask(c10::Device device) {
  constexpr std::int64_t kSide = 2048;
  static std::mutex mutex;
  static auto* const kept =
      new std::map<std::pair<c10::DeviceIndex, c10::StreamId>, at::Tensor>;  // outlives the device
  const auto stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  const std::lock_guard lock(mutex);
  at::Tensor& mask = (*kept)[{device.index(), stream.id()}];
  if (!mask.defined()) mask = at::ones({kSide, kSide}, at::TensorOptions(device).dtype(at::kBool)).triu(1);
  return mask;
}

/// The packed rows of one call: [rows, H, D], with the ends of segments as numbers of the host.
class PackedRows {
 public:
  PackedRows(const BlockInputs& block, std::span<const Segment> segments)
      : q_runs_(q_runs(segments)), kv_runs_(kv_runs(segments)), heads_(block.q.size(1)), device_(block.q.device()) {
    for (const Segment& segment : segments) {
      q_ends_.push_back(segment.q_rows + (q_ends_.empty() ? 0 : q_ends_.back()));
      kv_ends_.push_back(segment.kv_rows + (kv_ends_.empty() ? 0 : kv_ends_.back()));
    }
    arguments = {{"query", q(block.q)},          {"key", kv(block.k)},    {"value", kv(block.v)},
                 {"head_num", heads_},           {"input_layout", "TND"}, {"actual_seq_qlen", q_ends_},
                 {"actual_seq_kvlen", kv_ends_}, {"keep_prob", 1.0}};
    if (!block.causal) return;
    arguments["atten_mask"] = causal_mask(block.q.device());
    arguments["sparse_mode"] = std::int64_t{3};  // aligned at the end; squares are the same by the beginning
  }

  at::Tensor q(const at::Tensor& tensor) const { return gather_rows(tensor, q_runs_).contiguous(); }
  at::Tensor kv(const at::Tensor& tensor) const { return gather_rows(tensor, kv_runs_).contiguous(); }

  /// Of one number a row and head, in memory each segment by itself with heads first: [H, its rows].
  at::Tensor by_rows(const at::Tensor& numbers) const {
    if (q_ends_.size() == 1) return numbers.view({heads_, q_ends_[0]}).transpose(0, 1);
    return numbers.index_select(0, places().view(-1)).view({q_ends_.back(), heads_});
  }
  /// The other way, each number eight times: [rows, H, 8] by name.
  at::Tensor by_segments(const at::Tensor& lse) const {
    const std::int64_t rows = q_ends_.back();
    auto numbers = gather_rows(lse, q_runs_);
    if (q_ends_.size() == 1) {
      numbers = numbers.transpose(0, 1);
    } else {
      auto flat = at::empty({rows * heads_}, numbers.options());
      numbers = flat.index_copy_(0, places().view(-1), numbers.reshape({-1})).view({rows, heads_});
    }
    return numbers.unsqueeze(-1).expand({-1, -1, kCopies}).contiguous().view({rows, heads_, kCopies});
  }

  std::map<std::string, c10::IValue> arguments;  // of both operators

 private:
  /// Where in memory the number of a row [of rows] and a head [of heads] is: a few kernels, however many segments.
  at::Tensor places() const {
    const auto rows = static_cast<std::size_t>(q_ends_.back());
    std::vector<std::int64_t> numbers(2 * rows);  // of each row: where its first head's is, and from head to head
    std::int64_t begin = 0;
    for (const std::int64_t end : q_ends_) {
      for (std::int64_t row = begin; row < end; ++row) {
        numbers[static_cast<std::size_t>(row)] = begin * heads_ + row - begin;
        numbers[rows + static_cast<std::size_t>(row)] = end - begin;
      }
      begin = end;
    }
    const auto of_rows = device_numbers(numbers, at::kLong, device_).view({2, -1, 1});
    return of_rows[0] + of_rows[1] * at::arange(heads_, of_rows.options());
  }

  std::vector<RowRun> q_runs_;
  std::vector<RowRun> kv_runs_;
  std::int64_t heads_;
  c10::Device device_;
  std::vector<std::int64_t> q_ends_;
  std::vector<std::int64_t> kv_ends_;
};

class NpuFusionKernel final : public AttentionKernel {
 public:
  const char* name() const override { return "npu_fusion"; }

  std::vector<BlockOutput> forward(const BlockInputs& block) const override {
    const at::NoGradGuard no_grad;
    std::vector<BlockOutput> results;
    for_calls(block, [&](std::span<const Segment> segments) {
      PackedRows rows(block, segments);
      rows.arguments["scale"] = block.scale;
      const auto found = call_by_name(kForward, rows.arguments);
      const auto first = [&](std::size_t i) { return found.at(i).toTensor().reshape({-1, kCopies}).select(1, 0); };
      results.push_back({segments, found.at(0).toTensor(), rows.by_rows(first(1) + at::log(first(2)))});
    });
    return results;
  }

  /// All that it computes of the two is exp(score - max) / sum: the maximum may be the logarithm of the sum, and the
  /// sum 1.
  std::vector<BlockGradient> backward(const BlockInputs& block, const at::Tensor& dout, const at::Tensor& out,
                                      const at::Tensor& lse) const override {
    const at::NoGradGuard no_grad;
    std::vector<BlockGradient> results;
    for_calls(block, [&](std::span<const Segment> segments) {
      PackedRows rows(block, segments);
      const auto sums = rows.by_segments(lse);
      rows.arguments["dy"] = rows.q(dout);
      rows.arguments["attention_in"] = rows.q(out);
      rows.arguments["softmax_max"] = sums;
      rows.arguments["softmax_sum"] = at::ones_like(sums);
      rows.arguments["scale_value"] = block.scale;
      const auto found = call_by_name(kBackward, rows.arguments);
      results.push_back({segments, found.at(0).toTensor(), found.at(1).toTensor(), found.at(2).toTensor()});
    });
    return results;
  }

 private:
  template <typename Body>
  static void for_calls(const BlockInputs& block, const Body& body) {
    for (auto left = block.segments; !left.empty(); left = left.subspan(std::min(left.size(), kMostSegments))) {
      body(left.first(std::min(left.size(), kMostSegments)));
    }
  }
};

}  // namespace

const AttentionKernel& npu_fusion_kernel() {
  static const NpuFusionKernel kernel;
  return kernel;
}

bool npu_fusion_applies(const at::Tensor& q) {
  const auto type = q.scalar_type();
  const auto size = q.size(-1);
  return (type == at::kHalf || type == at::kBFloat16 || type == at::kFloat) && size % kTile == 0 &&
         size <= kMostHeadSize && c10::Dispatcher::singleton().findSchema({kForward, ""}).has_value();
}

}  // namespace dhp::rt
