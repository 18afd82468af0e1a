#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "device.h"
#include "lateccl.h"

namespace py = pybind11;

PYBIND11_MODULE(late_device, module) {
  module.def("make_backend", [](c10::intrusive_ptr<c10d::Backend> carrier, const std::string& policy) {
    return late::make_lateccl(std::move(carrier), late::parse_policy(policy));
  });
  module.def("set_policy", [](std::int64_t stream, const std::string& policy) {
    late::set_policy(stream, late::parse_policy(policy));
  });
  module.def("make_serial", &late::make_serial);
  module.attr("DEVICES") = int{late::kDevices};
  module.def("seed", &late::seed);
  module.def("synchronize", &late::synchronize_all, py::call_guard<py::gil_scoped_release>());
  module.def("stall", &late::stall);
  module.def("take_counts", &late::take_counts);
  module.def("unasked", &late::unasked);
  module.def("set_fault", &late::set_fault);
  module.def("set_coalescing", &late::set_coalescing);
  module.def("post_batch", &late::post_batch, py::call_guard<py::gil_scoped_release>());
  module.def("contacts", &late::contacts);
}
