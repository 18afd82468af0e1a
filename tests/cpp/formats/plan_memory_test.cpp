// Which plans are too large for their text.
#include "formats/plan_memory.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace dhp::plan_memory_test {
namespace {

constexpr std::size_t kTasks = 1'000'000;

constexpr std::string_view kShortest = R"({"id":0,"ranks":[0],"sequences":[0]},)";

/// Whether so many equal tasks have room, each of them this text.
bool have_room(std::string_view text, const Task& task, PlanMemory (*of)(std::size_t), std::size_t tasks = kTasks) {
  PlanMemory memory = of(tasks * text.size());
  bool room = true;
  for (std::size_t i = 0; i < tasks; ++i) room = memory.add(task);
  return room;
}

Task task_of(std::size_t ranks, std::size_t sequences) {
  Task task;
  task.ranks.assign(ranks, 0);
  task.sequences.assign(sequences, 0);
  return task;
}

TEST(PlanMemory, RefusesMuchInFewBytes) {
  EXPECT_FALSE(have_room(kShortest, task_of(1, 1), PlanMemory::of_file));
  EXPECT_FALSE(have_room(kShortest, task_of(1, 1), PlanMemory::of_text, 10 * kTasks));
  EXPECT_FALSE(have_room(R"({"id":0,"ranks":[0],"sequences":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]},)",
                         task_of(1, 26), PlanMemory::of_file));
}

TEST(PlanMemory, ReadsSmallOnesWhateverTheirText) {
  EXPECT_TRUE(have_room(kShortest, task_of(1, 1), PlanMemory::of_file, 100'000));
  EXPECT_TRUE(have_room(kShortest, task_of(1, 1), PlanMemory::of_text, 1'000'000));
}

/// No field that could be left out, and as many digits as it takes to number the tasks.
TEST(PlanMemory, ReadsNumberedTasks) {
  EXPECT_TRUE(have_room(R"({"id":123456,"ranks":[0],"sequences":[123456]},)", task_of(1, 1), PlanMemory::of_file));
  EXPECT_TRUE(have_room(R"({"id":1234567,"ranks":[0],"sequences":[1234567]},)", task_of(1, 1), PlanMemory::of_file,
                        10 * kTasks));
}

/// As short as dhp writes them.
TEST(PlanMemory, ReadsWhatDhpWrites) {
  Plan none;
  Plan one;
  one.tasks.push_back(task_of(1, 1));
  const std::string text(to_json(one).size() - to_json(none).size(), ' ');
  EXPECT_TRUE(have_room(text, one.tasks.front(), PlanMemory::of_file));
  EXPECT_TRUE(have_room(text, one.tasks.front(), PlanMemory::of_text, 10 * kTasks));
}

}  // namespace
}  // namespace dhp::plan_memory_test
