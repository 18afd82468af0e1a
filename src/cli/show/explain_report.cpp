#include "cli/show/explain_report.h"

#include <algorithm>
#include <cmath>
#include "base/index.h"
#include "cli/show/gantt.h"
#include "cli/show/json.h"
#include "cli/show/report.h"
#include "cli/show/table.h"

namespace dhp::cli {
namespace {

constexpr std::size_t kMostTasks = 10;

std::string verdict_text(const Report& report) {
  const Explanation& e = report.explanation;
  const PlanMetrics& m = report.metrics;
  std::string text = "step " + seconds_text(e.makespan_s);
  if (!uses_all_to_all(report.plan)) {
    text += ", bound " + seconds_text(e.lower_bound_s) + " (gap " + percent_text(e.gap) + ")";
  }
  text += ", limited by " + e.limited_by;
  text += "\ngroups    " + groups_text(e.degrees) + "\nidle      " + percent_text(e.idle_share);
  text += "\ntransfer  " + percent_text(m.exposed_transfer_share) + " of all ranks' time waits for transfers";
  text += "\nmemory    " + memory_text(m.peak_memory_bytes, report.cost) + " of activations on the fullest rank, " +
          percent_text(m.peak_memory_share) + " of its budget";
  text += "\npeers     " + peers_text(m.most_peers) + '\n';
  return text;
}

/// The first few of the options that the plan breaks.
std::string broken_text(const std::vector<std::string>& broken) {
  constexpr std::size_t kMostBroken = 3;
  std::string text;
  for (std::size_t i = 0; i < std::min(broken.size(), kMostBroken); ++i) {
    text += std::string(i == 0 ? "breaks    " : "          ") + broken[i] + '\n';
  }
  if (broken.size() > kMostBroken) {
    text += "          and " + count(broken.size() - kMostBroken, "more breach") +
            " of the options given (dhp check names all)\n";
  }
  return text;
}

std::string waits_text(const Explanation& explanation) {
  if (explanation.longest_waits.empty()) return "waits     none\n";
  std::string text = "longest waits\n";
  for (const Wait& wait : explanation.longest_waits) {
    text += "  " + seconds_text(wait.seconds) + " from " + seconds_text(wait.from_s) + ": rank " +
            std::to_string(wait.rank) + ' ' + wait.cause;
    if (wait.task >= 0) text += ", before task " + std::to_string(wait.task);
    text += '\n';
  }
  return text;
}

/// "0-7", "0-3 8-11", "0 5 9": runs of ranks, at most a few.
std::string ranks_text(std::vector<Rank> ranks) {
  constexpr int kMostRuns = 3;
  std::sort(ranks.begin(), ranks.end());
  std::string text;
  int runs = 0;
  for (std::size_t begin = 0, end = 0; begin < ranks.size(); begin = end) {
    while (end < ranks.size() && ranks[end] - ranks[begin] == static_cast<Rank>(end - begin)) ++end;
    if (++runs > kMostRuns) return text + " …";
    if (!text.empty()) text += ' ';
    text += std::to_string(ranks[begin]);
    if (end - begin > 1) text += (end - begin > 2 ? '-' : ' ') + std::to_string(ranks[end - 1]);
  }
  return text;
}

std::string tasks_text(const Report& report, bool all) {
  if (report.tasks.empty()) return "";
  std::vector<const TaskReason*> shown;
  for (const TaskReason& reason : report.tasks) shown.push_back(&reason);
  std::string text = "why each task has its ranks\n";
  if (!all && shown.size() > kMostTasks) {
    const auto weight = [&](const TaskReason* r) { return r->seconds * report.plan.tasks[index(r->task)].degree(); };
    const auto heavier = [&](const TaskReason* a, const TaskReason* b) {
      return weight(a) != weight(b) ? weight(a) > weight(b) : a < b;  // they stand in one vector
    };
    std::partial_sort(shown.begin(), shown.begin() + kMostTasks, shown.end(), heavier);
    shown.resize(kMostTasks);
    text = "why tasks have their ranks: the " + std::to_string(kMostTasks) + " that take most rank-seconds of " +
           std::to_string(report.tasks.size()) + " (--all shows all)\n";
  }
  TextTable table({{"task"},
                   {"degree"},
                   {"ranks", TextTable::Align::left},
                   {"tokens"},
                   {"start"},
                   {"time"},
                   {"why", TextTable::Align::left}});
  for (const TaskReason* reason : shown) {
    const Task& task = report.plan.tasks[index(reason->task)];
    table.add({std::to_string(reason->task), std::to_string(task.degree()), ranks_text(task.ranks),
               std::to_string(reason->tokens), seconds_text(reason->start_s), seconds_text(reason->seconds),
               reason->degree + "; " + reason->start});
  }
  return text + table.text("  ");
}

std::string what_if_text(const Report& report) {
  const WhatIf& what_if = report.what_if;
  if (what_if.changes.empty()) return "";
  std::string text = "what one change would buy (" + what_if.method;
  constexpr double kSame = 1e-6;
  if (!what_if.no_answer.empty()) {
    text += ", which as it is gives no answer: " + what_if.no_answer;
  } else if (std::abs(what_if.from_s - report.explanation.makespan_s) > kSame * report.explanation.makespan_s) {
    text += ", which as it is gives " + seconds_text(what_if.from_s);
  }
  text += ")\n";
  for (const Change& change : what_if.changes) {
    text += "  " + change.what + ": ";
    const std::string percent = change_text(change.from_s, change.makespan_s);
    if (!change.no_answer.empty()) {
      text += "no answer: " + change.no_answer;
    } else if (change.from_s == 0.0) {
      text += seconds_text(change.makespan_s);
    } else if (percent == "+0.0 %" || percent == "-0.0 %") {
      text += "no change";
    } else {
      text += seconds_text(change.makespan_s) + " (" + percent + ')';
    }
    text += '\n';
  }
  return text;
}

Json waits_json(const Explanation& explanation) {
  Json waits = Json::array();
  for (const Wait& wait : explanation.longest_waits) {
    waits.push_back({{"rank", wait.rank},
                     {"seconds", wait.seconds},
                     {"from_s", wait.from_s},
                     {"task", wait.task >= 0 ? Json(wait.task) : Json(nullptr)},
                     {"cause", wait.cause}});
  }
  return waits;
}

Json metrics_json(const PlanMetrics& metrics) {
  return {{"exposed_transfer_s", metrics.exposed_transfer_s},
          {"exposed_transfer_share", metrics.exposed_transfer_share},
          {"peak_memory_bytes", metrics.peak_memory_bytes},
          {"peak_memory_share", metrics.peak_memory_share},
          {"memory_bytes", metrics.memory_bytes},
          {"most_peers", metrics.most_peers},
          {"peers", metrics.peers}};
}

Json tasks_json(const Report& report) {
  Json tasks = Json::array();
  for (const TaskReason& reason : report.tasks) {
    const Task& task = report.plan.tasks[index(reason.task)];
    tasks.push_back({{"task", reason.task},
                     {"ranks", task.ranks},
                     {"tokens", reason.tokens},
                     {"start_s", reason.start_s},
                     {"seconds", reason.seconds},
                     {"degree_reason", reason.degree},
                     {"start_reason", reason.start}});
  }
  return tasks;
}

Json what_if_json(const WhatIf& what_if) {
  Json changes = Json::array();
  for (const Change& change : what_if.changes) {
    const bool answered = change.no_answer.empty();
    changes.push_back({{"what", change.what},
                       {"from_s", change.from_s > 0.0 ? Json(change.from_s) : Json(nullptr)},
                       {"makespan_s", answered ? Json(change.makespan_s) : Json(nullptr)},
                       {"no_answer", answered ? Json(nullptr) : Json(change.no_answer)}});
  }
  const bool answered = what_if.no_answer.empty();
  return {{"method", what_if.method},
          {"from_s", answered ? Json(what_if.from_s) : Json(nullptr)},
          {"no_answer", answered ? Json(nullptr) : Json(what_if.no_answer)},
          {"changes", changes}};
}

}  // namespace

Report make_report(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                   const PlanOptions& options) {
  return {.plan = plan,
          .cost = cost,
          .timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost)),
          .explanation = explain_plan(plan, batch, cluster, cost),
          .metrics = plan_metrics(plan, batch, cluster, cost),
          .tasks = explain_tasks(plan, batch, cluster, cost, options),
          .what_if = explain_changes(plan, batch, cluster, cost, options)};
}

std::string to_text(const Report& report, const Terminal& terminal, bool all) {
  return verdict_text(report) + broken_text(report.broken_options) + waits_text(report.explanation) +
         gantt_text(report.plan, report.timeline, terminal, all ? 0 : kMostGanttRows) + tasks_text(report, all) +
         printable(what_if_text(report));
}

std::string to_json(const Report& report) {
  const Explanation& e = report.explanation;
  const Json json = {{"makespan_s", e.makespan_s},
                     {"lower_bound_s", if_bounded(e.lower_bound_s, e.lower_bound_s)},
                     {"gap", if_bounded(e.lower_bound_s, e.gap)},
                     {"idle_share", e.idle_share},
                     {"limited_by", e.limited_by},
                     {"degrees", degrees_json(e)},
                     {"broken_options", report.broken_options},
                     {"metrics", metrics_json(report.metrics)},
                     {"longest_waits", waits_json(e)},
                     {"tasks", tasks_json(report)},
                     {"what_if", what_if_json(report.what_if)}};
  return json_line(json);
}

}  // namespace dhp::cli
