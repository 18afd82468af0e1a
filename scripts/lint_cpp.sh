#!/usr/bin/env bash
# clang-format and clang-tidy over the C++ sources. clang-tidy reads the files of a room together, as the build does
# (DHP_UNITY): most of its time goes into headers. Files that passed are not looked at again until one of them, a
# header, or the rules change.
#   lint_cpp.sh PYTHON JOBS [deep]
set -euo pipefail
python=$1 jobs=$2
# A unit of DHP_UNITY is nothing but includes of .cpp files.
more=--checks=-bugprone-suspicious-include${3:+,clang-analyzer-*,performance-unnecessary-value-param}
cd "$(dirname "$0")/.."

git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run --Werror

build=build/lint
rm -rf $build/CMakeFiles $build/src
cmake -S . -B $build -DDHP_UNITY=ON -DDHP_TORCH=ON -DDHP_PYTHON=OFF -DDHP_TESTS=OFF -DDHP_BENCH=OFF \
  -DPython_EXECUTABLE="$(realpath -s "$python")" >/dev/null
common=$({ git ls-files '*.h' '.clang-tidy' | xargs cat; clang-tidy --version; echo "$more"; } | cksum | tr -d ' ')
mkdir -p $build/passed

check() {
  local unit=$1 stamp
  stamp=$build/passed/$({ sed -n 's/^#include "\(.*\)"$/\1/p' "$unit" | xargs cat; echo "$common"; } | cksum | tr -d ' ')
  [ -f "$stamp" ] && return 0
  clang-tidy --quiet "$more" -p $build "$unit" 2>/dev/null || { echo "clang-tidy: $unit" >&2; return 1; }
  touch "$stamp"
}
export -f check
export build common more

# Long ones first.
find $build -name 'unity_*.cxx' -print0 | xargs -0 grep -c '#include' | sort -t: -k2 -rn | cut -d: -f1 |
  xargs -r -P "$jobs" -I{} bash -c 'check {}'
