#pragma once

#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "torch/transport/transport.h"

namespace dhp::rt {

/// The group of one task as one of its members sees it.
struct Members {
  std::vector<std::int64_t> ranks;       // world ranks in ring order
  int position = 0;                      // of this rank
  std::shared_ptr<Transport> transport;  // null for a group of one

  int degree() const { return static_cast<int>(ranks.size()); }
  int rank_at(int other) const { return static_cast<int>(ranks[static_cast<std::size_t>(other)]); }
  int next() const { return rank_at((position + 1) % degree()); }
  int previous() const { return rank_at((position + degree() - 1) % degree()); }
};

/// Runs `body` for a call of `operation` by a member of a group. If it throws, the failure is recorded for all ranks,
/// so that the peers of a rank that called wrongly, or ran out of memory, stop waiting for it. In a group of one nobody
/// waits: there `group` may be empty, and nothing is recorded.
void run_in_group(const std::string& operation, const std::string& group, c10::IntArrayRef ranks,
                  const std::function<void(const Members&)>& body);

}  // namespace dhp::rt
