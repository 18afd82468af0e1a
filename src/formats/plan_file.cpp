#include <algorithm>

#include "base/json_reader.h"
#include "dhp/error.h"
#include "dhp/plan.h"
#include "formats/plan_memory.h"

namespace dhp {
namespace {

Task parse_task(const JsonObject& entry) {
  constexpr int kAnyInt = std::numeric_limits<int>::max();
  constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
  Task task;
  task.id = entry.integer("id", 0);
  // Ranks outside the plan, repeated ranks and unknown sequences are for check_plan, which names all of them.
  task.ranks = entry.integers("ranks", -kAnyInt - 1, kAnyInt);
  task.sequences = entry.wholes("sequences", -kAny - 1, kAny);
  task.micro_batch = entry.integer_or("micro_batch", 0, 0);
  task.exchange = parse_exchange(entry.text_or("exchange", "ring"), entry.source(), entry.path_of("exchange"));
  if (entry.has("start_s")) task.start_s = entry.non_negative("start_s");
  if (entry.has("end_s")) task.end_s = entry.non_negative("end_s");
  return task;
}

std::string format_task(const Task& task) {
  std::string text = "{\"id\": " + std::to_string(task.id) + ", \"ranks\": " + format_list(task.ranks) +
                     ", \"sequences\": " + format_list(task.sequences) +
                     ", \"micro_batch\": " + std::to_string(task.micro_batch) + ", \"exchange\": \"" +
                     std::string(to_string(task.exchange)) + "\"";
  if (task.start_s) text += ", \"start_s\": " + format_number(*task.start_s);
  if (task.end_s) text += ", \"end_s\": " + format_number(*task.end_s);
  return text + "}";
}

}  // namespace

Plan read_plan(const std::string& file) { return parse_plan(read_text_file(file, kMostDataBytes), file); }

Plan parse_plan(std::string_view text, const std::string& source) {
  constexpr std::size_t kShortest = 37;  // {"id":0,"ranks":[0],"sequences":[0]},
  Plan plan;
  PlanMemory memory(text.size());
  const auto entries = static_cast<std::size_t>(std::count(text.begin(), text.end(), '{'));
  const auto begin = [&] {
    plan.tasks.clear();
    memory = PlanMemory(text.size());
    plan.tasks.reserve(std::min(entries, text.size() / kShortest + 1));
  };
  const auto read = [&](const JsonObject& entry) {
    plan.tasks.push_back(parse_task(entry));
    if (memory.add(plan.tasks.back())) return;
    throw InputError(source, "tasks[" + std::to_string(plan.tasks.size() - 1) + "]",
                     "takes more memory than a file of this size may: too much in too few bytes");
  };
  const JsonDocument document(text, source,
                              {"format", "schedule", "ranks", "planner", "hash", "most_peers", "predicted"},
                              {"tasks", begin, read});
  const JsonObject root = document.root();
  root.expect_format("dhp.plan/1");
  plan.schedule = parse_schedule(root.text("schedule"), source, "schedule");
  plan.ranks = root.integer("ranks", 1, kMaxRanks);
  plan.planner = root.text_or("planner", "");
  plan.hash = root.text_or("hash", "");
  if (root.has("most_peers")) plan.most_peers = root.integer("most_peers", 0, kMaxRanks);
  if (root.has("predicted")) {
    const JsonObject predicted = root.object("predicted");
    const auto is_null = [&](const char* key) { return predicted.has(key) && !predicted.has_value(key); };
    plan.predicted =
        Prediction{.makespan_s = predicted.non_negative("makespan_s"),
                   // null: no bound is known
                   .lower_bound_s = is_null("lower_bound_s") ? 0.0 : predicted.non_negative("lower_bound_s"),
                   .gap = is_null("gap") ? 0.0 : predicted.number("gap")};
  }
  document.expect_entries("tasks");
  return plan;
}

std::string to_json(const Plan& plan) {
  std::string text = "{\"format\": \"dhp.plan/1\", \"schedule\": \"" + std::string(to_string(plan.schedule)) +
                     "\", \"ranks\": " + std::to_string(plan.ranks);
  if (!plan.planner.empty()) text += ", \"planner\": " + format_text(plan.planner);
  if (!plan.hash.empty()) text += ",\n \"hash\": " + format_text(plan.hash);
  if (plan.most_peers) text += ",\n \"most_peers\": " + std::to_string(*plan.most_peers);
  if (plan.predicted) {
    const auto& [makespan_s, lower_bound_s, gap] = *plan.predicted;
    const bool bounded = lower_bound_s > 0.0 || gap != 0.0 || makespan_s == 0.0;
    text += ",\n \"predicted\": {\"makespan_s\": " + format_number(makespan_s) +
            ", \"lower_bound_s\": " + (bounded ? format_number(lower_bound_s) : "null") +
            ", \"gap\": " + (bounded ? format_number(gap) : "null") + "}";
  }
  text += ",\n \"tasks\": [";
  const char* separator = "\n";
  for (const Task& task : plan.tasks) {
    text += separator;
    text += "  " + format_task(task);
    separator = ",\n";
  }
  return text + (plan.tasks.empty() ? "]}\n" : "\n ]}\n");
}

}  // namespace dhp
