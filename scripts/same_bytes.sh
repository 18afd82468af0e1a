#!/usr/bin/env bash
# Whether builds of different compilers plan the same to the last bit.
#   same_bytes.sh JOBS                three builds made for it: not optimised, for the machine's own instructions, by clang
#   same_bytes.sh JOBS BUILD BUILD    two that are there already: what tests and fuzzers use (gcc -O3, clang -O1)
set -euo pipefail
jobs=$1
shift
cd "$(dirname "$0")/.."
folder=build/same_bytes
mkdir -p $folder

# BUILD LIST
hashes() {
  cmake --build "$1" -j "$jobs" --target plan_hashes >/dev/null
  "$1"/tests/same_bytes/plan_hashes >"$2"
}

# NAME COMPILER FLAGS...
build() {
  local name=$1 compiler=$2
  shift 2
  cmake -S . -B $folder/"$name" -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="$*" \
    -DDHP_BENCH=OFF >/dev/null
  builds+=("$folder/$name")
}

builds=("$@")
if [ $# = 0 ]; then
  build gcc-O0 g++ -O0
  build gcc-native g++ -O3 -march=native
  build clang clang++ -O2
fi
first=$folder/first.txt other=$folder/other.txt
hashes "${builds[0]}" $first
for build in "${builds[@]:1}"; do
  hashes "$build" $other
  diff $first $other >$folder/difference.txt && continue
  head -20 $folder/difference.txt >&2
  echo "same_bytes: ${builds[0]} and $build plan differently" >&2
  exit 1
done
echo "same_bytes: $(wc -l <$first) plans, the same from ${#builds[@]} builds"
