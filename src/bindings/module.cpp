#include "bindings/bindings.h"
#include "dhp/peers.h"

NB_MODULE(_core, module) {
  using namespace dhp::bindings;
  module.doc() =
      "The torch-free core of DHP: files, task time, planners, checking, sharding.\n\n"
      "What planning, checking, simulating and making inputs need; names and meaning are those of the C++ headers in\n"
      "include/dhp. Units stand in the names: _s seconds, _bytes\n"
      "bytes, _tokens tokens. Lists and structs that an attribute returns are copies: assign the whole attribute to\n"
      "change one.";
  dhp::add_peers();
  bind_batch(module);
  bind_cluster(module);
  bind_analytic_cost(module);
  bind_plan(module);
  bind_planner(module);
  bind_shard(module);
  bind_qwen_vl(module);
  bind_internvl(module);
  bind_tokens(module);
  bind_simulator(module);
  bind_links(module);
}
