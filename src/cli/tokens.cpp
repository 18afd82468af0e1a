// dhp tokens: what pictures and clips of given sizes become in a sequence.

#include "dhp/tokens.h"

#include <charconv>
#include <cmath>
#include <iostream>
#include <memory>
#include "cli/cli.h"
#include "cli/media_options.h"
#include "cli/show/json.h"
#include "cli/show/report.h"
#include "cli/show/table.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

constexpr double kUsualFps = 30.0;

struct TokensCommand {
  MediaOptions media;
  std::vector<std::string> images;
  std::vector<std::string> videos;
  bool json = false;
};

struct Medium {
  std::string text;  ///< as the user wrote it
  bool is_video = false;
  Video size;  ///< of a picture: height and width
  MediumTokens tokens;
};

template <typename Number>
bool parse_number(std::string_view text, Number& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// Cuts the text before `separator` off; false if there is none.
bool take_until(std::string_view& text, char separator, std::string_view& part) {
  const std::size_t at = text.find(separator);
  if (at == std::string_view::npos) return false;
  part = text.substr(0, at);
  text.remove_prefix(at + 1);
  return true;
}

Medium parse_image(const std::string& text) {
  Medium medium{.text = text, .is_video = false, .size = {}, .tokens = {}};
  std::string_view rest = text;
  std::string_view width;
  if (!take_until(rest, 'x', width) || !parse_number(width, medium.size.width) ||
      !parse_number(rest, medium.size.height)) {
    throw InputError("--image", "", "found \"" + text + "\", expected WIDTHxHEIGHT, for instance 1280x720");
  }
  return medium;
}

/// The length of a clip: seconds ("30.0s") or frames ("900f") at the rate that is set already.
bool parse_length(std::string_view text, Video& video) {
  if (text.empty()) return false;
  const char unit = text.back();
  text.remove_suffix(1);
  if (unit == 'f') return parse_number(text, video.total_frames);
  double seconds = 0.0;
  constexpr double kMost = 1e12;
  if (unit != 's' || !parse_number(text, seconds) || !(seconds >= 0.0 && seconds * video.fps <= kMost)) return false;
  video.total_frames = static_cast<std::int64_t>(std::nearbyint(seconds * video.fps));
  return true;
}

Medium parse_video(const std::string& text) {
  Medium medium{.text = text, .is_video = true, .size = {}, .tokens = {}};
  Video& video = medium.size;
  video.fps = kUsualFps;
  std::string_view rest = text;
  std::string_view width;
  std::string_view height;
  std::string_view length;
  const bool sized = take_until(rest, 'x', width) && take_until(rest, 'x', height) &&
                     parse_number(width, video.width) && parse_number(height, video.height);
  const bool has_rate = take_until(rest, '@', length);
  if (!has_rate) length = rest;
  if (!sized || (has_rate && !parse_number(rest, video.fps)) || !parse_length(length, video)) {
    throw InputError("--video", "",
                     "found \"" + text +
                         "\", expected WIDTHxHEIGHTxLENGTH[@FPS] with a length in seconds or frames, for instance "
                         "1280x720x30.0s@30 or 1280x720x900f@30");
  }
  return medium;
}

std::vector<Medium> count_media(const TokensCommand& command, const TokenRules& rules) {
  std::vector<Medium> media;
  for (const std::string& text : command.images) media.push_back(parse_image(text));
  for (const std::string& text : command.videos) media.push_back(parse_video(text));
  for (Medium& medium : media) {
    try {
      const MediumOptions& options = command.media.medium;
      medium.tokens = medium.is_video ? video_tokens(rules, medium.size, options)
                                      : image_tokens(rules, medium.size.height, medium.size.width, options);
    } catch (const InputError& error) {
      throw InputError(medium.is_video ? "--video" : "--image", medium.text, error.what());
    }
  }
  return media;
}

MediumTokens sum_of(const std::vector<Medium>& media) {
  MediumTokens sum;
  for (const Medium& medium : media) {
    sum.tokens += medium.tokens.tokens;
    sum.patches += medium.tokens.patches;
    sum.marker_tokens += medium.tokens.marker_tokens;
    sum.timestamp_tokens += medium.tokens.timestamp_tokens;
  }
  return sum;
}

/// How the tokens come about: the grid of patches, or tiles.
std::string shape_text(const TokenRules& rules, const Medium& medium) {
  const MediumTokens& tokens = medium.tokens;
  const std::string frames =
      medium.is_video ? grouped(tokens.frames) + " of " + grouped(medium.size.total_frames) + " frames" : "";
  if (rules.family == Family::internvl) {
    if (medium.is_video) return frames + ", a tile each";
    const internvl::Tiles& tiles = tokens.tiles;
    const std::string cut = std::to_string(tiles.columns) + "x" + std::to_string(tiles.rows) + " tiles";
    return tiles.thumbnail ? cut + " and a thumbnail" : tiles.count() == 1 ? "1 tile" : cut;
  }
  const qwen_vl::Grid& grid = tokens.grid;
  const std::string patches = std::to_string(grid.width) + "x" + std::to_string(grid.height);
  return medium.is_video ? patches + " x " + grouped(grid.frames) + ", " + frames : patches;
}

std::string to_text(const TokenRules& rules, const std::vector<Medium>& media) {
  using Align = TextTable::Align;
  TextTable table({{"medium", Align::left},
                   {"tokens"},
                   {"patches"},
                   {"markers"},
                   {rules.family == Family::internvl ? "frame labels" : "timestamps"},
                   {"in all"},
                   {rules.family == Family::internvl ? "tiles" : "grid in patches", Align::left}});
  const auto add = [&](const std::string& name, const MediumTokens& t, const std::string& shape) {
    table.add({name, grouped(t.tokens), grouped(t.patches), grouped(t.marker_tokens), grouped(t.timestamp_tokens),
               grouped(t.all()), shape});
  };
  for (const Medium& medium : media) {
    add((medium.is_video ? "video " : "image ") + medium.text, medium.tokens, shape_text(rules, medium));
  }
  if (media.size() > 1) add("total", sum_of(media), "");
  return std::string(to_string(rules.family)) + ", sampling " + std::string(to_string(rules.sampling())) + '\n' +
         table.text();
}

Json counts_json(const MediumTokens& tokens) {
  return {{"tokens", tokens.tokens},
          {"patches", tokens.patches},
          {"marker_tokens", tokens.marker_tokens},
          {"timestamp_tokens", tokens.timestamp_tokens},
          {"all_tokens", tokens.all()}};
}

std::string to_json(const TokenRules& rules, const std::vector<Medium>& media) {
  Json list = Json::array();
  for (const Medium& medium : media) {
    const MediumTokens& tokens = medium.tokens;
    Json entry = {
        {"kind", medium.is_video ? "video" : "image"}, {"width", medium.size.width}, {"height", medium.size.height}};
    if (medium.is_video) {
      entry.update({{"total_frames", medium.size.total_frames}, {"fps", medium.size.fps}, {"frames", tokens.frames}});
    }
    entry.update(counts_json(tokens));
    entry["grid"] = {{"frames", tokens.grid.frames}, {"height", tokens.grid.height}, {"width", tokens.grid.width}};
    if (rules.family == Family::internvl && !medium.is_video) {
      entry["tiles"] = {{"columns", tokens.tiles.columns},
                        {"rows", tokens.tiles.rows},
                        {"thumbnail", tokens.tiles.thumbnail},
                        {"count", tokens.tiles.count()}};
    }
    list.push_back(entry);
  }
  const Json json = {{"model", to_string(rules.family)},
                     {"sampling", to_string(rules.sampling())},
                     {"media", list},
                     {"total", counts_json(sum_of(media))}};
  return json_line(json);
}

int run(const TokensCommand& command) {
  if (command.images.empty() && command.videos.empty()) {
    throw InputError("dhp tokens", "", "found no medium, expected --image 1280x720 or --video 1280x720x30.0s@30");
  }
  if (command.videos.empty() && (command.media.medium.fps || command.media.medium.frames)) {
    throw InputError(command.media.medium.fps ? "--fps" : "--frames", "", "is for clips, and there is no --video");
  }
  const TokenRules rules = command.media.rules();
  const std::vector<Medium> media = count_media(command, rules);
  std::cout << (command.json ? to_json(rules, media) : to_text(rules, media));
  return kOk;
}

}  // namespace

void add_tokens_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<TokensCommand>();
  CLI::App& sub = *app.add_subcommand("tokens", "Count the tokens of pictures and clips");
  command->media.add_options(sub);
  sub.get_option("--model")->required();
  sub.add_option("--image", command->images, "WIDTHxHEIGHT; may be repeated");
  sub.add_option("--video", command->videos,
                 "WIDTHxHEIGHTxLENGTH[@FPS], the length in seconds or frames: 1280x720x30.0s@30, 320x240x450f;\n"
                 "default: 30 frames a second");
  add_output_format(sub, command->json);
  sub.callback([command, &exit_code] { exit_code = run(*command); });
}

}  // namespace dhp::cli
