#pragma once

#include <cstdint>
#include <optional>

/// Tiles and frames of InternVL2.5 and InternVL3:
///
///     internvl::Tiles tiles = internvl::image_tiles({}, 720, 1280);  // 4 x 2 and a thumbnail
///     tiles.count() * internvl::tokens_per_tile({});                 // 2304
namespace dhp::internvl {

/// Whose code counts the frames of a clip. Both cut pictures in the same way.
enum class Processor {
  internvl_chat,  ///< the authors' own (OpenGVLab/InternVL: internvl_chat/internvl/train/dataset.py)
  internvl,       ///< Hugging Face transformers, models/internvl and models/got_ocr2
};

/// Sources: the two above. The defaults are those of training InternVL2.5 and InternVL3
/// (OpenGVLab/InternVL: internvl_chat/shell; at most 12 tiles, 8 to 32 frames).
struct Rules {
  int tile_size = 448;    ///< pixels of a tile's side
  int patch_size = 14;    ///< pixels of a patch's side
  int merge_size = 2;     ///< patches of a token's side: pixel shuffle by 0.5
  int min_tiles = 1;      ///< without thumbnail
  int max_tiles = 12;     ///< without thumbnail; 1: pictures are not cut
  bool thumbnail = true;  ///< one more tile, the whole picture, if there are several
  int min_frames = 8;     ///< training draws the number of frames from this range, whatever the clip's length
  int max_frames = 32;
  Processor processor = Processor::internvl_chat;

  bool operator==(const Rules&) const = default;
};

/// (tile_size / patch_size / merge_size)^2: 256. Sizes must be at least 1, here and below.
std::int64_t tokens_per_tile(const Rules& rules);
/// (tile_size / patch_size)^2: 1024; the class token of the vision tower is not counted.
std::int64_t patches_per_tile(const Rules& rules);

struct Tiles {
  int columns = 1;
  int rows = 1;
  bool thumbnail = false;

  int count() const { return columns * rows + (thumbnail ? 1 : 0); }
  bool operator==(const Tiles&) const = default;
};

/// The arrangement of tiles whose aspect ratio is nearest the picture's. Of equally near ones, the last (most tiles)
/// whose area is less than twice the picture's. `max_tiles` replaces the rule's. Throws InputError (source "image").
Tiles image_tiles(const Rules& rules, std::int64_t height, std::int64_t width, std::optional<int> max_tiles = {});

/// How a clip is sampled; if neither is given, max_frames frames.
struct Sampling {
  std::optional<double> fps = {};
  std::optional<int> frames = {};
};

/// Number of frames of a clip; each is one tile. Throws InputError (source "video") for values that are not positive,
/// and for more frames than the clip has if Hugging Face refuses them.
std::int64_t clip_frames(const Rules& rules, std::int64_t total_frames, double source_fps,
                         const Sampling& sampling = {});

/// Tokens of the text that names frame `number` (from 1): "Frame-12: " and the line's end with internvl_chat;
/// "Frame12: ", after the first frame behind a line's end, with transformers. Digits are single tokens in Qwen's
/// tokenizer, InternVL2.5's and 3's; each other piece is one.
int frame_label_tokens(const Rules& rules, std::int64_t number);

}  // namespace dhp::internvl
