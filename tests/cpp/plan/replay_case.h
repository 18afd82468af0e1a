#pragma once

#include <string>

#include "random_case.h"

namespace dhp::test {

// A case as a folder that also the command line understands: batch.json, cluster.json, cost.json, and command.txt with
// the line to run inside of it, "dhp plan --batch batch.json … --planner free --max-degree 3".

void write_case(const Case& made, const std::string& folder);

/// Throws InputError for a folder that write_case() did not write.
Case read_case(const std::string& folder);

}  // namespace dhp::test
