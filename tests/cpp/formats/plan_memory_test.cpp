// Which plans are too large for their text.
#include "formats/plan_memory.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace dhp::plan_memory_test {
namespace {

constexpr std::size_t kTasks = 100'000;

/// Whether so many equal tasks have room, each of them this text.
bool have_room(std::string_view text, const Task& task, std::size_t always_allowed) {
  PlanMemory memory(kTasks * text.size(), always_allowed);
  bool room = true;
  for (std::size_t i = 0; i < kTasks; ++i) room = memory.add(task);
  return room;
}

Task task_of(std::size_t ranks, std::size_t sequences) {
  Task task;
  task.ranks.assign(ranks, 0);
  task.sequences.assign(sequences, 0);
  return task;
}

TEST(PlanMemory, RefusesMuchInFewBytes) {
  EXPECT_FALSE(have_room(R"({"id":0,"ranks":[0],"sequences":[0]},)", task_of(1, 1), 0));
  EXPECT_FALSE(have_room(R"({"id":0,"ranks":[0],"sequences":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]},)",
                         task_of(1, 26), 0));
}

TEST(PlanMemory, ReadsSmallOnesWhateverTheirText) {
  EXPECT_TRUE(have_room(R"({"id":0,"ranks":[0],"sequences":[0]},)", task_of(1, 1), std::size_t{1} << 30));
}

/// As short as dhp writes them.
TEST(PlanMemory, ReadsWhatDhpWrites) {
  Plan none;
  Plan one;
  one.tasks.push_back(task_of(1, 1));
  const std::string text(to_json(one).size() - to_json(none).size(), ' ');
  EXPECT_TRUE(have_room(text, one.tasks.front(), 0));
}

}  // namespace
}  // namespace dhp::plan_memory_test
