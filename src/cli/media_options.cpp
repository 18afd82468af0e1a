#include "cli/media_options.h"

#include <filesystem>

namespace dhp::cli {

void MediaOptions::add_options(CLI::App& command) {
  command.add_option(
      "--model", model,
      "qwen2-vl, qwen2.5-vl, qwen3-vl or internvl; a model of these (qwen3-vl-8b, or its name on the hub); or a "
      "checkpoint folder");
  command.add_option("--sampling", sampling,
                     "whose code resizes and samples: qwen-vl-utils (Qwen), internvl-chat (InternVL) or hf;\n"
                     "default: hf for a checkpoint folder, else the first two");
  command.add_option("--fps", medium.fps, "frames to sample per second of a clip");
  command.add_option("--frames", medium.frames, "frames to sample from a clip")->excludes("--fps");
  command.add_option("--max-pixels", medium.max_pixels, "largest number of pixels of a picture or a frame (Qwen)");
  command.add_option("--max-tiles", medium.max_tiles,
                     "largest number of tiles of a picture, without the thumbnail (InternVL)");
}

TokenRules MediaOptions::rules() const {
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(model, ignored);
  if (is_folder) {
    return read_token_rules(
        model, sampling.empty() ? MediaSampling::hugging_face : parse_media_sampling(sampling, "--sampling"));
  }
  const Family family = parse_family(model, "--model");
  return token_rules(family, sampling.empty() ? own_sampling(family) : parse_media_sampling(sampling, "--sampling"));
}

}  // namespace dhp::cli
