#!/usr/bin/env bash
# What is too slow for every change, some six hours on two cores: one part after another, on after a failed one, with a
# table at the end.
#   nightly.sh JOBS [PART...]    logs: build/nightly/PART.log
set -uo pipefail
jobs=$1
shift
cd "$(dirname "$0")/.." || exit
mkdir -p build/nightly
parts=("$@")
[ $# != 0 ] || parts=(properties inputs kills network scale docs compilers same-bytes fuzz sanitizers lint roots)
seed=${SEED:-$(date +%Y%m%d%H)}
export DHP_WERROR=ON DHP_TEST_SEED=$seed

# Minutes are of two idle cores.
run_part() {
  local pytest="env DHP_NIGHTLY=1 build/venv/bin/python -m pytest -q -s tests/nightly"
  case $1 in
    # Random cases of planners and bounds, other ones each night. 5 min
    properties) make build && cmake --build build/release --target core_tests &&
      build/release/tests/cpp/core_tests --gtest_filter='Planners/*:BoundExhaustive*' ;;
    # 10,000 broken data lines, settings and checkpoint folders each.
    inputs) make build setup FOR=tests && $pytest -k fuzz ;;
    # kill -9 at 200 random moments, resumed every time.
    kills) make build setup FOR=tests && $pytest -k kill ;;
    # Cut and slow links between network namespaces.
    network) make build setup FOR=tests && $pytest -k network ;;
    # 500 steps, 16,384 ranks.
    scale) make build setup FOR=tests && $pytest -k scale ;;
    # What README and docs show of the demo and of measurements.
    docs) make build setup FOR=tests && $pytest -k shown ;;
    # The core by every compiler that there are packages of.
    compilers) make compilers ;;
    same-bytes) make same-bytes ;;
    # Readers of files under libFuzzer, 5 min each.
    fuzz) make fuzz FUZZ_SECONDS=300 ;;
    sanitizers) DHP_TEST_SHARE=0.1 make test-sanitizers ;;
    lint) make lint DEEP=1 ;;
    # Fresh machines, every compiler of theirs included.
    roots) COMMANDS="demo test compilers" scripts/fresh_roots.sh ;;
    *) echo "nightly: no part $1"; return 2 ;;
  esac
}

echo "nightly: ${parts[*]}, seed $seed (SEED=$seed repeats it)"
rows=() failed=0
for part in "${parts[@]}"; do
  start=$SECONDS log=build/nightly/$part.log
  if JOBS=$jobs run_part "$part" >"$log" 2>&1 </dev/null; then
    result=passed
  else
    result=FAILED failed=1
  fi
  rows+=("$(printf '%-11s %-7s %4d min  %s' "$part" $result $(((SECONDS - start + 30) / 60)) "$(tail -1 "$log")")")
  echo "${rows[-1]}"
done
[ $failed = 0 ] || echo "nightly: failed; see the logs in build/nightly"
exit $failed
