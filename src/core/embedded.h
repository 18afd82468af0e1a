#pragma once

#include <string_view>

/// Text files that are compiled in (cmake/embed.cmake).
namespace dhp::embedded {

// data/datasets
extern const std::string_view msrvtt_caption_tokens;
extern const std::string_view msrvtt_durations;

}  // namespace dhp::embedded
