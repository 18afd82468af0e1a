#include "dhp/analytic_cost.h"
#include "readers.h"

namespace dhp::fuzz {

void config(std::string_view text) {
  const auto counts = unless_input_error([&] { return count_parameters(text, "config.json"); });
  if (!counts) return;
  require(counts->language_body > 0 && counts->embeddings > 0 && counts->vision > 0, "a model has parameters");
  for (const Device& device : devices()) {
    for (const bool freeze_vit : {false, true}) {
      const CostModel cost =
          analytic_cost(text, "config.json", {.device = device.name, .ranks = 8, .freeze_vit = freeze_vit});
      require(parse_cost_model(to_json(cost), "again") == cost, "an analytic cost survives being written");
    }
  }
}

}  // namespace dhp::fuzz
