#pragma once

#include <string>
#include <vector>

#include "dhp/planner.h"

namespace dhp {

/// One field of PlanOptions as command lines, settings files and Python keywords show it. All three are generated from
/// one table, so that they accept the same names, texts and ranges, and give the same error messages.
///
///     PlanOptions options;
///     set_option(options, "degrees_divide", "32,8", "--degrees-divide");
///     set_option(options, "max_degree", "-1", "--max-degree");
///     // InputError: --max-degree: found -1, expected at least 0
struct OptionInfo {
  enum class Kind {
    whole,   ///< a whole number
    level,   ///< a whole number, or the name of one
    number,  ///< a decimal number
    errors,  ///< parse_error_sizes(); may be empty
    flag,    ///< true or false
    word,    ///< one of some names
    wholes,  ///< whole numbers separated by commas; may be empty
    words,   ///< names separated by commas; may be empty
  };

  std::string name;  ///< of the field: "max_degree"; on the command line --max-degree
  Kind kind = Kind::whole;
  std::string placeholder;  ///< "N"; empty for a flag
  std::string help;
  std::string default_text;  ///< option_text() of PlanOptions{}
  bool operator==(const OptionInfo&) const = default;
};

/// All fields of PlanOptions, in the order of the struct.
const std::vector<OptionInfo>& plan_options();

/// Sets a field to the value in `text`. Throws InputError (from `source`) for an unknown name, a text of another kind,
/// or a value out of range. plan_batch() checks whether a planner exists: only it knows the cluster.
void set_option(PlanOptions& options, const std::string& name, const std::string& text, const std::string& source);

/// "--max-degree" for "max_degree".
std::string option_flag(const std::string& name);

/// The value of a field as set_option() reads it. Throws InputError for an unknown name.
std::string option_text(const PlanOptions& options, const std::string& name);

/// Whether a planner ("static:4"; it need not exist) uses that option ("effort").
bool uses_option(const std::string& planner, const std::string& option);

/// Throws InputError for an option that is set although options.planner does not use it; the message says which
/// planners do. plan_batch() accepts such options: where several planners share them, each uses its own.
void refuse_unused(const PlanOptions& options);

/// Throws InputError naming the field that is out of range, as on the command line. plan_batch() calls this first.
void validate(const PlanOptions& options);

}  // namespace dhp
