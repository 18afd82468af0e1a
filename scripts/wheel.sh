#!/usr/bin/env bash
# Wheels without torch: one for each Python named, those of 3.12 and later together one for the stable ABI. Each is tested
# in fresh environments of these Pythons, with neither compiler nor torch (tests/package/wheel.py).
#   wheel.sh [PYTHON]...    default: $PYTHON or python3, and the first of python3.12 to 3.14 that runs; to build/wheels
set -euo pipefail
shopt -s inherit_errexit  # a build that fails ends this, also inside $(…)
cd "$(dirname "$0")/.."
folder=build/wheels
mkdir -p $folder

runs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

pythons=("$@")
if [ $# = 0 ]; then
  pythons=("${PYTHON:-python3}")
  for python in python3.12 python3.13 python3.14; do
    runs $python && pythons+=($python) && break
  done
fi

# PYTHON -> "cp311", or "abi3" from 3.12 on.
kind_of() {
  "$1" -c 'import sys; v = sys.version_info; print("abi3" if v >= (3, 12) else f"cp{v[0]}{v[1]}")'
}

# PYTHON KIND: the wheel's path, as the last line.
build() {
  local out=$folder/$2
  local settings=(cmake.define.DHP_TORCH=OFF cmake.define.DHP_TESTS=OFF cmake.define.DHP_BENCH=OFF "build-dir=build/wheel-$2")
  [ "$2" != abi3 ] || settings+=(cmake.define.DHP_STABLE_ABI=ON wheel.py-api=cp312 "cmake.version=>=3.26")
  rm -rf "$out" "build/wheel-$2"
  # In full: the pip of Debian 12 knows no -C.
  "$1" -m pip wheel -q --no-deps -w "$out" "${settings[@]/#/--config-settings=}" . >&2
  mv "$out"/dhp-*.whl $folder && rmdir "$out"
  find $folder -name "dhp-*-$([ "$2" = abi3 ] && echo cp312-abi3 || echo "$2-$2")-*.whl" -newer "$stamp" | tail -1
}

# PYTHON WHEEL
check() {
  local venv start
  venv=$(mktemp -d)/venv
  "$1" -m venv "$venv"
  start=$(date +%s%N)
  "$venv/bin/python" -m pip install -q "$2" 2>&1 | { grep -v '^WARNING: Location' || true; }
  echo "wheel: installed by $("$1" -V) in $((($(date +%s%N) - start) / 1000000)) ms, numpy included"
  PATH="$PWD/$folder/none:${venv}/bin" "$venv/bin/python" -I tests/package/wheel.py "$venv"
  rm -rf "${venv%/venv}"
}

stamp=$(mktemp)
trap 'rm -f "$stamp"' EXIT
declare -A wheels=()
for python in "${pythons[@]}"; do
  runs "$python" || { echo "wheel: $python is not there, or has no venv (apt-get install python3-venv)" >&2; exit 1; }
  kind=$(kind_of "$python")
  if [ -z "${wheels[$kind]:-}" ]; then
    start=$SECONDS
    wheels[$kind]=$(build "$python" "$kind")
    echo "wheel: ${wheels[$kind]}, $(($(stat -c %s "${wheels[$kind]}") / 1024)) KiB, in $((SECONDS - start)) s"
  fi
  check "$python" "${wheels[$kind]}"
done
[ -n "${wheels[abi3]:-}" ] || echo "wheel: of ${pythons[*]} none is Python 3.12 or later: no wheel for the stable ABI"
