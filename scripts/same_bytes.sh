#!/usr/bin/env bash
# Whether builds of different compilers plan the same to the last bit: not optimised, for the machine's own
# instructions, and by clang.
#   same_bytes.sh JOBS
set -euo pipefail
jobs=$1
cd "$(dirname "$0")/.."
build=build/same_bytes

# NAME COMPILER FLAGS...
hashes() {
  local name=$1 compiler=$2
  shift 2
  cmake -S . -B $build/"$name" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="$*" \
    -DDHP_BENCH=OFF >/dev/null
  cmake --build $build/"$name" -j "$jobs" --target plan_hashes >/dev/null
  $build/"$name"/tests/same_bytes/plan_hashes >$build/"$name".txt
}

hashes gcc-O0 g++ -O0
hashes gcc-native g++ -O3 -march=native
hashes clang clang++ -O2
for other in gcc-native clang; do
  diff $build/gcc-O0.txt $build/$other.txt >$build/difference.txt && continue
  head -20 $build/difference.txt >&2
  echo "same_bytes: gcc-O0 and $other plan differently" >&2
  exit 1
done
echo "same_bytes: $(wc -l <$build/clang.txt) plans, the same from three builds"
