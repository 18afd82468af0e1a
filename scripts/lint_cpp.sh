#!/usr/bin/env bash
# clang-format and clang-tidy over the C++ sources. clang-tidy reads the files of a room together, as the build does
# (DHP_UNITY): most of its time goes into headers. Files that passed are not looked at again until one of them, a
# header, or the rules change. SINCE=COMMIT: only rooms with a file that has changed since then, or that includes one.
#   [SINCE=COMMIT] lint_cpp.sh PYTHON JOBS [deep]
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
# As includes name what has changed; a line that no file is like where nothing has.
changed=""
if [ -n "${SINCE:-}" ] && git rev-parse -q --verify "$SINCE" >/dev/null; then
  changed=$({ git diff --name-only "$SINCE" -- '*.cpp' '*.h'; echo "no file"; } | sed 's,^\(src\|include\)/,,; s,.*,[/"]&",')
fi

check() {
  local unit=$1 text stamp
  text=$(cat "$unit"; sed -n 's/^#include "\(.*\)"$/\1/p' "$unit" | xargs cat; echo "$common")
  [ -z "$changed" ] || grep '^#include' <<<"$text" | grep "$changed" >/dev/null || return 0
  stamp=$build/passed/$(cksum <<<"$text" | tr -d ' ')
  [ -f "$stamp" ] && return 0
  clang-tidy --quiet "$more" -p $build "$unit" 2>/dev/null || { echo "clang-tidy: $unit" >&2; return 1; }
  touch "$stamp"
}
export -f check
export build common more changed

# Long ones first.
find $build -name 'unity_*.cxx' -print0 | xargs -0 grep -c '#include' | sort -t: -k2 -rn | cut -d: -f1 |
  xargs -r -P "$jobs" -I{} bash -c 'check {}'
