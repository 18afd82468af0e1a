#pragma once

#include <functional>

#include "random_case.h"

namespace dhp::test {

/// The smallest case on the way from `made` that is still `bad`: sequences, ranks, nodes and options dropped, lengths
/// halved, terms of the cost zeroed, as long as anything helps. Looks at a bounded number of cases.
Case shrink(Case made, const std::function<bool(const Case&)>& bad);

}  // namespace dhp::test
