#include "dhp/workload.h"
#include "readers.h"

namespace dhp::fuzz {
namespace {

/// What is well formed gives a valid batch, or an error that names the line.
void use(const std::vector<MediaSample>& samples, Family family, MediaSampling sampling) {
  const TokenRules rules = token_rules(family, sampling);
  for (const MediaSample& sample : samples) {
    require(sample.tokens > 0 || (sample.width > 0 && sample.height > 0), "a sample has a size or tokens");
    const auto batch = unless_input_error([&] { return make_batch(rules, {sample}, {.frames = 8}); });
    if (!batch) continue;
    require(batch->sequences.size() == 1, "a sample is a sequence");
    validate(*batch, "samples");
  }
}

}  // namespace

void samples(std::string_view text) {
  const auto read = unless_input_error([&] { return parse_sample_csv(text, "samples.csv"); });
  if (!read) return;
  use(*read, Family::qwen2_5_vl, MediaSampling::hugging_face);
  use(*read, Family::qwen3_vl, MediaSampling::hugging_face);
  use(*read, Family::qwen3_vl, MediaSampling::qwen_vl_utils);
  use(*read, Family::internvl, MediaSampling::internvl_chat);
}

}  // namespace dhp::fuzz
