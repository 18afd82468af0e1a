// The table of options behind command lines, settings files and Python keywords.

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "base/number_limits.h"
#include "dhp/error.h"
#include "dhp/plan_options.h"
#include "plan/planners.h"

namespace dhp {

using namespace plan;

namespace {

using Kind = OptionInfo::Kind;
using Names = std::vector<std::pair<const char*, std::int64_t>>;

using Field =
    std::variant<int PlanOptions::*, std::int64_t PlanOptions::*, bool PlanOptions::*, std::string PlanOptions::*,
                 Placement PlanOptions::*, std::vector<int> PlanOptions::*, std::vector<Exchange> PlanOptions::*,
                 double PlanOptions::*, std::optional<ErrorSizes> PlanOptions::*>;

struct Row {
  const char* name;
  Kind kind;
  const char* placeholder;
  Field field;
  std::int64_t least;  ///< of numbers
  Names names;         ///< values that have names
  std::string help;
};

constexpr auto kAny = static_cast<std::int64_t>(Placement::any);
constexpr auto kConsecutive = static_cast<std::int64_t>(Placement::consecutive);

const std::vector<Row>& table() {
  static const std::vector<Row> kTable = {
      {"planner", Kind::word, "NAME", &PlanOptions::planner, 0, {}, "the planner"},
      {"max_degree", Kind::whole, "N", &PlanOptions::max_degree, 0, {}, "largest group, in ranks; 0: no limit"},
      {"degrees_divide",
       Kind::wholes,
       "N,N,...",
       &PlanOptions::degrees_divide,
       1,
       {},
       "every degree must divide each of these, for instance the model's head counts"},
      {"max_tokens_per_rank",
       Kind::whole,
       "N",
       &PlanOptions::max_tokens_per_rank,
       0,
       {},
       "most tokens that a rank may hold in a task, whatever memory allows; 0: no cap"},
      {"min_shard_tokens",
       Kind::whole,
       "N",
       &PlanOptions::min_shard_tokens,
       1,
       {},
       "fewest tokens of a sequence on one rank, unless memory or the cap on tokens requires more ranks"},
      {"max_peers",
       Kind::whole,
       "N",
       &PlanOptions::max_peers,
       0,
       {},
       "most ranks that any rank may share tasks with over the whole plan; 0: no limit"},
      {"within_node", Kind::flag, "", &PlanOptions::within_node, 0, {}, "no group spans nodes"},
      {"placement",
       Kind::word,
       "any|consecutive",
       &PlanOptions::placement,
       0,
       {{"any", kAny}, {"consecutive", kConsecutive}},
       "which ranks may form a group"},
      {"exchanges",
       Kind::words,
       "NAME,...",
       &PlanOptions::exchanges,
       0,
       {},
       "how shards may travel: ring, direct, hierarchical; the fastest for each group is used; empty: the planner's "
       "default"},
      {"effort",
       Kind::level,
       "fast|default|N",
       &PlanOptions::effort,
       1,
       {{"default", kEffortDefault}, {"fast", kEffortFast}},
       "how hard the planner tries: a level, or counted work in thousands of looks at a rank; not a time"},
      {"expect_error",
       Kind::errors,
       "SEQ[,TASK[,RANK]]",
       &PlanOptions::expect_error,
       0,
       {},
       "errors of estimates (standard deviations) of each sequence, each task and each rank of a task: the plan is the "
       "quickest on average under them; 0: without errors; empty: the cost file's, else " +
           to_text(ErrorSizes{})},
      {"most_loss",
       Kind::number,
       "SHARE",
       &PlanOptions::most_loss,
       0,
       {},
       "most that a plan may give up for that, as a share of the quickest without errors; 0 to 1"},
      {"tighter_bound",
       Kind::flag,
       "",
       &PlanOptions::tighter_bound,
       0,
       {},
       "the plan states the tighter lower bound instead of the simple one"},
      {"pipeline_stages",
       Kind::whole,
       "N",
       &PlanOptions::pipeline_stages,
       1,
       {},
       "stages of a pipeline; filling it costs (N - 1) times the slowest micro-batch"},
      {"no_idle_ranks",
       Kind::flag,
       "",
       &PlanOptions::no_idle_ranks,
       0,
       {},
       "every rank has a task in every micro-batch"},
  };
  return kTable;
}

const Row* find_row(const std::string& name) {
  for (const Row& row : table()) {
    if (name == row.name) return &row;
  }
  return nullptr;
}

const Row& row_of(const std::string& name, const std::string& source) {
  if (const Row* row = find_row(name)) return *row;
  std::string known;
  for (const Row& row : table()) known += (known.empty() ? "" : ", ") + std::string(row.name);
  throw InputError(source, "", "unknown option; expected one of " + known);
}

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    parts.push_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return parts;
}

std::string names_text(const Row& row, const char* before_last) {
  std::string text;
  for (std::size_t i = 0; i < row.names.size(); ++i) {
    if (i > 0) text += i + 1 == row.names.size() ? before_last : ", ";
    text += row.names[i].first;
  }
  return text;
}

/// Reads texts for one row, and complains as `source`.
class Reader {
 public:
  Reader(const Row& row, std::string_view text, const std::string& source) : row_(row), text_(text), source_(source) {}

  void operator()(int& value) const { value = static_cast<int>(number<int>(text_)); }
  void operator()(std::int64_t& value) const { value = number<std::int64_t>(text_); }
  void operator()(bool& value) const {
    if (text_ != "true" && text_ != "false") fail("true or false");
    value = text_ == "true";
  }
  void operator()(std::string& value) const { value = std::string(text_); }
  void operator()(double& value) const {
    const char* end_of_text = text_.data() + text_.size();
    const auto [end, error] = std::from_chars(text_.data(), end_of_text, value);
    if (error != std::errc{} || end != end_of_text) fail("a number");
  }
  void operator()(std::optional<ErrorSizes>& value) const {
    value.reset();
    if (!text_.empty()) value = parse_error_sizes(text_, source_);
  }
  void operator()(Placement& value) const {
    const std::optional<std::int64_t> named = by_name(text_);
    if (!named) fail(names_text(row_, " or "));
    value = static_cast<Placement>(*named);
  }
  void operator()(std::vector<int>& values) const {
    values.clear();
    for (const std::string_view part : split(text_)) {
      values.push_back(static_cast<int>(number<int>(part)));
    }
  }
  void operator()(std::vector<Exchange>& values) const {
    values.clear();
    for (const std::string_view part : split(text_)) values.push_back(parse_exchange(part, source_, ""));
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    throw InputError(source_, "", "found \"" + std::string(text_) + "\", expected " + expected);
  }

  std::string expected_kind() const {
    return row_.names.empty() ? "a whole number" : names_text(row_, ", ") + " or a whole number";
  }

  std::optional<std::int64_t> by_name(std::string_view text) const {
    for (const auto& [name, value] : row_.names) {
      if (text == name) return value;
    }
    return std::nullopt;
  }

  /// The number, if an Int holds it.
  template <typename Int>
  std::int64_t number(std::string_view text) const {
    if (const std::optional<std::int64_t> named = by_name(text)) return *named;
    std::int64_t value = 0;
    const char* end_of_text = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), end_of_text, value);
    if (error != std::errc{} || end != end_of_text) fail(expected_kind());
    constexpr std::int64_t kLeast = std::numeric_limits<Int>::min();
    constexpr std::int64_t kMost = std::numeric_limits<Int>::max();
    if (value < kLeast) fail("at least " + std::to_string(row_.least));
    if (value > kMost) fail("at most " + std::to_string(kMost));
    return value;
  }

  const Row& row_;
  std::string_view text_;
  const std::string& source_;
};

/// Writes values as Reader reads them.
class Writer {
 public:
  explicit Writer(const Row& row) : row_(row) {}

  std::string operator()(std::int64_t value) const {
    for (const auto& [name, named] : row_.names) {
      if (value == named) return name;
    }
    return std::to_string(value);
  }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
  std::string operator()(const std::string& value) const { return value; }
  std::string operator()(double value) const { return number_text(value); }
  std::string operator()(const std::optional<ErrorSizes>& value) const { return value ? to_text(*value) : ""; }
  std::string operator()(Placement value) const { return (*this)(static_cast<std::int64_t>(value)); }
  std::string operator()(Exchange value) const { return std::string(to_string(value)); }
  template <typename Value>
  std::string operator()(const std::vector<Value>& values) const {
    std::string text;
    for (const Value value : values) {
      if (!text.empty()) text += ',';
      text += (*this)(value);
    }
    return text;
  }
  std::string operator()(int value) const { return (*this)(static_cast<std::int64_t>(value)); }

 private:
  const Row& row_;
};

/// Values that have a name are in range wherever they lie. No number makes sense beyond the longest sequence, and
/// products of it with ranks stay inside 64 bits.
void check_whole(const Row& row, std::int64_t value, const std::string& source) {
  const auto is_value = [&](const auto& name) { return name.second == value; };
  if (value > kMaxTokens) {
    throw InputError(source, "", "found " + std::to_string(value) + ", expected at most " + std::to_string(kMaxTokens));
  }
  if (value >= row.least || std::any_of(row.names.begin(), row.names.end(), is_value)) return;
  throw InputError(source, "", "found " + std::to_string(value) + ", expected at least " + std::to_string(row.least));
}

void check_range(const Row& row, const PlanOptions& options, const std::string& source) {
  if (const auto* whole = std::get_if<int PlanOptions::*>(&row.field)) check_whole(row, options.**whole, source);
  if (const auto* large = std::get_if<std::int64_t PlanOptions::*>(&row.field)) {
    check_whole(row, options.**large, source);
  }
  if (const auto* share = std::get_if<double PlanOptions::*>(&row.field)) {
    check_number(options.**share, 0.0, 1.0, "", source);
  }
  if (const auto* sizes = std::get_if<std::optional<ErrorSizes> PlanOptions::*>(&row.field)) {
    if (options.**sizes) validate(*(options.**sizes), source);
  }
  if (const auto* list = std::get_if<std::vector<int> PlanOptions::*>(&row.field)) {
    for (const int value : options.**list) check_whole(row, value, source);
  }
  if (const auto* list = std::get_if<std::vector<Exchange> PlanOptions::*>(&row.field)) {
    for (const Exchange exchange : options.**list) {
      if (exchange != Exchange::all_to_all) continue;
      throw InputError(source, "",
                       "found all_to_all, which ulysses uses without being told, and no other planner; expected ring, "
                       "direct, hierarchical");
    }
  }
}

/// The help of an option that some planners alone use names them.
std::string help_of(const Row& row) {
  std::string text = row.help;
  if (const std::string users = own_users(row.name); !users.empty()) text += " (" + users + ")";
  return text;
}

}  // namespace

std::string option_flag(const std::string& name) {
  std::string flag = "--" + name;
  std::replace(flag.begin(), flag.end(), '_', '-');
  return flag;
}

const std::vector<OptionInfo>& plan_options() {
  static const std::vector<OptionInfo> kOptions = [] {
    std::vector<OptionInfo> infos;
    for (const Row& row : table()) {
      infos.push_back({row.name, row.kind, row.placeholder, help_of(row), option_text({}, row.name)});
    }
    return infos;
  }();
  return kOptions;
}

void set_option(PlanOptions& options, const std::string& name, const std::string& text, const std::string& source) {
  const Row& row = row_of(name, source);
  std::visit([&](auto field) { Reader(row, text, source)(options.*field); }, row.field);
  check_range(row, options, source);
}

std::string option_text(const PlanOptions& options, const std::string& name) {
  const Row& row = row_of(name, name);
  return std::visit([&](auto field) { return Writer(row)(options.*field); }, row.field);
}

void validate(const PlanOptions& options) {
  for (const Row& row : table()) check_range(row, options, option_flag(row.name));
}

}  // namespace dhp
