// What dhp explain and dhp compare draw: the chart of ranks and time, tables.

#include "cli/show/gantt.h"

#include "cli/show/table.h"
#include "plan_support.h"

namespace dhp::gantt_test {
namespace {

Plan plan_of_tasks(int ranks, const std::vector<std::vector<Rank>>& groups) {
  Plan plan{.schedule = Schedule::free, .ranks = ranks, .predicted = {}};
  for (const std::vector<Rank>& group : groups) {
    plan.tasks.push_back({.id = static_cast<int>(plan.tasks.size()), .ranks = group, .start_s = {}, .end_s = {}});
  }
  return plan;
}

TEST(Gantt, CellsShowTheDegreeOfTheTaskThatFillsThem) {
  // 20 cells of 0.5 s: rank 0 has 4 s alone and 6 s of two; rank 1 waits 4 s for it; rank 2 ends after 3 s of two
  // tasks.
  const Plan plan = plan_of_tasks(3, {{0}, {0, 1}, {2}, {2}});
  const Timeline timeline = replay(plan, std::vector{4.0, 6.0, 1.0, 2.0});
  EXPECT_EQ(cli::gantt_text(plan, timeline, {.width = 22, .colour = false}, 0),
            "ranks and time; ranks of a group: 1 2; idle ·\n"
            "0 |1111111|22222222222\n"
            "1 ········|22222222222\n"
            "2 |1|111··············\n"
            "  0           10.000 s\n");
}

TEST(Gantt, ColoursStandForDegrees) {
  const Plan plan = plan_of_tasks(1, {{0}, {0}});
  const std::string text = cli::gantt_text(plan, replay(plan, std::vector{5.0, 5.0}), {.width = 22, .colour = true}, 0);
  EXPECT_NE(text.find("0 \x1b[38;5;75m▐█████████▐█████████\x1b[0m\n"), std::string::npos) << text;
}

TEST(Gantt, ShortTasksAndWideGroups) {
  std::vector<std::vector<Rank>> groups(40, {0});
  groups.emplace_back();
  for (Rank rank = 0; rank < 11; ++rank) groups.back().push_back(rank);
  const Plan plan = plan_of_tasks(11, groups);
  std::vector<double> seconds(40, 0.25);  // two a cell
  seconds.push_back(10.0);
  const std::string text = cli::gantt_text(plan, replay(plan, seconds), {.width = 43, .colour = false}, 1);
  EXPECT_EQ(text,
            "ranks and time, one rank of every 11 (--all shows all); ranks of a group: 1 b=11; idle ·\n"
            " 0 11111111111111111111|bbbbbbbbbbbbbbbbbbb\n"
            "   0                               20.000 s\n");
}

TEST(Gantt, ManyRanksAreSampled) {
  std::vector<std::vector<Rank>> groups;
  for (Rank rank = 0; rank < 10; ++rank) groups.push_back({rank});
  const Plan plan = plan_of_tasks(10, groups);
  const std::string text =
      cli::gantt_text(plan, replay(plan, std::vector<double>(10, 1.0)), {.width = 30, .colour = false}, 4);
  EXPECT_TRUE(text.starts_with("ranks and time, 4 of 10 ranks (--all shows all);")) << text;
  for (const char* row : {"\n0 |", "\n2 |", "\n5 |", "\n7 |"}) EXPECT_NE(text.find(row), std::string::npos) << text;
  EXPECT_EQ(text.find("\n1 |"), std::string::npos);
}

TEST(Gantt, NothingOfAnEmptyPlan) {
  const Plan plan = plan_of_tasks(3, {});
  EXPECT_EQ(cli::gantt_text(plan, replay(plan, {}), {}, 0), "");
}

TEST(TextTable, ColumnsAreAsWideAsTheirContents) {
  cli::TextTable table({{"name", cli::TextTable::Align::left}, {"×"}, {"why", cli::TextTable::Align::left}});
  table.add({"a", "1.25", "short"});
  table.add({"longer", "·", "x"});
  table.add({"b", "a sentence that runs on"});
  EXPECT_EQ(table.text("> "),
            "> name       ×  why\n"
            "> a       1.25  short\n"
            "> longer     ·  x\n"
            "> b       a sentence that runs on\n");
}

}  // namespace
}  // namespace dhp::gantt_test
