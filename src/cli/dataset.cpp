// dhp dataset: a batch with the lengths of a workload under a model's rule, and how they are spread.

#include "dhp/workload.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "cli/cli.h"
#include "cli/media_options.h"
#include "cli/show/histogram.h"
#include "cli/show/json.h"
#include "cli/show/report.h"
#include "cli/show/terminal.h"
#include "dhp/error.h"

namespace dhp::cli {
namespace {

constexpr std::int64_t kUsualCount = 512;
constexpr std::uint64_t kUsualSeed = 7;

struct DatasetCommand {
  std::string name;
  MediaOptions media;
  std::optional<std::int64_t> count;
  std::uint64_t seed = kUsualSeed;
  std::int64_t prompt_tokens = kPromptTokens;
  std::string out_file;
  bool json = false;
};

/// What the command answers.
struct Answer {
  std::vector<MediaSample> samples;
  std::optional<TokenRules> rules;  ///< none where all lengths are tokens already
  Batch batch;
};

/// Names of workloads are no names of files.
bool is_file(const std::string& name) {
  const auto& known = workloads();
  return std::none_of(known.begin(), known.end(), [&](const WorkloadInfo& info) { return info.name == name; }) &&
         (name.ends_with(".csv") || std::filesystem::is_regular_file(name));
}

std::vector<MediaSample> read_samples(const DatasetCommand& command) {
  if (!is_file(command.name)) {
    return draw_samples(command.name, command.count.value_or(kUsualCount), command.seed, command.prompt_tokens);
  }
  std::vector<MediaSample> samples = read_sample_file(command.name, command.prompt_tokens);
  return command.count ? draw_from(samples, *command.count, command.seed) : samples;
}

Answer answer_of(const DatasetCommand& command) {
  Answer answer;
  answer.samples = read_samples(command);
  bool needs_rules = false;
  for (const MediaSample& sample : answer.samples) needs_rules = needs_rules || sample.tokens == 0;
  if (needs_rules && command.media.model.empty()) {
    throw InputError("--model", "",
                     "is missing; expected qwen2-vl, qwen2.5-vl, qwen3-vl, internvl, a model of them (qwen3-vl-8b), or "
                     "a checkpoint folder");
  }
  if (!command.media.model.empty()) {
    const TokenRules rules = command.media.rules();  // a wrong name is one even where no model is asked
    if (needs_rules) answer.rules = rules;
  }
  const MediumOptions& medium = command.media.medium;
  if (!needs_rules && (medium.fps || medium.frames || medium.max_pixels || medium.max_tiles)) {
    throw InputError(
        command.name, "",
        "has lengths in tokens: --fps, --frames, --max-pixels and --max-tiles have no effect; remove them");
  }
  answer.batch =
      make_batch(answer.rules.value_or(TokenRules{}), answer.samples, command.media.medium, command.seed, command.name);
  return answer;
}

Histogram durations_of(const Answer& answer) {
  std::vector<double> values;
  for (const MediaSample& sample : answer.samples) {
    if (sample.duration_s > 0.0) values.push_back(sample.duration_s);
  }
  return Histogram(std::move(values));
}

Histogram tokens_of(const Answer& answer) {
  std::vector<double> values;
  for (const Sequence& sequence : answer.batch.sequences) values.push_back(static_cast<double>(sequence.tokens));
  return Histogram(std::move(values));
}

std::int64_t sum(const Batch& batch, std::int64_t Sequence::*member) {
  std::int64_t total = 0;
  for (const Sequence& sequence : batch.sequences) total += sequence.*member;
  return total;
}

std::string to_text(const DatasetCommand& command, const Answer& answer) {
  const int width = standard_output().width;
  std::string text = on_one_line(command.name) + ": " + count(answer.batch.sequences.size(), "sample") + ", " +
                     grouped(sum(answer.batch, &Sequence::tokens)) + " tokens, " +
                     grouped(sum(answer.batch, &Sequence::patches)) + " patches";
  if (answer.rules) {
    text += " | " + std::string(to_string(answer.rules->family)) + ", sampling " +
            std::string(to_string(answer.rules->sampling()));
  }
  text += '\n';
  if (const Histogram durations = durations_of(answer); durations.count() > 0) {
    text += durations.text("clip length", "s", 1, width);
  }
  return text + tokens_of(answer).text("sample length", "tokens", 0, width);
}

std::string to_json(const DatasetCommand& command, const Answer& answer) {
  const bool is_drawn = command.count || !is_file(command.name);
  const Json json = {
      {"name", command.name},
      {"seed", is_drawn ? Json(command.seed) : Json(nullptr)},
      {"model", answer.rules ? Json(to_string(answer.rules->family)) : Json(nullptr)},
      {"sampling", answer.rules ? Json(to_string(answer.rules->sampling())) : Json(nullptr)},
      {"samples", answer.batch.sequences.size()},
      {"total", {{"tokens", sum(answer.batch, &Sequence::tokens)}, {"patches", sum(answer.batch, &Sequence::patches)}}},
      {"duration_s", durations_of(answer).json()},
      {"tokens", tokens_of(answer).json()}};
  return json_line(json);
}

int run(const DatasetCommand& command) {
  if (is_file(command.name)) refuse_overwriting(command.out_file, {command.name});
  const Answer answer = answer_of(command);
  if (!command.out_file.empty()) write_atomically(command.out_file, dhp::to_json(answer.batch));
  std::cout << (command.json ? to_json(command, answer) : to_text(command, answer));
  return kOk;
}

std::string data_help() {
  std::string text =
      "a workload; an index from dhp index; or FILE.csv with columns duration_s,width,height[,fps]"
      "[,text_tokens] or tokens,patches[,frame_patches]:";
  for (const WorkloadInfo& info : workloads()) text += "\n  " + info.name + ": " + info.help;
  return text;
}

}  // namespace

void add_dataset_command(CLI::App& app, int& exit_code) {
  auto command = std::make_shared<DatasetCommand>();
  CLI::App& sub = *app.add_subcommand("dataset", "Make a batch with the lengths of a workload or of your data");
  sub.add_option("--data", command->name, data_help())->required();
  command->media.add_options(sub);
  sub.add_option("--count,--batch-size", command->count,
                 "number of samples; default 512, or for a file all of its rows in order");
  sub.add_option("--seed", command->seed, "seed that draws the samples; the same on every machine")
      ->check(any_seed())
      ->capture_default_str();
  sub.add_option("--prompt-tokens", command->prompt_tokens,
                 "text tokens apart from the caption (chat template, prompt), if a file has no text_tokens")
      ->capture_default_str();
  sub.add_option("-o,--output", command->out_file, "file for the batch (dhp.batch/1 JSON)");
  add_output_format(sub, command->json);
  sub.callback([command, &exit_code] { exit_code = run(*command); });
}

}  // namespace dhp::cli
