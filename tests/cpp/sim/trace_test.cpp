// Traces are handed over in parts, which are one JSON text together.

#include "dhp/trace.h"

#include <nlohmann/json.hpp>

#include "plan_support.h"

namespace dhp::trace_test {
namespace {

TEST(Trace, LargeOnesComeInParts) {
  const Cluster cluster = test::make_cluster(1, 8, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({4000, 900, 800, 700, 300, 200, 100, 100, 50, 50});
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {}));
  const auto parts_of = [&](int steps) {
    const Simulation simulation = simulate(plan, batch, cluster, cost, {.steps = steps, .recorded_steps = steps});
    std::vector<std::string> parts;
    chrome_trace([&](std::string_view part) { parts.emplace_back(part); }, simulation, plan, batch, cluster, cost);
    return parts;
  };
  const auto events_of = [](const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& part : parts) text += part;
    return nlohmann::json::parse(text)["traceEvents"].size();
  };
  constexpr std::size_t kSteps = 200;
  const std::vector<std::string> one = parts_of(1);
  const std::vector<std::string> two = parts_of(2);
  const std::vector<std::string> many = parts_of(static_cast<int>(kSteps));
  EXPECT_EQ(one.size(), 1U);
  EXPECT_GT(many.size(), 2U);
  for (const std::string& part : many) EXPECT_LT(part.size(), 1'100'000U);
  const std::size_t a_step = events_of(two) - events_of(one);
  EXPECT_EQ(events_of(many), events_of(one) + (kSteps - 1) * a_step);
}

}  // namespace
}  // namespace dhp::trace_test
