// Bad files: every message names the file, the location, what stands there and what belongs there.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "dhp/plan.h"
#include "support.h"
#include "temporary_folder.h"

namespace dhp::bad_input_test {
namespace {

const std::string kBatch = R"({"format": "dhp.batch/1", "sequences": [{"id": 0, "tokens": 10, "patches": 4},
 {"id": 1, "tokens": 20}]})";
const std::string kCluster = R"({"format": "dhp.cluster/1", "nodes": 2, "ranks_per_node": 4, "memory_bytes": 1e9,
 "intra_node": {"bandwidth_bytes_per_s": 1e9, "latency_s": 1e-5, "links": 7},
 "inter_node": {"bandwidth_bytes_per_s": 5e8, "latency_s": 0}})";
const std::string kCost = R"({"format": "dhp.cost/1", "name": "m", "layers": 2, "task_s": 0.1, "patch_s": 0.2,
 "forward": {"token_s": 1, "pair_s": 2, "step_s": 3, "ring_bytes_per_token": 4},
 "backward": {"token_s": 5, "pair_s": 6, "step_s": 7, "ring_bytes_per_token": 8}, "query_heads": 16, "kv_heads": 8,
 "token_bytes": 9, "state_bytes": 10, "expected_error": {"sequence": 0.03, "task": 0.04},
 "residuals": [{"degree": 3, "tokens": 64, "factor": 1.25}, {"degree": 3, "tokens": 128, "factor": 0.75}]})";
const std::string kPlan = R"({"format": "dhp.plan/1", "schedule": "free", "ranks": 2, "tasks": [
 {"id": 0, "ranks": [0, 1], "sequences": [7], "micro_batch": 3, "exchange": "direct", "start_s": 1, "end_s": 2}],
 "predicted": {"makespan_s": 2, "lower_bound_s": 1, "gap": 1}})";

struct BadInput {
  std::string from;  // part of the good text ...
  std::string to;    // ... and what makes it bad
  std::string location;
  std::vector<std::string> words;  // all stand in the message
};

using Parse = std::function<void(const std::string& text)>;

/// Names must not forge lines of ours.
TEST(InputErrors, AreOneLine) {
  const InputError error("a\nb.json", "x\ty", "found \"1\r\n\x1b[31m\", expected 2");
  EXPECT_STREQ(error.what(), "a\\nb.json: x\\ty: found \"1\\x0d\\n\\x1b[31m\", expected 2");
}

void expect_errors(const std::string& good, const std::string& source, const Parse& parse,
                   const std::vector<BadInput>& table) {
  EXPECT_NO_THROW(parse(good));
  for (const BadInput& bad : table) {
    SCOPED_TRACE(bad.from + " -> " + bad.to);
    std::string text = good;
    const std::size_t at = text.find(bad.from);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, bad.from.size(), bad.to);
    const std::string message = test::input_error([&] { parse(text); });
    EXPECT_EQ(message.rfind(source + ": " + bad.location + ": ", 0), 0U) << message;
    for (const std::string& word : bad.words) EXPECT_NE(message.find(word), std::string::npos) << message;
  }
}

TEST(BadInput, Batch) {
  const Parse parse = [](const std::string& text) { parse_batch_json(text, "batch.json"); };
  expect_errors(
      kBatch, "batch.json", parse,
      {{"20", "-5", "sequences[1].tokens", {"found -5", "expected a whole number from 1 to 1099511627776"}},
       {"20", "0", "sequences[1].tokens", {"found 0", "expected a whole number from 1"}},
       {"20", "20.5", "sequences[1].tokens", {"found 20.5", "whole number"}},
       {"20", "\"20\"", "sequences[1].tokens", {"found \"20\"", "whole number"}},
       {"20", "true", "sequences[1].tokens", {"found true"}},
       {"20", "null", "sequences[1].tokens", {"found null"}},
       {"20", "[1, 2]", "sequences[1].tokens", {"found an array of 2"}},
       {"20", "1099511627777", "sequences[1].tokens", {"found 1099511627777"}},
       {"20", "9223372036854775808", "sequences[1].tokens", {"found 9223372036854775808"}},
       {"20", "99999999999999999999999", "sequences[1].tokens", {"found 9.999999999999999e+22"}},
       {", \"tokens\": 20", "", "sequences[1].tokens", {"missing, expected a whole number"}},
       {"4}", "-4}", "sequences[0].patches", {"found -4", "from 0 to"}},
       {"4}", "4, \"frame_patches\": -1}", "sequences[0].frame_patches", {"found -1", "from 0 to"}},
       {"4}", "4, \"frame_patches\": 5}", "sequences[0].frame_patches", {"found 5", "from 0 to 4, the patches"}},
       {"20", "20, \"frame_patches\": 1", "sequences[1].frame_patches", {"found 1", "from 0 to 0"}},
       {"\"id\": 1", "\"id\": 0", "sequences[1].id", {"found 0", "sequences[0] has already", "unique"}},
       {"\"id\": 1", "\"id\": 1.0", "sequences[1].id", {"found 1.0", "a whole number of 64 bits"}},
       {"{\"id\": 0, \"tokens\": 10, \"patches\": 4}", "17", "sequences[0]", {"found 17", "expected an object"}},
       {"dhp.batch/1", "dhp.plan/1", "format", {"found \"dhp.plan/1\"", "expected \"dhp.batch/1\""}},
       {"\"format\": \"dhp.batch/1\",", "", "format", {"missing", "dhp.batch/1"}},
       {"\"sequences\"", "\"sequence\"", "sequences", {"missing, expected an array"}},
       {"20", "NaN", "line 2, column 22", {"not valid JSON"}},
       {"20", "1e999", "not valid JSON", {"1e999"}}});
}

TEST(BadInput, CsvIsNoBatch) {
  const test::TemporaryFolder folder;
  const std::string file = folder.write("batch.csv", "id,tokens,patches\n0,10,4\n");
  EXPECT_EQ(test::input_error([&] { read_batch(file); }),
            file + ": is CSV, expected dhp.batch/1 JSON; dhp dataset --data " + file + " -o batch.json makes it");
}

TEST(BadInput, Cluster) {
  const Parse parse = [](const std::string& text) { parse_cluster(text, "c.json"); };
  expect_errors(
      kCluster, "c.json", parse,
      {{"\"nodes\": 2", "\"nodes\": 0", "nodes", {"found 0", "from 1 to 1048576"}},
       {"\"ranks_per_node\": 4", "\"ranks_per_node\": 0", "ranks_per_node", {"found 0"}},
       {"\"ranks_per_node\": 4", "\"ranks_per_node\": -4", "ranks_per_node", {"found -4"}},
       {"\"nodes\": 2", "\"nodes\": 1000000", "nodes", {"1000000 nodes of 4 ranks", "at most 1048576"}},
       {"1e9", "0", "memory_bytes", {"found 0", "a number above 0"}},
       {"1e9", "-1", "memory_bytes", {"found -1"}},
       {"1e9", "\"64 GiB\"", "memory_bytes", {"found \"64 GiB\""}},
       {"5e8", "0", "inter_node.bandwidth_bytes_per_s", {"found 0", "above 0"}},
       {"1e-5", "-1e-5", "intra_node.latency_s", {"found -1e-05", "at least 0"}},
       {"\"links\": 7", "\"links\": 0", "intra_node.links", {"found 0"}},
       {"\"inter_node\"", "\"outer\"", "inter_node", {"missing, expected an object"}},
       {"{\"bandwidth_bytes_per_s\": 5e8, \"latency_s\": 0}", "3", "inter_node", {"found 3", "expected an object"}}});
}

TEST(BadInput, CostModel) {
  const Parse parse = [](const std::string& text) { parse_cost_model(text, "k.json"); };
  expect_errors(kCost, "k.json", parse,
                {{"\"layers\": 2", "\"layers\": 0", "layers", {"found 0", "from 1 to 2147483647"}},
                 {"\"layers\": 2", "\"layers\": 2.5", "layers", {"found 2.5"}},
                 {"0.1", "-0.1", "task_s", {"found -0.1", "at least 0"}},
                 {"\"name\": \"m\"", "\"name\": 3", "name", {"found 3", "expected a string"}},
                 {"\"pair_s\": 6", "\"pair_s\": -6", "backward.pair_s", {"found -6"}},
                 {"\"pair_s\": 2, ", "", "forward.pair_s", {"missing, expected a number"}},
                 {"\"pair_s\": 2", "\"pair_s\": Infinity", "line 2, column 38", {"not valid JSON"}},
                 {"\"token_bytes\": 9, ", "", "token_bytes", {"missing"}},
                 {"\"query_heads\": 16", "\"query_heads\": 0", "query_heads", {"found 0"}},
                 {"\"state_bytes\": 10", "\"state_bytes\": -10", "state_bytes", {"found -10"}},
                 {"0.03", "-0.03", "expected_error.sequence", {"found -0.03"}},
                 {"0.04", "1.04", "expected_error.task", {"found 1.04", "from 0 to 1"}},
                 {"0.04", "\"no\"", "expected_error.task", {"found \"no\""}},
                 {"{\"sequence\": 0.03, \"task\": 0.04}", "0.03", "expected_error", {"found 0.03", "an object"}},
                 {"\"degree\": 3, \"tokens\": 64", "\"degree\": 1, \"tokens\": 64", "residuals[0].degree", {"found 1"}},
                 {"\"degree\": 3, \"tokens\": 64", "\"tokens\": 64", "residuals[0].degree", {"missing"}},
                 {"\"tokens\": 64", "\"tokens\": 63", "residuals[0].tokens", {"found 63", "a power of two"}},
                 {"\"tokens\": 64", "\"tokens\": 0", "residuals[0].tokens", {"found 0"}},
                 {"\"tokens\": 64", "\"tokens\": 128", "residuals[1]", {"after residuals[0]", "not the same"}},
                 {"\"degree\": 3, \"tokens\": 64", "\"degree\": 4, \"tokens\": 64", "residuals[1]", {"by degree"}},
                 {"1.25", "4.5", "residuals[0].factor", {"found 4.5", "from 0.25 to 4"}},
                 {"0.75", "0", "residuals[1].factor", {"found 0", "from 0.25 to 4"}},
                 {"{\"degree\": 3, \"tokens\": 64, \"factor\": 1.25}", "1.25", "residuals[0]", {"found 1.25"}}});
}

TEST(BadInput, Plan) {
  const Parse parse = [](const std::string& text) { parse_plan(text, "p.json"); };
  expect_errors(
      kPlan, "p.json", parse,
      {{"\"free\"", "\"fast\"", "schedule", {"found \"fast\"", "lockstep, free, rounds"}},
       {"\"ranks\": 2", "\"ranks\": 0", "ranks", {"found 0", "from 1 to 1048576"}},
       {"\"direct\"", "\"mesh\"", "tasks[0].exchange", {"found \"mesh\"", "ring, direct, hierarchical, all_to_all"}},
       {"\"direct\"", "3", "tasks[0].exchange", {"found 3", "expected a string"}},
       {"[0, 1]", "[0, \"1\"]", "tasks[0].ranks[1]", {"found \"1\"", "whole number"}},
       {"[0, 1]", "[0, 4294967296]", "tasks[0].ranks[1]", {"found 4294967296"}},
       {"[0, 1]", "0", "tasks[0].ranks", {"found 0", "expected an array of whole numbers"}},
       {"[7]", "[7.5]", "tasks[0].sequences[0]", {"found 7.5"}},
       {"\"id\": 0", "\"id\": -1", "tasks[0].id", {"found -1"}},
       {"\"micro_batch\": 3", "\"micro_batch\": -3", "tasks[0].micro_batch", {"found -3"}},
       {"\"start_s\": 1", "\"start_s\": \"now\"", "tasks[0].start_s", {"found \"now\""}},
       {"\"lower_bound_s\": 1", "\"lower_bound_s\": -1", "predicted.lower_bound_s", {"found -1"}},
       {"\"gap\": 1", "\"gap\": true", "predicted.gap", {"found true", "expected a number"}},
       {"\"tasks\"", "\"task\"", "tasks", {"missing, expected an array of objects"}}});
}

TEST(BadInput, TruncatedAnywhere) {
  // Every proper prefix of a batch is refused, with the location where it ends.
  for (std::size_t size = 1; size < kBatch.size(); ++size) {
    const std::string text = kBatch.substr(0, size);
    const std::string message = test::input_error([&] { parse_batch_json(text, "batch.json"); });
    const std::size_t newline = text.find('\n');
    const bool second_line = newline != std::string::npos;
    const std::string location =
        second_line ? "line 2, column " + std::to_string(size - newline) : "line 1, column " + std::to_string(size + 1);
    EXPECT_EQ(message, "batch.json: " + location + ": not valid JSON: the text ends too early; is the file cut off?")
        << "size " << size;
  }
}

TEST(BadInput, NotJsonAtAll) {
  const auto message = [](const std::string& text) { return test::input_error([&] { parse_plan(text, "p.json"); }); };
  EXPECT_EQ(message(""), "p.json: is empty, expected a JSON object");
  EXPECT_EQ(message(" \n"), "p.json: is empty, expected a JSON object");
  EXPECT_EQ(message("[1, 2]"), "p.json: found an array of 2, expected an object");
  EXPECT_EQ(message("{\n \"a\": 1,\n}").rfind("p.json: line 3, column 1: not valid JSON: ", 0), 0U);
  EXPECT_EQ(message("\x7f\x45LF").rfind("p.json: line 1, column 1: not valid JSON: ", 0), 0U);
  EXPECT_EQ(message("{} {}").rfind("p.json: line 1, column 4: not valid JSON: ", 0), 0U);
  EXPECT_EQ(message("{\"a\": \"\xff\"}").rfind("p.json: line 1, column 8: not valid JSON: ", 0), 0U);
  EXPECT_FALSE(message(std::string(100000, '[')).empty());  // deep nesting is an error, not a crash
}

TEST(BadInput, FilesThatCannotBeRead) {
  const std::string missing = "/nonexistent/batch.json";
  const std::string folder = std::filesystem::temp_directory_path().string();
  for (const auto& read : std::vector<std::function<void(const std::string&)>>{
           [](const std::string& file) { read_batch(file); }, [](const std::string& file) { read_cluster(file); },
           [](const std::string& file) { read_cost_model(file); }, [](const std::string& file) { read_plan(file); }}) {
    EXPECT_EQ(test::input_error([&] { read(missing); }),
              missing + ": cannot be opened (No such file or directory); check the path");
    EXPECT_EQ(test::input_error([&] { read(folder); }), folder + ": is a folder, expected a file");
  }
}

TEST(BadInput, ValidateChecksBatchesMadeInMemory) {
  const auto message = [](const Batch& batch) { return test::input_error([&] { validate(batch, "batch"); }); };
  EXPECT_EQ(message({.sequences = {{0, 1, 0}, {1, 0, 0}}}),
            "batch: sequences[1].tokens: found 0, expected a whole number from 1 to 1099511627776");
  EXPECT_EQ(message({.sequences = {{0, kMaxTokens + 1, 0}}}).rfind("batch: sequences[0].tokens: found", 0), 0U);
  EXPECT_EQ(
      message({.sequences = {{0, 1, 3, 4}}}),
      "batch: sequences[0].frame_patches: found 4, expected a whole number from 0 to 3, the patches of the sequence");
  EXPECT_EQ(message({.sequences = {{0, 1, -1}}}).rfind("batch: sequences[0].patches: found -1", 0), 0U);
  EXPECT_EQ(message({.sequences = {{5, 1, 0}, {3, 1, 0}, {4, 1, 0}, {3, 1, 0}, {5, 1, 0}}})
                .rfind("batch: sequences[3].id: found 3, which sequences[1] has already", 0),
            0U);
  EXPECT_NO_THROW(validate(Batch{}, "batch"));
  EXPECT_NO_THROW(validate({.sequences = {{-3, kMaxTokens, kMaxTokens}}}, "batch"));
}

/// Fields of an entry are looked for one by one, and in any order.
TEST(BadInput, EntriesWithVeryManyFields) {
  const auto entry = [](int id, int others) {
    std::string text = R"({"ranks": [0], "sequences": [7], "id": )" + std::to_string(id);
    for (int i = 0; i < others; ++i) text += ", \"of " + std::to_string(id) + ", " + std::to_string(i) + "\": {}";
    return text + "}";
  };
  const auto plan = [&](int first, int second) {
    return R"({"format": "dhp.plan/1", "schedule": "free", "ranks": 2, "tasks": [)" + entry(0, first) + ", " +
           entry(1, second) + "]}";
  };
  EXPECT_EQ(parse_plan(plan(997, 997), "p.json").tasks.size(), 2U);
  EXPECT_EQ(test::input_error([&] { parse_plan(plan(997, 998), "p.json"); }),
            "p.json: tasks[1]: has more than 1000 fields, too many for one");
  EXPECT_EQ(test::input_error([&] { parse_plan(plan(1'000'000, 0), "p.json"); }),
            "p.json: tasks[0]: has more than 1000 fields, too many for one");
}

}  // namespace
}  // namespace dhp::bad_input_test
