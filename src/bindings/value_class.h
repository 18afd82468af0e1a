#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/operators.h>

#include <concepts>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"

namespace dhp::bindings {

/// Binds a struct of plain fields as a Python value: equal if its fields are, shown by its fields, and copied,
/// deep-copied and pickled by them, doubles exactly. No hash, since values can be changed.
template <std::equality_comparable T>
class ValueClass : private nanobind::class_<T> {
  using Base = nanobind::class_<T>;

 public:
  ValueClass(nanobind::handle scope, const char* name, const char* doc) : Base(scope, name, doc) {
    Base::def(nanobind::self == nanobind::self, kEqual);
    Base::def("__repr__", [](nanobind::handle self) { return shown(self, shown_names()); });
    Base::def("__getstate__", &get_state);
    Base::def("__setstate__", &set_state);
    Base::attr("__hash__") = nanobind::none();
  }

  template <typename... Arguments>
  ValueClass& def(Arguments&&... arguments) {
    Base::def(std::forward<Arguments>(arguments)...);
    return *this;
  }
  /// A value that follows from the fields.
  template <typename... Arguments>
  ValueClass& def_prop_ro(Arguments&&... arguments) {
    Base::def_prop_ro(std::forward<Arguments>(arguments)...);
    return *this;
  }
  template <typename Member, typename... Extra>
  ValueClass& def_rw(const char* name, Member T::*member, const Extra&... extra) {
    Base::def_rw(name, member, extra...);
    return keep(name, member);
  }
  template <typename Member, typename... Extra>
  ValueClass& def_ro(const char* name, Member T::*member, const Extra&... extra) {
    Base::def_ro(name, member, extra...);
    return keep(name, member);
  }
  /// The last field is kept in states as what `get` makes of it, Python's own types, and `set` turns back: many objects
  /// of one's own are slow to pickle.
  ValueClass& packed(std::function<nanobind::object(const T&)> get, std::function<void(T&, nanobind::handle)> set) {
    fields().back().get = std::move(get);
    fields().back().set = std::move(set);
    return *this;
  }
  /// A field that Python does not see, which copies and pickles have all the same.
  ValueClass& hidden(const char* name, std::function<nanobind::object(const T&)> get,
                     std::function<void(T&, nanobind::handle)> set) {
    fields().push_back({name, std::move(get), std::move(set), false});
    return *this;
  }

 private:
  struct Field {
    std::string name;
    std::function<nanobind::object(const T&)> get;
    std::function<void(T&, nanobind::handle)> set;
    bool is_shown = true;
  };

  static std::vector<Field>& fields() {
    static std::vector<Field> instance;
    return instance;
  }

  template <typename Member>
  ValueClass& keep(const char* name, Member T::*member) {
    fields().push_back({name, [member](const T& value) { return nanobind::cast(value.*member); },
                        [member](T& value, nanobind::handle state) { value.*member = nanobind::cast<Member>(state); }});
    return *this;
  }

  static std::vector<std::string> shown_names() {
    std::vector<std::string> names;
    for (const Field& field : fields()) {
      if (field.is_shown) names.push_back(field.name);
    }
    return names;
  }

  static nanobind::dict get_state(const T& value) {
    nanobind::dict state;
    for (const Field& field : fields()) state[field.name.c_str()] = field.get(value);
    return state;
  }

  /// A field that is missing, as in what an older version pickled, keeps its default.
  static void set_state(T& value, const nanobind::dict& state) {
    new (&value) T{};
    for (const Field& field : fields()) {
      if (state.contains(field.name.c_str())) field.set(value, state[field.name.c_str()]);
    }
  }
};

}  // namespace dhp::bindings
