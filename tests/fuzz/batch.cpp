#include "dhp/batch.h"
#include "dhp/workload.h"

#include "readers.h"

namespace dhp::fuzz {

void batch_json(std::string_view text) { round_trip<Batch>(text, parse_batch_json, parse_batch_json); }

void batch_index(std::string_view text) {
  const auto batch = round_trip<Batch>(text, parse_batch_index, parse_batch_json);
  const auto samples = unless_input_error([&] { return parse_sample_index(text, "fuzz"); });
  require(!batch || (samples && samples->size() == batch->sequences.size()), "every sequence is a sample");
}

}  // namespace dhp::fuzz
