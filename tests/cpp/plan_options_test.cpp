// The table of options: names, texts, ranges and words of complaint, the same for every way of giving options.

#include "dhp/plan_options.h"

#include "plan_support.h"

namespace dhp {
namespace {

using test::input_error;

std::string complaint(const std::string& name, const std::string& text) {
  return input_error([&] {
    PlanOptions options;
    set_option(options, name, text, "here");
  });
}

TEST(PlanOptionsTable, EveryFieldIsReadAndWritten) {
  const std::vector<std::pair<std::string, std::string>> texts = {{"schedule", "static:2"},
                                                                  {"max_degree", "8"},
                                                                  {"degrees_divide", "32,8"},
                                                                  {"max_tokens_per_rank", "8192"},
                                                                  {"min_shard_tokens", "128"},
                                                                  {"max_peers", "7"},
                                                                  {"within_node", "true"},
                                                                  {"placement", "consecutive"},
                                                                  {"exchanges", "ring,hierarchical"},
                                                                  {"effort", "fast"},
                                                                  {"tighter_bound", "true"},
                                                                  {"pipeline_stages", "4"},
                                                                  {"no_idle_ranks", "true"}};
  PlanOptions options;
  ASSERT_EQ(plan_options().size(), texts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_EQ(plan_options()[i].name, texts[i].first);
    set_option(options, texts[i].first, texts[i].second, "here");
    EXPECT_EQ(option_text(options, texts[i].first), texts[i].second);
  }
  EXPECT_EQ(options.schedule, "static:2");
  EXPECT_EQ(options.max_degree, 8);
  EXPECT_EQ(options.degrees_divide, (std::vector{32, 8}));
  EXPECT_EQ(options.max_tokens_per_rank, 8192);
  EXPECT_EQ(options.min_shard_tokens, 128);
  EXPECT_EQ(options.max_peers, 7);
  EXPECT_TRUE(options.within_node);
  EXPECT_EQ(options.placement, Placement::consecutive);
  EXPECT_EQ(options.exchanges, (std::vector{Exchange::ring, Exchange::hierarchical}));
  EXPECT_EQ(options.effort, kEffortFast);
  EXPECT_TRUE(options.tighter_bound);
  EXPECT_EQ(options.pipeline_stages, 4);
  EXPECT_TRUE(options.no_idle_ranks);
}

TEST(PlanOptionsTable, DefaultsAreThoseOfTheStruct) {
  for (const OptionInfo& info : plan_options()) {
    PlanOptions options;
    set_option(options, info.name, info.default_text, "here");
    EXPECT_EQ(option_text(options, info.name), info.default_text) << info.name;
    EXPECT_FALSE(info.help.empty()) << info.name;
    EXPECT_EQ(info.placeholder.empty(), info.kind == OptionInfo::Kind::flag) << info.name;
  }
  EXPECT_EQ(option_text({}, "min_shard_tokens"), "64");
  EXPECT_EQ(option_text({}, "effort"), "default");
  EXPECT_NO_THROW(validate(PlanOptions{}));
}

TEST(PlanOptionsTable, LevelsOfEffort) {
  PlanOptions options;
  set_option(options, "effort", "12345678901", "here");
  EXPECT_EQ(options.effort, 12345678901);
  set_option(options, "effort", "default", "here");
  EXPECT_EQ(options.effort, 0);
}

TEST(PlanOptionsTable, EmptyListsUndoEarlierOnes) {
  PlanOptions options{.degrees_divide = {8}, .exchanges = {Exchange::ring}};
  set_option(options, "degrees_divide", "", "here");
  set_option(options, "exchanges", "", "here");
  EXPECT_TRUE(options.degrees_divide.empty());
  EXPECT_TRUE(options.exchanges.empty());
}

TEST(PlanOptionsTable, ComplaintsNameWhatWasFound) {
  EXPECT_EQ(complaint("max_degree", "-1"), "here: found -1, expected at least 0");
  EXPECT_EQ(complaint("max_degree", "few"), "here: found \"few\", expected a whole number");
  EXPECT_EQ(complaint("max_degree", "1.5"), "here: found \"1.5\", expected a whole number");
  EXPECT_EQ(complaint("max_degree", ""), "here: found \"\", expected a whole number");
  EXPECT_EQ(complaint("max_degree", "3000000000"), "here: found \"3000000000\", expected at most 2147483647");
  EXPECT_EQ(complaint("degrees_divide", "8,0"), "here: found 0, expected at least 1");
  EXPECT_EQ(complaint("degrees_divide", "8,,4"), "here: found \"8,,4\", expected a whole number");
  EXPECT_EQ(complaint("within_node", "yes"), "here: found \"yes\", expected true or false");
  EXPECT_EQ(complaint("placement", "near"), "here: found \"near\", expected any or consecutive");
  EXPECT_EQ(complaint("effort", "most"), "here: found \"most\", expected default, fast or a whole number");
  EXPECT_EQ(complaint("effort", "-3"), "here: found -3, expected at least 1");
  EXPECT_EQ(complaint("exchanges", "ring,pigeon"),
            "here: found \"pigeon\", expected one of ring, direct, hierarchical, all_to_all");
  EXPECT_EQ(
      complaint("exchanges", "all_to_all"),
      "here: found all_to_all, which ulysses uses without being told, and no other planner; expected ring, direct, "
      "hierarchical");
  EXPECT_EQ(complaint("degree", "1").substr(0, 43), "here: unknown option; expected one of sched");
}

TEST(PlanOptionsTable, ValidationNamesTheFlag) {
  const auto error = [](const PlanOptions& options) { return input_error([&] { validate(options); }); };
  EXPECT_EQ(error({.max_degree = -2}), "--max-degree: found -2, expected at least 0");
  EXPECT_EQ(error({.degrees_divide = {4, 0}}), "--degrees-divide: found 0, expected at least 1");
  EXPECT_EQ(error({.min_shard_tokens = 0}), "--min-shard-tokens: found 0, expected at least 1");
  EXPECT_EQ(error({.effort = -1}), "--effort: found -1, expected at least 1");
  EXPECT_EQ(error({.pipeline_stages = 0}), "--pipeline-stages: found 0, expected at least 1");
}

}  // namespace
}  // namespace dhp
