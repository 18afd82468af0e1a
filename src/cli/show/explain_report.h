#pragma once

#include <string>

#include "cli/show/terminal.h"
#include "dhp/explain.h"
#include "dhp/metrics.h"

namespace dhp::cli {

/// All that dhp explain knows of a plan.
struct Report {
  Plan plan;
  CostModel cost;
  Timeline timeline;
  Explanation explanation;
  PlanMetrics metrics;
  std::vector<TaskReason> tasks;
  WhatIf what_if;
  std::vector<std::string> broken_options = {};  ///< in which the plan breaks the options given
};
Report make_report(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                   const PlanOptions& options);

/// Verdict, waits, Gantt chart, reasons of tasks, what a change would buy. `all`: every rank and every task.
std::string to_text(const Report& report, const Terminal& terminal, bool all);
std::string to_json(const Report& report);

}  // namespace dhp::cli
