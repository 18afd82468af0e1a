#include <nanobind/operators.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <sstream>

#include "bindings/bindings.h"
#include "dhp/fit.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace dhp::bindings {
namespace {

void bind_terms(nb::module_& module) {
  nb::enum_<Term>(module, "Term", "A term of task time, by the name of its coefficient.")
      .value("task", Term::task)
      .value("patch", Term::patch)
      .value("token", Term::token)
      .value("pair", Term::pair)
      .value("step", Term::step)
      .value("sequence_step", Term::sequence_step)
      .value("patch_pair", Term::patch_pair);

  nb::class_<TermSeconds>(module, "TermSeconds", "Coefficients of task time, one pass or both together.")
      .def(
          "__init__",
          [](TermSeconds* self, double task_s, double patch_s, double token_s, double pair_s, double step_s,
             double sequence_step_s, double patch_pair_s) {
            new (self) TermSeconds{task_s, patch_s, token_s, pair_s, step_s, sequence_step_s, patch_pair_s};
          },
          "task_s"_a = 0.0, "patch_s"_a = 0.0, "token_s"_a = 0.0, "pair_s"_a = 0.0, "step_s"_a = 0.0,
          "sequence_step_s"_a = 0.0, "patch_pair_s"_a = 0.0)
      .def_rw("task_s", &TermSeconds::task_s)
      .def_rw("patch_s", &TermSeconds::patch_s)
      .def_rw("token_s", &TermSeconds::token_s)
      .def_rw("pair_s", &TermSeconds::pair_s)
      .def_rw("step_s", &TermSeconds::step_s)
      .def_rw("sequence_step_s", &TermSeconds::sequence_step_s)
      .def_rw("patch_pair_s", &TermSeconds::patch_pair_s)
      .def(nb::self == nb::self, nb::sig("def __eq__(self, arg: object, /) -> bool"))
      .def("__repr__", [](const TermSeconds& terms) {
        std::ostringstream text;
        text << "TermSeconds(";
        for (int i = 0; i < kTerms; ++i) {
          const auto term = static_cast<Term>(i);
          text << (i > 0 ? ", " : "") << to_string(term) << "_s=" << terms.of(term);
        }
        text << ")";
        return text.str();
      });
}

void bind_samples(nb::module_& module) {
  nb::class_<TimeSample>(module, "TimeSample", "Sequences that took this long on a group of `degree` ranks.")
      .def(
          "__init__",
          [](TimeSample* self, const std::vector<Sequence>& sequences, int degree, double seconds) {
            new (self) TimeSample{load_of(sequences), degree, seconds};
          },
          "sequences"_a, "degree"_a, "seconds"_a)
      .def_rw("degree", &TimeSample::degree)
      .def_rw("seconds", &TimeSample::seconds)
      .def("__repr__", [](const TimeSample& sample) {
        std::ostringstream text;
        text << "<TimeSample " << sample.load.sequences << " sequences, " << sample.load.tokens << " tokens, "
             << sample.load.patches << " patches, degree " << sample.degree << ": " << sample.seconds << " s>";
        return text.str();
      });
}

void bind_answers(nb::module_& module) {
  nb::class_<EstimateError>(module, "EstimateError", "|estimate - measured| / measured over samples.")
      .def_ro("mean", &EstimateError::mean)
      .def_ro("p95", &EstimateError::p95, "95th percentile")
      .def_ro("worst", &EstimateError::worst)
      .def_ro("samples", &EstimateError::samples)
      .def("__repr__", [](const EstimateError& error) {
        std::ostringstream text;
        text << "<EstimateError mean " << error.mean << ", p95 " << error.p95 << ", worst " << error.worst << " of "
             << error.samples << ">";
        return text.str();
      });

  nb::class_<TimeFit>(module, "TimeFit", "Coefficients fitted to samples.")
      .def_ro("seconds", &TimeFit::seconds, "all at least 0")
      .def_ro("error", &TimeFit::error, "on the samples of the fit")
      .def_ro("set_aside", &TimeFit::set_aside, "samples so far off that they count nothing");
  nb::class_<NoFit>(module, "NoFit", "The samples do not determine the terms.")
      .def_ro("reason", &NoFit::reason, "a sentence: what cannot be told from what, and what to measure")
      .def("__repr__", [](const NoFit& answer) { return "<NoFit: " + answer.reason + ">"; });
}

}  // namespace

void bind_fit(nb::module_& module) {
  bind_terms(module);
  bind_samples(module);
  bind_answers(module);
  module.attr("kTerms") = kTerms;
  module.def(
      "fit_times",
      [](const std::vector<TimeSample>& samples, std::vector<Term> terms, std::optional<TermSeconds> prior,
         double prior_weight) {
        return fit_times(samples, {std::move(terms), prior, prior_weight});
      },
      "samples"_a, "terms"_a, nb::kw_only(), "prior"_a = nb::none(), "prior_weight"_a = FitOptions{}.prior_weight,
      "Fits coefficients >= 0 to the samples: relative least squares, robust against samples that are far off. "
      "`prior`\n"
      "stands in where samples do not tell terms apart; without it such samples give NoFit. The same on every rank.");
  module.def("terms_of", &terms_of, "cost"_a, "Coefficients of both passes of a cost model together.");
  module.def(
      "estimate_s",
      [](const TermSeconds& terms, const std::vector<Sequence>& sequences, int degree) {
        return estimate_s(terms, load_of(sequences), degree);
      },
      "terms"_a, "sequences"_a, "degree"_a, "Seconds by these coefficients, transfers apart.");
  module.def(
      "estimate_error",
      [](const TermSeconds& terms, const std::vector<TimeSample>& samples) { return estimate_error(terms, samples); },
      "terms"_a, "samples"_a, "How far these coefficients are off on samples.");
  module.def(
      "error_of",
      [](const std::vector<double>& estimated_s, const std::vector<double>& measured_s) {
        return error_of(estimated_s, measured_s);
      },
      "estimated_s"_a, "measured_s"_a, "How far estimates are off.");
}

}  // namespace dhp::bindings
