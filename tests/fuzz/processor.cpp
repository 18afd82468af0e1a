#include "dhp/qwen_vl.h"
#include "readers.h"

namespace dhp::fuzz {
namespace {

void check(const qwen_vl::Rules& rules, const qwen_vl::Grid& grid) {
  require(grid.frames > 0 && grid.height > 0 && grid.width > 0, "a grid has patches");
  require(grid.height % rules.merge_size == 0 && grid.width % rules.merge_size == 0, "a grid can be merged");
  require(visual_tokens(rules, grid) > 0, "a picture has tokens");
}

void use_picture(const qwen_vl::Rules& rules, std::int64_t height, std::int64_t width) {
  const auto grid = unless_input_error([&] { return image_grid(rules, height, width); });
  if (grid) check(rules, *grid);
}

void use_clip(const qwen_vl::Rules& rules, std::int64_t height, std::int64_t width, std::int64_t frames, double fps) {
  const auto clip = unless_input_error([&] { return sample_clip(rules, height, width, frames, fps); });
  if (!clip) return;
  check(rules, clip->grid);
  for (const std::int64_t index : clip->frame_indices) require(index >= 0 && index < frames, "frames are of the clip");
  require(std::ssize(clip->timestamps_s) == clip->grid.frames, "a temporal patch has a time");
}

void use(const qwen_vl::Rules& rules) {
  constexpr std::int64_t kSizes[][2] = {{1, 1}, {480, 640}, {5000, 25}};
  for (const auto& size : kSizes) {
    use_picture(rules, size[0], size[1]);
    use_clip(rules, size[0], size[1], 1, 1.0);
    use_clip(rules, size[0], size[1], 300, 29.97);
    use_clip(rules, size[0], size[1], 100'000, 1e-3);
  }
}

}  // namespace

void processor(std::string_view text) {
  constexpr std::string_view kSeparator = "\n---\n";
  const std::size_t cut = text.find(kSeparator);
  std::optional<std::string_view> video;
  if (cut != std::string_view::npos) video = text.substr(cut + kSeparator.size());
  const auto rules =
      unless_input_error([&] { return qwen_vl::parse_rules(text.substr(0, cut), "image.json", video, "video.json"); });
  if (rules) use(*rules);
}

}  // namespace dhp::fuzz
