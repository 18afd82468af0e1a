#include <algorithm>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

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

/// How often the file has this character.
std::size_t count_of(char character, std::ifstream& file) {
  std::vector<char> piece(std::size_t{1} << 20);
  std::size_t count = 0;
  do {
    file.read(piece.data(), std::ssize(piece));
    count += static_cast<std::size_t>(std::count(piece.begin(), piece.begin() + file.gcount(), character));
  } while (file);
  file.clear();
  file.seekg(0);
  return count;
}

/// `text`: what a JsonDocument is made of. No more than `entries` tasks are in it.
template <typename Text>
Plan plan_of(Text& text, const std::string& source, std::size_t entries, const PlanMemory& empty) {
  Plan plan;
  PlanMemory memory = empty;
  const auto begin = [&] {
    plan.tasks.clear();
    memory = empty;
    plan.tasks.reserve(std::min(entries, memory.most_tasks()));
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

Plan read_plan(const std::string& file) {
  const std::optional<std::size_t> size = size_of_file(file);
  if (!size) return parse_plan(read_text_file(file, kMostDataBytes), file);  // a pipe, or an error
  std::ifstream stream = open_text_file(file, kMostDataBytes);
  const std::size_t entries = count_of('{', stream);
  return plan_of(stream, file, entries, PlanMemory::of_file(*size));
}

Plan parse_plan(std::string_view text, const std::string& source) {
  const auto entries = static_cast<std::size_t>(std::count(text.begin(), text.end(), '{'));
  return plan_of(text, source, entries, PlanMemory::of_text(text.size()));
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
