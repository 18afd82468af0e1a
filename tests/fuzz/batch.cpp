#include "dhp/batch.h"

#include "readers.h"

namespace dhp::fuzz {

void batch_json(std::string_view text) { round_trip<Batch>(text, parse_batch_json, parse_batch_json); }

void batch_csv(std::string_view text) { round_trip<Batch>(text, parse_batch_csv, parse_batch_json); }

}  // namespace dhp::fuzz
