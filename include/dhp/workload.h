#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dhp/batch.h"
#include "dhp/tokens.h"

namespace dhp {

/// Samples as a data set has them, before any model's rule, and the batch that a model makes of them:
///
///     const std::vector<MediaSample> samples = draw_samples("msrvtt", 512, 7);
///     const Batch batch = make_batch(token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils), samples);
struct MediaSample {
  double duration_s = 0.0;  ///< of a clip; 0: a picture
  std::int64_t width = 0;   ///< pixels; 0: text only
  std::int64_t height = 0;
  double fps = 30.0;             ///< of the file
  std::int64_t text_tokens = 0;  ///< template, prompt and answer
  std::int64_t tokens = 0;       ///< if above 0: already counted, like both patches; no rule applies
  std::int64_t patches = 0;
  std::int64_t frame_patches = 0;
  std::string location = {};  ///< where it was read ("line 7"), for errors

  bool operator==(const MediaSample&) const = default;
};

/// A workload: lengths of a published data set, or a distribution of lengths. `dhp dataset` draws batches from it.
struct WorkloadInfo {
  std::string name;
  bool has_media = true;  ///< false: lengths in tokens, no model needed
  std::string help;
};

/// msrvtt, internvid, openvid; lognormal, burst, uniform. Distributions and sources: docs/tokens.md.
const std::vector<WorkloadInfo>& workloads();

/// Tokens of a sample's text apart from its caption: Qwen's chat template around the prompt "Describe this video."
/// (`<|im_start|>user\n` 3, the prompt 4, `<|im_end|>\n` 2, `<|im_start|>assistant\n` 3, `<|im_end|>\n` 2).
inline constexpr std::int64_t kPromptTokens = 14;

/// Largest number of samples in one batch.
inline constexpr std::int64_t kMaxSamples = std::int64_t{1} << 24;

/// Draws `count` samples of a named workload. Sample i depends only on name, seed and i, and is the same on every
/// machine. Real lengths (msrvtt) are drawn without repetition, epoch by epoch. Throws InputError for an unknown name.
std::vector<MediaSample> draw_samples(const std::string& name, std::int64_t count, std::uint64_t seed,
                                      std::int64_t prompt_tokens = kPromptTokens);

/// Draws `count` of the samples without repetition, epoch by epoch; only the seed matters. Throws InputError if there
/// are none to draw from.
std::vector<MediaSample> draw_from(const std::vector<MediaSample>& samples, std::int64_t count, std::uint64_t seed);

/// A user's own index: CSV with a header that names the columns, in any order:
///
///     duration_s,width,height            and where known: fps (else 30), text_tokens (else `prompt_tokens`)
///     tokens,patches                     already counted, and where known: frame_patches
///
/// duration_s 0 is a picture. Other columns are ignored. Throws InputError that names line and column.
std::vector<MediaSample> parse_sample_csv(std::string_view text, const std::string& source,
                                          std::int64_t prompt_tokens = kPromptTokens);

/// The samples in the output of `dhp index`, in its order; tokens, patches and frame_patches are already counted.
/// Header and columns are enough. Throws InputError.
std::vector<MediaSample> parse_sample_index(std::string_view text, const std::string& source);

/// Reads either format, recognised by its beginning. Throws InputError.
std::vector<MediaSample> read_sample_file(const std::string& file, std::int64_t prompt_tokens = kPromptTokens);

/// The batch that a model makes of samples; ids count from 0. If options have neither fps nor frames, InternVL's number
/// of frames is drawn for each clip, by seed, as in training. Throws InputError that names `source` and the sample.
Batch make_batch(const TokenRules& rules, const std::vector<MediaSample>& samples, const MediumOptions& options = {},
                 std::uint64_t seed = 0, const std::string& source = "samples");

}  // namespace dhp
