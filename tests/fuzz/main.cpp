// The entry point of libFuzzer; DHP_FUZZ_TARGET is a function of fuzz.h.
#include <cstddef>
#include <cstdint>

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  dhp::fuzz::DHP_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
