#pragma once

#include <benchmark/benchmark.h>

#include <exception>
#include <iostream>
#include <string>

#include "dhp/peers.h"

namespace dhp::bench {

/// The main function of a program of google-benchmark: runs what `add_all` registers. Returns the exit code.
template <typename AddAll>
int run_benchmarks(const std::string& name, int argc, char** argv, const AddAll& add_all) {
  try {
    add_peers();
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
    add_all();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
  } catch (const std::exception& error) {
    std::cerr << name << ": " << error.what() << '\n';
    return 2;
  }
}

}  // namespace dhp::bench
