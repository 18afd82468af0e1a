#!/usr/bin/env bash
# Everything that only hardware can tell, on one GPU in under ten minutes, with no network: docs/gpu.md.
#
#     bench/gpu/run.sh [--out FOLDER] [--steps NAME...]
#
# Takes whatever torch (2.9 or later) PYTHON has (python3 unless set), compiles the run-time for it with a C++ compiler,
# without nvcc, and runs the steps in order: each is reported even if another fails. Prints one table and writes
# FOLDER/result.json (build/gpu unless given).
#
#     DEVICE=late       the device that is made for tests, with small sizes: tries the script itself (needs a build)
#     DHP_TORCH_LIBRARY an op library that is built already: nothing is compiled
#     NCCL_LIBRARY      libnccl.so.2 of 2.30 or later, for two ranks on one GPU
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}

missing() {
  echo "bench/gpu/run.sh: $1" >&2
  exit 2
}
need=$("$python" - <<'PYTHON'
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

try:
    found = version("torch")
except PackageNotFoundError:
    found = "0.0"
if tuple(int(part) for part in found.split("+")[0].split(".")[:2]) < (2, 9):
    print("torch of 2.9 or later")
for package in ("numpy", "scipy", "transformers", "tokenizers", "PIL"):
    if find_spec(package) is None:
        print(package)
PYTHON
)
[ -z "$need" ] || missing "$python lacks $(paste -sd' ' <<<"$need"): install it, or name an interpreter that has it: PYTHON=…"
# The planner, which knows nothing of torch: as installed, or of a wheel (make wheel) that was brought along.
if ! "$python" -c 'import dhp._core' 2>/dev/null; then
  wheel=$(ls -t dist/dhp-*.whl build/wheels/dhp-*.whl 2>/dev/null | head -1) || true
  if [ -n "$wheel" ]; then
    "$python" -m pip install -q --no-index --no-deps --upgrade --target build/gpu/site "$wheel"
    export PYTHONPATH=$PWD/build/gpu/site${PYTHONPATH:+:$PYTHONPATH}
  else
    "$python" -m pip install -q --no-index --no-deps --no-build-isolation -e . ||
      missing "dhp is not installed and cannot be built here: bring a wheel along (make wheel), in dist/ or build/wheels/"
  fi
fi
exec "$python" bench/gpu/run.py "$@"
