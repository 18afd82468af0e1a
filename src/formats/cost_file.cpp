#include <algorithm>
#include <bit>
#include <filesystem>
#include <tuple>

#include "base/json_reader.h"
#include "base/number_limits.h"
#include "dhp/cost_model.h"
#include "dhp/error.h"
#include "dhp/presets.h"

namespace dhp {
namespace {

PassCost parse_pass(const JsonObject& entry) {
  return {.token_s = entry.non_negative("token_s"),
          .pair_s = entry.non_negative("pair_s"),
          .step_s = entry.non_negative("step_s"),
          .sequence_step_s = entry.non_negative_or("sequence_step_s", 0.0),
          .ring_bytes_per_token = entry.non_negative("ring_bytes_per_token"),
          .all_to_all_bytes_per_token = entry.non_negative_or("all_to_all_bytes_per_token", 0.0)};
}

/// What is left out is 0, as in parse_error_sizes().
ErrorSizes parse_expected_error(const JsonObject& entry) {
  return {.sequence = entry.non_negative_or("sequence", 0.0),
          .task = entry.non_negative_or("task", 0.0),
          .rank = entry.non_negative_or("rank", 0.0)};
}

std::vector<ResidualFactor> parse_residuals(const JsonObject& root) {
  std::vector<ResidualFactor> residuals;
  for (const JsonObject& entry : root.objects("residuals")) {
    residuals.push_back({.degree = entry.integer("degree", 1),
                         .tokens = entry.whole("tokens", 1, kMaxTokens),
                         .factor = entry.non_negative("factor")});
  }
  return residuals;
}

std::string format_residuals(const std::vector<ResidualFactor>& residuals) {
  std::string text;
  for (const ResidualFactor& residual : residuals) {
    text += (text.empty() ? "" : ",\n  ") + ("{\"degree\": " + std::to_string(residual.degree)) +
            ", \"tokens\": " + std::to_string(residual.tokens) + ", \"factor\": " + format_number(residual.factor) +
            "}";
  }
  return ",\n \"residuals\": [" + text + "]";
}

std::string format_pass(const PassCost& pass) {
  return "{\"token_s\": " + format_number(pass.token_s) + ", \"pair_s\": " + format_number(pass.pair_s) +
         ", \"step_s\": " + format_number(pass.step_s) +
         ", \"sequence_step_s\": " + format_number(pass.sequence_step_s) +
         ", \"ring_bytes_per_token\": " + format_number(pass.ring_bytes_per_token) +
         ", \"all_to_all_bytes_per_token\": " + format_number(pass.all_to_all_bytes_per_token) + "}";
}

void check(double value, double most, const std::string& name, const std::string& source) {
  check_number(value, 0.0, most, name, source);
}

void check_pass(const PassCost& pass, const std::string& name, const std::string& source) {
  check(pass.token_s, kMostSeconds, name + ".token_s", source);
  check(pass.pair_s, kMostSeconds, name + ".pair_s", source);
  check(pass.step_s, kMostSeconds, name + ".step_s", source);
  check(pass.sequence_step_s, kMostSeconds, name + ".sequence_step_s", source);
  check(pass.ring_bytes_per_token, kMostBytes, name + ".ring_bytes_per_token", source);
  check(pass.all_to_all_bytes_per_token, kMostBytes, name + ".all_to_all_bytes_per_token", source);
}

void check_residuals(const std::vector<ResidualFactor>& residuals, const std::string& source) {
  for (std::size_t i = 0; i < residuals.size(); ++i) {
    const ResidualFactor& residual = residuals[i];
    const std::string name = "residuals[" + std::to_string(i) + "]";
    if (residual.degree < 2 || residual.degree > kMaxRanks) {
      throw InputError(source, name + ".degree",
                       "found " + std::to_string(residual.degree) + ", expected 2 to " + std::to_string(kMaxRanks));
    }
    if (residual.tokens < 1 || !std::has_single_bit(static_cast<std::uint64_t>(residual.tokens))) {
      throw InputError(source, name + ".tokens",
                       "found " + std::to_string(residual.tokens) + ", expected a power of two");
    }
    check_number(residual.factor, 1 / kMostResidualFactor, kMostResidualFactor, name + ".factor", source);
    if (i == 0) continue;
    const ResidualFactor& before = residuals[i - 1];
    if (std::tie(before.degree, before.tokens) < std::tie(residual.degree, residual.tokens)) continue;
    throw InputError(
        source, name,
        "expected after residuals[" + std::to_string(i - 1) + "] by degree, then by tokens, and not the same");
  }
}

}  // namespace

void validate(const CostModel& cost, const std::string& source) {
  check(cost.task_s, kMostSeconds, "task_s", source);
  check(cost.patch_s, kMostSeconds, "patch_s", source);
  check(cost.patch_pair_s, kMostSeconds, "patch_pair_s", source);
  check_pass(cost.forward, "forward", source);
  check_pass(cost.backward, "backward", source);
  check(cost.token_bytes, kMostBytes, "token_bytes", source);
  check(cost.patch_bytes, kMostBytes, "patch_bytes", source);
  check(cost.state_bytes, kMostBytes, "state_bytes", source);
  check(cost.gradient_bytes, kMostBytes, "gradient_bytes", source);
  check(cost.optimizer_s, kMostSeconds, "optimizer_s", source);
  if (cost.expected_error) validate(*cost.expected_error, source, "expected_error");
  check_residuals(cost.residuals, source);
}

CostModel read_cost_model(const std::string& file) {
  const auto is_named = [&](const Preset& model) { return model.name == file; };
  if (std::any_of(model_presets().begin(), model_presets().end(), is_named) && !std::filesystem::exists(file)) {
    throw InputError(file, "",
                     "is a model, expected a cost file; " + file + "@DEVICE counts one, and dhp cost --model " + file +
                         " --device DEVICE -o cost.json writes it");
  }
  return parse_cost_model(read_text_file(file), file);
}

CostModel parse_cost_model(std::string_view text, const std::string& source) {
  const JsonDocument document(text, source);
  const JsonObject root = document.root();
  root.expect_format("dhp.cost/1");
  CostModel cost;
  cost.name = root.text("name");
  cost.layers = root.integer("layers", 1);
  cost.task_s = root.non_negative("task_s");
  cost.patch_s = root.non_negative("patch_s");
  cost.patch_pair_s = root.non_negative_or("patch_pair_s", 0.0);
  cost.forward = parse_pass(root.object("forward"));
  cost.backward = parse_pass(root.object("backward"));
  cost.query_heads = root.integer_or("query_heads", 0, 1);
  cost.kv_heads = root.integer_or("kv_heads", 0, 1);
  cost.token_bytes = root.non_negative("token_bytes");
  cost.patch_bytes = root.non_negative_or("patch_bytes", 0.0);
  cost.state_bytes = root.non_negative("state_bytes");
  cost.gradient_bytes = root.non_negative_or("gradient_bytes", 0.0);
  cost.optimizer_s = root.non_negative_or("optimizer_s", 0.0);
  if (root.has_value("expected_error")) cost.expected_error = parse_expected_error(root.object("expected_error"));
  if (root.has_value("residuals")) cost.residuals = parse_residuals(root);
  validate(cost, source);
  return cost;
}

std::string to_json(const CostModel& cost) {
  std::string text = "{\"format\": \"dhp.cost/1\", \"name\": " + format_text(cost.name) +
                     ", \"layers\": " + std::to_string(cost.layers) + ", \"task_s\": " + format_number(cost.task_s) +
                     ", \"patch_s\": " + format_number(cost.patch_s);
  if (cost.patch_pair_s > 0.0) text += ", \"patch_pair_s\": " + format_number(cost.patch_pair_s);
  text += ",\n \"forward\": " + format_pass(cost.forward) + ",\n \"backward\": " + format_pass(cost.backward) + ",\n ";
  // Head counts are left out where they are not known.
  if (cost.query_heads > 0) text += "\"query_heads\": " + std::to_string(cost.query_heads) + ", ";
  if (cost.kv_heads > 0) text += "\"kv_heads\": " + std::to_string(cost.kv_heads) + ", ";
  text += "\"token_bytes\": " + format_number(cost.token_bytes) +
          ", \"patch_bytes\": " + format_number(cost.patch_bytes) +
          ", \"state_bytes\": " + format_number(cost.state_bytes);
  // What no planner needs is left out where it is not known, too.
  if (cost.gradient_bytes > 0.0) text += ", \"gradient_bytes\": " + format_number(cost.gradient_bytes);
  if (cost.optimizer_s > 0.0) text += ", \"optimizer_s\": " + format_number(cost.optimizer_s);
  if (cost.expected_error) {
    text += ",\n \"expected_error\": {\"sequence\": " + format_number(cost.expected_error->sequence) +
            ", \"task\": " + format_number(cost.expected_error->task) +
            ", \"rank\": " + format_number(cost.expected_error->rank) + "}";
  }
  if (!cost.residuals.empty()) text += format_residuals(cost.residuals);
  return text + "}\n";
}

}  // namespace dhp
