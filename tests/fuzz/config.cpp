#include "dhp/analytic_cost.h"
#include "readers.h"

namespace dhp::fuzz {

void config(std::string_view text) {
  const auto counts = unless_input_error([&] { return count_parameters(text, "config.json"); });
  if (!counts) return;
  require(counts->language_body > 0 && counts->embeddings > 0 && counts->vision > 0, "a model has parameters");
  for (const Device& device : devices()) {
    for (const Freeze& freeze : {Freeze{}, Freeze{.vit = true, .aligner = true}, Freeze{.llm = true}}) {
      for (const Recompute recompute : {Recompute::full, Recompute::keep_attention, Recompute::none}) {
        const CostReport report = analytic_report(
            text, "config.json", {.device = device.name, .ranks = 8, .recompute = recompute, .freeze = freeze});
        require(parse_cost_model(to_json(report.cost), "again") == report.cost,
                "an analytic cost survives being written");
        std::int64_t sum = 0;
        for (const ModuleCost& module : report.modules) sum += module.parameters;
        require(sum == counts->total(), "modules add up to the model");
      }
    }
  }
}

}  // namespace dhp::fuzz
