#include "contacts.h"

#include <ATen/ATen.h>

namespace late {
namespace {

constexpr int kOfSender = 1;  // tags; transfers have 0
constexpr int kOfReceiver = 2;

}  // namespace

void Contacts::meet(const std::set<End>& ends) {
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  std::vector<std::vector<at::Tensor>> bytes;
  const auto carrier = carrier_.lock();
  TORCH_CHECK(carrier != nullptr, "lateccl: the group is gone");
  {
    const std::lock_guard lock(mutex_);
    for (const End& end : ends) {
      if (is_aborted_ || !met_.insert(end).second) continue;
      const int own = end.is_send ? kOfSender : kOfReceiver;
      bytes.push_back({at::zeros({1}, at::kByte)});
      works.push_back(carrier->send(bytes.back(), end.peer, own));
      bytes.push_back({at::zeros({1}, at::kByte)});
      works.push_back(carrier->recv(bytes.back(), end.peer, kOfSender + kOfReceiver - own));
    }
    under_way_ = works;
  }
  for (const auto& work : works) {
    try {
      work->wait();
    } catch (const std::exception&) {
      // of a lost peer: the transfer itself fails, too
    }
  }
  const std::lock_guard lock(mutex_);
  under_way_.clear();
}

void Contacts::abort() {
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  {
    const std::lock_guard lock(mutex_);
    is_aborted_ = true;
    works = under_way_;
  }
  for (const auto& work : works) work->abort();
}

std::map<std::string, std::vector<int>> Contacts::told() const {
  std::map<std::string, std::vector<int>> told{{"to", {}}, {"from", {}}, {"late", {}}};
  const std::lock_guard lock(mutex_);
  for (const End& end : met_) {
    told[end.is_send ? "to" : "from"].push_back(end.peer);
    if (end.bytes > 1) told["late"].push_back(end.peer);
  }
  return told;
}

}  // namespace late
