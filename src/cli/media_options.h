#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "dhp/tokens.h"

namespace dhp::cli {

/// What `dhp tokens` and `dhp dataset` ask about a model's rule for pictures and clips.
struct MediaOptions {
  std::string model;
  std::string sampling;  ///< empty: a folder's own processor files, else the family's own tool
  MediumOptions medium;

  /// Adds --model, --sampling, --fps, --frames, --max-pixels and --max-tiles.
  void add_options(CLI::App& command);
  /// Throws InputError.
  TokenRules rules() const;
};

}  // namespace dhp::cli
