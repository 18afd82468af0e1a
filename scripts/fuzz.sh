#!/usr/bin/env bash
# Runs the fuzzer of every reader for some seconds. What it finds interesting gathers in build/fuzz/corpus; a text that
# breaks something is left in build/fuzz: put it into tests/fuzz/corpus, mended code makes it pass.
#   fuzz.sh SECONDS JOBS
set -euo pipefail
seconds=$1 jobs=$2
cd "$(dirname "$0")/.."
build=build/fuzz
# -O1: a third of the time to build, for half as many texts a second.
cmake -S . -B $build -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS="-O1 -gline-tables-only" \
  -DDHP_FUZZ=ON -DDHP_TESTS=OFF -DDHP_BENCH=OFF >/dev/null
targets=$(for folder in tests/fuzz/corpus/*/; do basename "$folder"; done)
# shellcheck disable=SC2086,SC2046 # one word a target
cmake --build $build -j "$jobs" --target $(printf 'fuzz_%s ' $targets)

fuzz() {
  local target=$1 log=$build/$1.log
  mkdir -p $build/corpus/"$target"
  if ! $build/tests/fuzz/fuzz_"$target" -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=2048 \
    -use_value_profile=1 -print_final_stats=1 -print_funcs=0 -artifact_prefix=$build/"$target"- $build/corpus/"$target" \
    tests/fuzz/corpus/"$target" >"$log" 2>&1; then
    tail -60 "$log" >&2
    echo "fuzz: $target broke" >&2
    return 1
  fi
  echo "fuzz: $target, $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") texts in $seconds s"
}
export -f fuzz
export build seconds
# shellcheck disable=SC2086
printf '%s\n' $targets | xargs -P "$jobs" -I{} bash -c 'fuzz {}'
