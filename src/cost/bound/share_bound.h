#pragma once

#include <span>

#include "cost/bound/least_transfer.h"

namespace dhp {

/// Seconds that no plan beats since ranks run shares of whole sequences: "Shares" of docs/bounds.md. Says most where
/// there are a few sequences of about one length for every rank, and nothing (0) where there are many. `transfers` by
/// degree, as least_transfers() gives them.
double share_bound_s(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                     std::span<const LeastTransfer> transfers);

}  // namespace dhp
