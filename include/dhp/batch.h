#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dhp {

/// One training sample as the planner sees it.
struct Sequence {
  std::int64_t id = 0;       ///< unique in its batch
  std::int64_t tokens = 0;   ///< language-model tokens: text and merged visual tokens; at least 1
  std::int64_t patches = 0;  ///< vision patches before merging; 0 for text
  /// Patches of its largest picture, pair of frames or tile, which is not split between ranks; 0: can be split at will.
  std::int64_t frame_patches = 0;

  bool operator==(const Sequence&) const = default;
};

/// A global batch: everything one optimizer step trains on.
struct Batch {
  std::vector<Sequence> sequences = {};

  bool operator==(const Batch&) const = default;
};

/// Reads `dhp.batch/1` JSON, or the output of `dhp index` (dhp.index/2: all of its samples as one batch). Throws
/// InputError on anything that is not a valid batch. An empty batch is valid.
Batch read_batch(const std::string& file);

/// The same for a text, which `source` names in errors. Both throw InputError. Of an index, header and columns are
/// enough.
Batch parse_batch_json(std::string_view text, const std::string& source);
Batch parse_batch_index(std::string_view text, const std::string& source);

/// Throws InputError for zero or negative tokens, negative patches, a frame with more patches than the sequence,
/// duplicate ids, or lengths beyond `kMaxTokens`.
void validate(const Batch& batch, const std::string& source);

/// Longest sequence accepted. Squares of lengths and their sums stay exact in double arithmetic far below it.
inline constexpr std::int64_t kMaxTokens = std::int64_t{1} << 40;

/// The batch as `dhp.batch/1` JSON; parse_batch_json() reads it back as the same batch.
std::string to_json(const Batch& batch);

}  // namespace dhp
