#!/usr/bin/env bash
# What is too slow for every change: parts beside each other, since many wait for processes, and a table of them.
#   nightly.sh JOBS [PART...]    logs: build/nightly/PART.log
set -uo pipefail
jobs=$1
shift
cd "$(dirname "$0")/.." || exit
mkdir -p build/nightly
parts=("$@")
# Long ones first.
[ $# != 0 ] || parts=(inputs trixie bookworm noble kills sanitizers docs fuzz network properties lint same-bytes scale wheel
  transformers media torchvision stores compile)
export SEED=${SEED:-$(date +%Y%m%d%H)} DHP_WERROR=ON JOBS=$jobs

tried() {
  DHP_NIGHTLY=1 build/venv/bin/python -m pytest -q -s tests/nightly -k "$1"
}

run_part() {
  case $1 in
    # Random cases of planners and bounds, other ones each night.
    properties) cmake --build build/release --target core_tests &&
      build/release/tests/cpp/core_tests --gtest_filter='Planners/*:BoundExhaustive*' ;;
    # 10,000 broken data lines, settings and checkpoint folders each.
    inputs) tried fuzz ;;
    # kill -9 at 200 random moments, resumed every time.
    kills) tried kill ;;
    # Cut and slow links between network namespaces.
    network) tried network ;;
    # 500 steps, 16,384 ranks.
    scale) tried scale ;;
    # What README and docs show of the demo and of measurements.
    docs) make docs && tried shown ;;
    same-bytes) make same-bytes ;;
    # Readers of files under libFuzzer.
    fuzz) make fuzz FUZZ_SECONDS=120 ;;
    sanitizers) DHP_TEST_SHARE=0.1 make test-sanitizers ;;
    lint) make lint DEEP=1 ;;
    # Fresh machines: both commands of the README, and the core by every compiler of the newest Debian. Random cases do
    # not depend on the machine: a tenth of them.
    trixie) DHP_TEST_SHARE=0.1 COMMANDS="demo test compilers" scripts/fresh_roots.sh trixie ;;
    bookworm | noble) DHP_TEST_SHARE=0.1 scripts/fresh_roots.sh "$1" ;;
    # Every family with the oldest and the newest transformers that pyproject.toml admits.
    transformers)
      local wanted folder
      for wanted in "==$(sed -n 's/.*"transformers>=\([0-9.]*\).*/\1.0/p' pyproject.toml)" ">=5,<6"; do
        folder=build/nightly/transformers${wanted//[^0-9.]/-}
        build/venv/bin/python -m pip install -q --no-deps --upgrade --target "$folder" "transformers$wanted" &&
          PYTHONPATH=$folder build/venv/bin/python -m pytest -q tests/python/models/test_families.py \
            tests/python/loop/test_family_training.py || return
      done ;;
    # 200 pictures of every family, against its own processor.
    media) DHP_TEST_MEDIA=200 build/venv/bin/python -m pytest -q tests/python/data/test_family_rules.py ;;
    # s3:// and gs:// by the packages of the stores, from servers that keep objects as these do.
    stores)
      local python=build/venv/bin/python folder=build/nightly/stores
      rm -rf $folder
      $python -m pip install -q --target $folder s3fs 'moto[server,s3]' gcsfs gcp-storage-emulator || return
      PYTHONPATH=$folder $python -m pytest -q tests/nightly/test_stores.py ;;
    # Hugging Face's processors as they are beside the torchvision that goes with torch.
    torchvision)
      local python=build/venv/bin/python folder=build/nightly/torchvision minor
      minor=$($python -c 'import torch; print(torch.__version__.split(".")[1])')
      rm -rf $folder
      $python -m pip install -q --no-deps --target $folder "torchvision==0.$((minor + 15)).*" num2words || return
      export PYTHONPATH=$folder
      $python -c 'import torchvision' 2>/dev/null || {
        cp tests/support/torchvision_operators.py $folder/torchvision/ &&
          sed -i '1i import torchvision.torchvision_operators' $folder/torchvision/__init__.py
      }
      $python -m pytest -q tests/nightly/test_torchvision.py tests/python/data ;;
    # torch.compile's default backend, for families, recomputation and LoRA.
    compile) tried compile ;;
    # Wheels in fresh environments, and the run-time that `dhp build-ops` compiles of one.
    wheel) make wheel && tried wheel ;;
    *) echo "nightly: no part $1"; return 2 ;;
  esac
}

report_part() {
  local part=$1 start=$SECONDS result log=build/nightly/$1.log cpu_s
  if DHP_TEST_SEED=$SEED run_part "$part" >"$log" 2>&1 </dev/null; then result=passed; else result=FAILED; fi
  times >"$log.times"  # of this shell: not in a pipe
  cpu_s=$(awk -F'[ ms]+' 'NR == 2 { print int($1 * 60 + $2 + $3 * 60 + $4) }' "$log.times")
  printf '%-11s %-7s %4d min, %4d of CPU  %s\n' "$part" $result $(((SECONDS - start + 30) / 60)) $(((cpu_s + 30) / 60)) \
    "$(tail -1 "$log" | cut -c1-100)"
  [ $result = passed ]
}
export -f tried run_part report_part

make build setup FOR="tests lint clang fuzz" || exit
cmake --build build/release --target late_device >/dev/null || exit  # of tests that are run without `make test`
echo "nightly: ${parts[*]}, seed $SEED (SEED=$SEED repeats it)"
printf '%s\n' "${parts[@]}" | xargs -P $((jobs * 3 / 2)) -I{} bash -uo pipefail -c 'report_part {}' || {
  echo "nightly: failed; see the logs in build/nightly"
  exit 1
}
