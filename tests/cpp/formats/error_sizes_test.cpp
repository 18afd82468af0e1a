#include "dhp/error_sizes.h"

#include "dhp/cost_model.h"
#include "support.h"

namespace dhp {
namespace {

TEST(ErrorSizes, TextsLeaveOutWhatIsZero) {
  EXPECT_EQ(parse_error_sizes("0.06", "--noise"), (ErrorSizes{0.06, 0.0, 0.0}));
  EXPECT_EQ(parse_error_sizes("0,0.5", "--noise"), (ErrorSizes{0.0, 0.5, 0.0}));
  EXPECT_EQ(parse_error_sizes("0.02,0.02,0.01", "--noise"), ErrorSizes{});
  EXPECT_EQ(to_text(ErrorSizes{}), "0.02,0.02,0.01");
  EXPECT_EQ(to_text({0.06, 0.0, 0.0}), "0.06");
  EXPECT_EQ(to_text({0.0, 0.5, 0.0}), "0,0.5");
  EXPECT_EQ(to_text({0.0, 0.0, 1.0}), "0,0,1");
  EXPECT_EQ(to_text({0.0, 0.0, 0.0}), "0");
  EXPECT_FALSE(parse_error_sizes("0", "--noise").any());
  EXPECT_TRUE(parse_error_sizes("0,0,0.01", "--noise").any());
}

TEST(ErrorSizes, TextsReadBackExactly) {
  test::Random random(5);
  for (int i = 0; i < 200; ++i) {
    ErrorSizes sizes{random.unit(), random.unit(), random.unit()};
    for (double ErrorSizes::*part : {&ErrorSizes::sequence, &ErrorSizes::task, &ErrorSizes::rank}) {
      if (random.whole(0, 2) == 0) sizes.*part = 0.0;
    }
    EXPECT_EQ(parse_error_sizes(to_text(sizes), "text"), sizes) << to_text(sizes);
  }
}

TEST(ErrorSizes, OtherTextsAreRefused) {
  for (const char* text : {"", ",", "0.1,", ",0.1", "0.1,,0.1", "0.1,0.1,0.1,", "0.1,0.1,0.1,0.1", "2 %", "0.1 0.2"}) {
    const std::string message = test::input_error([&] { parse_error_sizes(text, "--noise"); });
    EXPECT_EQ(message, "--noise: found \"" + std::string(text) + "\", expected SEQ[,TASK[,RANK]], numbers from 0 to 1");
  }
  EXPECT_EQ(test::input_error([] { parse_error_sizes("0.1,-0.2", "--noise"); }),
            "--noise: task: found -0.2, expected a number from 0 to 1");
  EXPECT_EQ(test::input_error([] { parse_error_sizes("0,0,1.5", "--noise"); }),
            "--noise: rank: found 1.5, expected a number from 0 to 1");
  EXPECT_EQ(test::input_error([] { parse_error_sizes("nan", "--noise"); }),
            "--noise: sequence: found nan, expected a number from 0 to 1");
}

TEST(ErrorSizes, CostFilesNameWhatIsOutOfRange) {
  CostModel cost;
  cost.expected_error = ErrorSizes{0.1, 0.2, 1.5};
  EXPECT_EQ(test::input_error([&] { validate(cost, "cost"); }),
            "cost: expected_error.rank: found 1.5, expected a number from 0 to 1");
  const std::string text = to_json(CostModel{});
  EXPECT_EQ(text.find("expected_error"), std::string::npos);
}

}  // namespace
}  // namespace dhp
