#include <algorithm>
#include <charconv>

#include "dhp/plan_options.h"
#include "readers.h"

namespace dhp::fuzz {
namespace {

using Kind = OptionInfo::Kind;

const OptionInfo* find(std::string_view name) {
  for (const OptionInfo& info : plan_options()) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

/// Numbers are taken as they stand, neither wrapped nor cut.
void check_number(const OptionInfo& info, std::string_view text, const std::string& read_back) {
  if (info.kind != Kind::whole) return;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  require(error == std::errc{} && end == text.data() + text.size(), "a number that is taken is a whole number");
  require(read_back == std::to_string(value), "a number that is taken is the one in the text");
}

void set(PlanOptions& options, std::string_view line) {
  const std::size_t equals = std::min(line.find('='), line.size());
  const std::string name(line.substr(0, equals));
  const std::string text(line.substr(std::min(equals + 1, line.size())));
  const auto taken = unless_input_error([&] {
    set_option(options, name, text, "--" + name);
    return true;
  });
  if (!taken) return;
  const OptionInfo* info = find(name);
  require(info != nullptr, "an option that is taken is known");
  const std::string read_back = option_text(options, name);
  check_number(*info, text, read_back);
  PlanOptions again;
  set_option(again, name, read_back, "again");
  require(option_text(again, name) == read_back, "an option survives being written");
}

}  // namespace

void options(std::string_view text) {
  PlanOptions options;
  options.planner = "paper";  // the quickest, unless the text names another
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    set(options, text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  if (options.effort > 2) options.effort = 2;
  const Cluster cluster{2, 2, 100, {1e9, 1e-5, 7}, {1e8, 1e-4, 1}, {}};
  const Batch batch{.sequences = {{0, 1, 0}, {1, 90, 0}, {2, 350, 0}}};
  CostModel cost;
  cost.layers = 1;
  cost.task_s = 0.01;
  cost.forward = cost.backward = {1e-3, 1e-5, 1e-3, 1e-4, 100, 300};
  cost.query_heads = 4;
  cost.token_bytes = 1.0;
  const auto result = unless_input_error([&] { return plan_batch(batch, cluster, cost, options); });
  if (!result) return;
  if (const auto* plan = std::get_if<Plan>(&*result)) {
    require(check_plan(*plan, batch, cluster, cost).empty(), "a plan is valid");
    check_options(*plan, batch, cluster, cost, options);
  }
}

}  // namespace dhp::fuzz
