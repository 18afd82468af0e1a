#!/usr/bin/env bash
# Builds the core with every compiler that there is a package of, warnings being errors, runs its tests, and compares the
# plans of all of them to the last bit.
#   compilers.sh JOBS [COMPILER...]    by default g++-12, 13, 14 and every clang++ from 14 on; names what it could not try
# DHP_TEST_SHARE is the share of random cases, by default a tenth; OPTIMISE the level of optimisation, by default 2.
# TESTS=OFF: the core alone is built, with what same_bytes.sh runs.
set -euo pipefail
jobs=$1
shift
compilers=("$@")
[ $# != 0 ] || compilers=(g++-12 g++-13 g++-14 clang++-{14..21})
cd "$(dirname "$0")/.."
export DHP_TEST_SHARE=${DHP_TEST_SHARE:-0.1}
folder=build/compilers builds=() missing=()
mkdir -p $folder

package_of() {
  echo "${1/clang++/clang}"
}

# Looked for by its whole name: apt takes one with a + in it for a pattern that other packages match too.
packaged() {
  apt-cache pkgnames "$(package_of "$1")" 2>/dev/null | grep -xF "$(package_of "$1")" >/dev/null  # -q would break the pipe
}

absent=()
for compiler in "${compilers[@]}"; do
  command -v "$compiler" >/dev/null || absent+=("$compiler")
done
[ ${#absent[@]} = 0 ] || [ "$(id -u)" != 0 ] || apt-get update -qq || true
for compiler in "${absent[@]}"; do
  ! packaged "$compiler" || missing+=("$(package_of "$compiler")")
done
# One by one: a package that cannot be installed must not keep the others out.
for package in "${missing[@]}"; do
  echo "compilers: installing $package"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null || true
done

for compiler in "${compilers[@]}"; do
  command -v "$compiler" >/dev/null || { echo "compilers: $compiler not tried: no package of it here"; continue; }
  start=$SECONDS
  build=$folder/$compiler
  # An older g++ has an older libstdc++ than the packaged GoogleTest was built with, and cannot link it: from its sources.
  own=()
  [[ $compiler != g++* || ! -d /usr/src/googletest ]] ||
    own=(-DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON -DFETCHCONTENT_SOURCE_DIR_GOOGLETEST=/usr/src/googletest)
  cmake -S . -B "$build" "${own[@]}" -DCMAKE_CXX_COMPILER="$compiler" -DDHP_WERROR=ON -DDHP_BENCH=OFF -DCMAKE_BUILD_TYPE=None \
    -DCMAKE_CXX_FLAGS="-O${OPTIMISE:-2} -DNDEBUG" >/dev/null
  cmake --build "$build" -j "$jobs" --target dhp plan_hashes $([ "${TESTS:-ON}" = OFF ] || echo core_tests) >"$build.log" 2>&1 ||
    { grep -B3 -A5 -m3 'error' "$build.log" >&2; echo "compilers: $compiler does not build the core" >&2; exit 1; }
  [ "${TESTS:-ON}" = OFF ] || ctest --test-dir "$build" -j "$jobs" --output-on-failure -Q -E InstalledPackage -O "$build.tests.log" ||
    { tail -40 "$build.tests.log" >&2; echo "compilers: tests fail with $compiler" >&2; exit 1; }
  builds+=("$build")
  echo "compilers: $("$compiler" --version | head -1): passed, $((SECONDS - start)) s"
done
[ ${#builds[@]} != 0 ] || { echo "compilers: none of ${compilers[*]} is here" >&2; exit 1; }
[ ${#builds[@]} = 1 ] || scripts/same_bytes.sh "$jobs" "${builds[@]}"
