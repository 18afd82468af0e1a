#!/usr/bin/env bash
# clang-format and clang-tidy over the C++ sources. A file that passed is not looked at again until it, a header, or the
# rules change.
#   lint_cpp.sh PYTHON JOBS [deep]
# LINT_SINCE=COMMIT: clang-tidy over the files that differ from that commit; over all where it is not known or the
# rules differ.
set -euo pipefail
python=$1 jobs=$2
more=${3:+--checks=clang-analyzer-*,performance-unnecessary-value-param}
cd "$(dirname "$0")/.."

git ls-files '*.cpp' '*.h' | xargs clang-format --dry-run --Werror

build=build/lint
cmake -S . -B $build -DDHP_TORCH=ON -DDHP_PYTHON=OFF -DPython_EXECUTABLE="$(realpath -s "$python")" >/dev/null
common=$({ git ls-files '*.h' '.clang-tidy' | xargs cat; clang-tidy --version; echo "$more"; } | cksum | tr -d ' ')
mkdir -p $build/passed

check() {
  local file=$1 stamp
  stamp=$build/passed/$(echo "$file$common$(cksum < "$file")" | cksum | tr -d ' ')
  [ -f "$stamp" ] && return 0
  # shellcheck disable=SC2086 # none or one word
  clang-tidy --quiet $more -p $build "$file" 2>/dev/null || { echo "clang-tidy: $file" >&2; return 1; }
  touch "$stamp"
}
export -f check
export build common more

sources() {
  local since=${LINT_SINCE:-}
  if [ -n "$since" ] && git cat-file -e "$since^{commit}" 2>/dev/null && git diff --quiet "$since" -- .clang-tidy; then
    git diff --name-only --diff-filter=d "$since" -- 'src/*.cpp'
  else
    git ls-files 'src/*.cpp'
  fi
}
sources | { grep -v '^src/bindings/' || true; } | xargs -r -P "$jobs" -I{} bash -c 'check {}'
