// The texts that fuzzing starts from, and those that once broke a reader, through the targets of the fuzzers.
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "fuzz/fuzz.h"
#include "support.h"

namespace dhp::fuzz_corpus_test {
namespace {

TEST(FuzzCorpus, BreaksNoReader) {
  const std::map<std::string, void (*)(std::string_view)> targets = {{"batch_json", fuzz::batch_json},
                                                                     {"batch_index", fuzz::batch_index},

                                                                     {"cluster", fuzz::cluster},
                                                                     {"cost", fuzz::cost},
                                                                     {"plan", fuzz::plan},
                                                                     {"config", fuzz::config},
                                                                     {"device", fuzz::device},
                                                                     {"processor", fuzz::processor},
                                                                     {"options", fuzz::options},
                                                                     {"samples", fuzz::samples}};
  const std::filesystem::path corpus = std::filesystem::path(DHP_DATA_DIR) / "../tests/fuzz/corpus";
  for (const auto& folder : std::filesystem::directory_iterator(corpus)) {
    const auto target = targets.find(folder.path().filename().string());
    ASSERT_NE(target, targets.end()) << folder.path();
    int texts = 0;
    for (const auto& file : std::filesystem::directory_iterator(folder)) {
      SCOPED_TRACE(file.path().string());
      std::ifstream stream(file.path(), std::ios::binary);
      std::ostringstream text;
      text << stream.rdbuf();
      EXPECT_NO_THROW(target->second(text.str()));
      ++texts;
    }
    EXPECT_GT(texts, 0) << target->first;
  }
}

}  // namespace
}  // namespace dhp::fuzz_corpus_test
