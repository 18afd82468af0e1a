// The table of options: names, texts, ranges and words of complaint, the same for every way of giving options.

#include "dhp/plan_options.h"

#include "plan_support.h"

namespace dhp::plan_options_test {
namespace {

using test::input_error;

std::string complaint(const std::string& name, const std::string& text) {
  return input_error([&] {
    PlanOptions options;
    set_option(options, name, text, "here");
  });
}

TEST(PlanOptionsTable, EveryFieldIsReadAndWritten) {
  const std::vector<std::pair<std::string, std::string>> texts = {{"planner", "static:2"},
                                                                  {"max_degree", "8"},
                                                                  {"degrees_divide", "32,8"},
                                                                  {"max_tokens_per_rank", "8192"},
                                                                  {"min_shard_tokens", "128"},
                                                                  {"max_peers", "7"},
                                                                  {"within_node", "true"},
                                                                  {"placement", "consecutive"},
                                                                  {"exchanges", "ring,hierarchical"},
                                                                  {"effort", "fast"},
                                                                  {"expect_error", "0.1,0,0.05"},
                                                                  {"most_loss", "0.25"},
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
  EXPECT_EQ(options.planner, "static:2");
  EXPECT_EQ(options.max_degree, 8);
  EXPECT_EQ(options.degrees_divide, (std::vector{32, 8}));
  EXPECT_EQ(options.max_tokens_per_rank, 8192);
  EXPECT_EQ(options.min_shard_tokens, 128);
  EXPECT_EQ(options.max_peers, 7);
  EXPECT_TRUE(options.within_node);
  EXPECT_EQ(options.placement, Placement::consecutive);
  EXPECT_EQ(options.exchanges, (std::vector{Exchange::ring, Exchange::hierarchical}));
  EXPECT_EQ(options.effort, kEffortFast);
  EXPECT_EQ(options.expect_error, (ErrorSizes{0.1, 0.0, 0.05}));
  EXPECT_EQ(options.most_loss, 0.25);
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
  EXPECT_EQ(options.effort, kEffortDefault);
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
  EXPECT_EQ(complaint("effort", "0"), "here: found 0, expected at least 1");
  EXPECT_EQ(complaint("expect_error", "0.1,2"), "here: task: found 2, expected a number from 0 to 1");
  EXPECT_EQ(complaint("expect_error", "little").substr(0, 36), "here: found \"little\", expected SEQ[,");
  EXPECT_EQ(complaint("most_loss", "1.5"), "here: found 1.5, expected a number from 0 to 1");
  EXPECT_EQ(complaint("most_loss", "-1"), "here: found -1, expected a number from 0 to 1");
  EXPECT_EQ(complaint("most_loss", "nan"), "here: found nan, expected a number from 0 to 1");
  EXPECT_EQ(complaint("most_loss", "1 %"), "here: found \"1 %\", expected a number");
  EXPECT_EQ(complaint("exchanges", "ring,pigeon"),
            "here: found \"pigeon\", expected one of ring, direct, hierarchical, all_to_all");
  EXPECT_EQ(
      complaint("exchanges", "all_to_all"),
      "here: found all_to_all, which ulysses uses without being told, and no other planner; expected ring, direct, "
      "hierarchical");
  EXPECT_EQ(complaint("degree", "1").substr(0, 45), "here: unknown option; expected one of planner");
}

TEST(PlanOptionsTable, OptionsOfSomePlannersAloneAreRefusedForOthers) {
  const auto error = [](const PlanOptions& options) { return input_error([&] { refuse_unused(options); }); };
  EXPECT_EQ(error({.planner = "free", .pipeline_stages = 4}),
            "--pipeline-stages: is not used by free: leave it out, or take a planner that uses it (lockstep)");
  EXPECT_EQ(error({.planner = "static:4", .effort = kEffortFast}),
            "--effort: is not used by static: leave it out, or take a planner that uses it (free, lockstep)");
  EXPECT_EQ(error({.planner = "megatron-hybrid:100", .no_idle_ranks = true}),
            "--no-idle-ranks: is not used by megatron-hybrid: leave it out, or take a planner that uses it (lockstep, "
            "paper, megatron-dynamic)");
  EXPECT_EQ(error({.planner = "ulysses", .min_shard_tokens = 32}),
            "--min-shard-tokens: is not used by ulysses: leave it out, or take a planner that uses it (free, "
            "lockstep, paper)");
  EXPECT_EQ(error({.planner = "fastest"}).substr(0, 29), "--planner: found \"fastest\", e");
  const PlanOptions all{.planner = "lockstep",
                        .max_degree = 2,
                        .min_shard_tokens = 8,
                        .effort = kEffortFast,
                        .pipeline_stages = 2,
                        .no_idle_ranks = true};
  EXPECT_NO_THROW(refuse_unused(all));
  for (const PlannerInfo& planner : planners()) {
    EXPECT_NO_THROW(refuse_unused({.planner = planner.name.substr(0, planner.name.find(':')), .max_peers = 3}));
  }
}

/// What a planner does not use by the table gives the same plan whatever it is.
TEST(PlanOptionsTable, UnusedOptionsChangeNothing) {
  const Cluster cluster = test::make_cluster(2, 4, 1000.0);
  const Batch batch = test::make_batch({1500, 900, 700, 650, 300, 200, 150, 90, 90, 80, 70, 60, 60, 50, 40});
  const std::vector<std::pair<std::string, std::string>> values = {
      {"min_shard_tokens", "100"}, {"effort", "1"}, {"pipeline_stages", "9"}, {"no_idle_ranks", "true"}};
  for (const PlannerInfo& planner : planners()) {
    if (planner.name.find(':') != std::string::npos || planner.name == "ulysses") continue;
    const auto plan = [&](const PlanOptions& options) {
      const PlanResult result = plan_batch(batch, cluster, test::make_cost(), options);
      return std::holds_alternative<Plan>(result) ? to_json(std::get<Plan>(result)) : "infeasible";
    };
    const std::string usual = plan({.planner = planner.name});
    for (const auto& [name, value] : values) {
      PlanOptions options{.planner = planner.name};
      set_option(options, name, value, "here");
      if (!uses_option(planner.name, name)) {
        EXPECT_EQ(plan(options), usual) << planner.name << ' ' << name;
      }
    }
  }
}

TEST(PlanOptionsTable, HelpNamesThePlanners) {
  for (const OptionInfo& info : plan_options()) {
    const bool own = !uses_option("static", info.name);
    EXPECT_EQ(info.help.ends_with(", paper)") || info.help.ends_with("lockstep)") || info.help.ends_with("dynamic)"),
              own)
        << info.help;
  }
}

TEST(PlanOptionsTable, ValidationNamesTheFlag) {
  const auto error = [](const PlanOptions& options) { return input_error([&] { validate(options); }); };
  EXPECT_EQ(error({.max_degree = -2}), "--max-degree: found -2, expected at least 0");
  EXPECT_EQ(error({.degrees_divide = {4, 0}}), "--degrees-divide: found 0, expected at least 1");
  EXPECT_EQ(error({.min_shard_tokens = 0}), "--min-shard-tokens: found 0, expected at least 1");
  EXPECT_EQ(error({.effort = -1}), "--effort: found -1, expected at least 1");
  EXPECT_EQ(error({.effort = 0}), "--effort: found 0, expected at least 1");
  EXPECT_EQ(error({.pipeline_stages = 0}), "--pipeline-stages: found 0, expected at least 1");
}

}  // namespace
}  // namespace dhp::plan_options_test
