#pragma once

#include <string_view>

namespace dhp::fuzz {

// One function a reader. Each takes any text, lets nothing but InputError escape from the reader, and aborts with a
// sentence if what was read does not survive being written and read again, or makes what uses it fail. `make fuzz`
// drives them by libFuzzer; core_tests runs them over the corpus with every compiler.

void batch_json(std::string_view text);
/// What `dhp index` writes.
void batch_index(std::string_view text);
void cluster(std::string_view text);
void cost(std::string_view text);
void plan(std::string_view text);
/// config.json of a model, for the analytic cost.
void config(std::string_view text);
/// dhp.device/1.
void device(std::string_view text);
/// A user's index of samples (CSV), for batches.
void samples(std::string_view text);
/// Processor files: the one of pictures, a line "---", the one of videos; only the first if there is no such line.
void processor(std::string_view text);
/// Options of plans, "name=text" a line.
void options(std::string_view text);

/// Aborts, naming what does not hold.
void require(bool holds, const char* what);

}  // namespace dhp::fuzz
