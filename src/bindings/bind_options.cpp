#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <deque>

#include "bindings/bindings.h"
#include "bindings/value_class.h"
#include "dhp/error.h"
#include "dhp/plan_options.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

using Kind = OptionInfo::Kind;

std::string type_of(const OptionInfo& info) {
  switch (info.kind) {
    case Kind::whole:
      return "int";
    case Kind::level:
      return "int | str";
    case Kind::number:
      return "float";
    case Kind::errors:
      return "ErrorSizes | str";
    case Kind::flag:
      return "bool";
    case Kind::word:
      return info.name == "placement" ? "Placement | str" : "str";
    case Kind::wholes:
      return "collections.abc.Sequence[int]";
    case Kind::words:
      return "collections.abc.Sequence[Exchange | str]";
  }
  return "object";
}

std::string default_of(const OptionInfo& info) {
  switch (info.kind) {
    case Kind::whole:
    case Kind::number:
      return info.default_text;
    case Kind::flag:
      return info.default_text == "true" ? "True" : "False";
    case Kind::level:
    case Kind::errors:
    case Kind::word:
      return "'" + info.default_text + "'";
    case Kind::wholes:
    case Kind::words:
      break;
  }
  return "()";
}

/// One value in the words of the table.
std::string word_of(nb::handle value) {
  if (nb::isinstance<nb::bool_>(value)) return nb::cast<bool>(value) ? "true" : "false";
  if (nb::hasattr(value, "name")) return nb::cast<std::string>(nb::str(value.attr("name")));  // an enum's
  return nb::cast<std::string>(nb::str(value));
}

std::string text_of(nb::handle value) {
  if (!nb::isinstance<nb::list>(value) && !nb::isinstance<nb::tuple>(value)) return word_of(value);
  std::string text;
  bool first = true;
  for (const nb::handle item : value) {
    if (!first) text += ',';
    text += word_of(item);
    first = false;
  }
  return text;
}

/// The name of a keyword today: `planner` was `schedule` until the last release, which is read for one more.
std::string todays_name(const std::string& keyword, const nb::kwargs& keywords) {
  if (keyword != "schedule") return keyword;
  if (keywords.contains("planner")) {
    throw InputError("schedule", "", "is the old name of planner, which is given too; leave it out");
  }
  // A DeprecationWarning is hidden unless the call stands in the main program.
  const char* const text = "schedule= is now planner=; the next release drops the old name";
  if (PyErr_WarnEx(PyExc_FutureWarning, text, 1) < 0) throw nb::python_error();
  return "planner";
}

}  // namespace

PlanOptions options_of(const nb::kwargs& keywords) {
  PlanOptions options;
  for (const auto& [key, value] : keywords) {
    const std::string name = todays_name(nb::cast<std::string>(key), keywords);
    set_option(options, name, text_of(value), name);
  }
  return options;
}

nb::sig signature(const std::string& name, const std::string& parameters, const std::string& result) {
  static std::deque<std::string> texts;  // nanobind keeps the pointer until the function is made
  std::string text = "def " + name + "(" + parameters + (parameters.empty() ? "*" : ", *");
  for (const OptionInfo& info : plan_options()) {
    text += ", " + info.name + ": " + type_of(info) + " = " + default_of(info);
  }
  texts.push_back(text + ") -> " + result);
  return nb::sig(texts.back().c_str());
}

void bind_options(nb::module_& module) {
  ValueClass<OptionInfo>(module, "OptionInfo", "An option of planning, the same on command lines and in settings.")
      .def_ro("name", &OptionInfo::name, "keyword; on the command line with - for _")
      .def_ro("placeholder", &OptionInfo::placeholder, "\"N\"; empty for a flag")
      .def_ro("help", &OptionInfo::help)
      .def_ro("default_text", &OptionInfo::default_text)
      .hidden(
          "kind", [](const OptionInfo& info) { return nb::cast(static_cast<int>(info.kind)); },
          [](OptionInfo& info, nb::handle state) { info.kind = static_cast<Kind>(nb::cast<int>(state)); });
  module.def("plan_options", &plan_options, "All options of planning.");
  module.def(
      "validate_options", [](const nb::kwargs& keywords) { validate(options_of(keywords)); }, "options"_a,
      signature("validate_options", "", "None"), "Raises InputError unless try_plan would take these options.");
  module.def(
      "refuse_unused", [](const nb::kwargs& keywords) { refuse_unused(options_of(keywords)); }, "options"_a,
      signature("refuse_unused", "", "None"),
      "Raises InputError for an option that is set although the planner does not use it.");
  nb::enum_<Placement>(module, "Placement", "Which ranks may form a group.")
      .value("any", Placement::any, "any ranks")
      .value("consecutive", Placement::consecutive, "rank, rank + 1, ... (ranks out of service are skipped)");
}

}  // namespace dhp::bindings
