#include "base/json_reader.h"
#include "dhp/result.h"

namespace dhp {
namespace {

/// `[\n a,\n b]`: one entry a line.
template <typename Values, typename Format>
std::string format_lines(const Values& values, const Format& format) {
  std::string text = "[";
  for (const auto& value : values) text += (text.size() > 1 ? ",\n  " : "\n  ") + format(value);
  return text + "]";
}

std::string format_optional(const char* name, const std::optional<double>& value) {
  return value ? ", \"" + std::string(name) + "\": " + format_number(*value) : "";
}

std::string format_numbers(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) text += (text.size() > 1 ? ", " : "") + format_number(value);
  return text + "]";
}

std::string format_idle(const IdleTime& idle) {
  return "{\"peer\": " + format_number(idle.peer_s) + ", \"transfer\": " + format_number(idle.transfer_s) +
         ", \"data\": " + format_number(idle.data_s) + ", \"no_task\": " + format_number(idle.no_task_s) + "}";
}

std::string format_step(const ResultStep& step) {
  return "{\"step\": " + std::to_string(step.step) + ", \"seconds\": " + format_number(step.seconds) +
         format_optional("tasks_s", step.tasks_s) + format_optional("predicted_s", step.predicted_s) +
         format_optional("expected_s", step.expected_s) + format_optional("lower_bound_s", step.lower_bound_s) +
         ", \"tokens\": " + format_number(step.tokens) + format_optional("planning_s", step.planning_s) +
         ", \"idle_s\": " + format_idle(step.idle) + "}";
}

std::string format_result_task(const ResultTask& task) {
  return "{\"step\": " + std::to_string(task.step) + ", \"id\": " + std::to_string(task.id) +
         ", \"degree\": " + std::to_string(task.degree) + ", \"sequences\": " + std::to_string(task.sequences) +
         ", \"tokens\": " + format_number(task.tokens) + ", \"predicted_s\": " + format_number(task.predicted_s) +
         ", \"seconds\": " + format_number(task.seconds) + "}";
}

std::string format_span(const ResultSpan& span) {
  std::string text = "{\"rank\": " + std::to_string(span.rank) + ", \"kind\": \"" + to_string(span.kind) +
                     "\", \"start_s\": " + format_number(span.start_s) + ", \"end_s\": " + format_number(span.end_s);
  if (span.task >= 0) text += ", \"task\": " + std::to_string(span.task);
  return text + "}";
}

std::string format_memory(const ResultMemory& memory) {
  std::string text = "{\"budget_bytes\": " + format_number(memory.budget_bytes) +
                     ",\n  \"peak_bytes\": " + format_numbers(memory.peak_bytes);
  if (!memory.over_time.empty()) {
    text += ",\n  \"over_time\": " + format_lines(memory.over_time, [](const MemoryPoint& point) {
              return "{\"rank\": " + std::to_string(point.rank) + ", \"time_s\": " + format_number(point.time_s) +
                     ", \"bytes\": " + format_number(point.bytes) + "}";
            });
  }
  return text + "}";
}

}  // namespace

IdleTime& IdleTime::operator+=(const IdleTime& other) {
  peer_s += other.peer_s;
  transfer_s += other.transfer_s;
  data_s += other.data_s;
  no_task_s += other.no_task_s;
  return *this;
}

std::string to_string(ResultSpan::Kind kind) {
  switch (kind) {
    case ResultSpan::Kind::compute:
      return "compute";
    case ResultSpan::Kind::transfer:
      return "transfer";
    case ResultSpan::Kind::peer:
      return "peer";
    case ResultSpan::Kind::data:
      return "data";
    case ResultSpan::Kind::reduce:
      return "reduce";
    case ResultSpan::Kind::optimizer:
      return "optimizer";
  }
  return "";
}

std::string to_json(const Result& result) {
  std::string text = "{\"format\": \"dhp.result/1\", \"kind\": " + format_text(result.kind) +
                     ", \"name\": " + format_text(result.name) + ", \"planner\": " + format_text(result.planner) +
                     ",\n \"ranks\": " + std::to_string(result.ranks) +
                     ", \"ranks_in_service\": " + std::to_string(result.ranks_in_service) +
                     ", \"ranks_per_node\": " + std::to_string(result.ranks_per_node) +
                     ", \"clock\": " + format_text(result.clock) +
                     ",\n \"steps\": " + format_lines(result.steps, format_step);
  if (!result.tasks.empty()) text += ",\n \"tasks\": " + format_lines(result.tasks, format_result_task);
  if (result.timeline) {
    text += ",\n \"timeline\": {\"step\": " + std::to_string(result.timeline->step) +
            ", \"spans\": " + format_lines(result.timeline->spans, format_span) + "}";
  }
  if (result.memory) text += ",\n \"memory\": " + format_memory(*result.memory);
  if (!result.lengths.empty()) text += ",\n \"lengths\": " + format_numbers(result.lengths);
  return text + "}\n";
}

}  // namespace dhp
