// Tests know the peers, as the command line does.
#include "dhp/peers.h"

namespace {

const bool kKnown = [] {
  dhp::add_peers();
  return true;
}();

}  // namespace
