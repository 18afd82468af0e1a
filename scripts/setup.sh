#!/usr/bin/env bash
# Sets up what `make` needs: system packages and a virtual environment. Called by the Makefile; quick when nothing
# changed.
#   setup.sh VENV TORCH [tests|lint|clang|fuzz|browser|docs]...    tests: Python packages of tests and lint
# TORCH is what pip installs ("torch==2.13.0", pip options allowed), or "system": the torch of $PYTHON.
set -euo pipefail
# Modules are compiled when they are first imported; most never are. Half of the time of an installation.
export PIP_NO_COMPILE=1
venv=$1 torch=$2 purposes=" ${*:3} "
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
PATH=${PATH//"$(realpath -m "$venv")/bin:"/}  # the interpreter that the environment is made of, not its own

wants() {
  [[ $purposes == *" $1 "* ]]
}

missing_packages() {
  local header
  echo '#include <nlohmann/json.hpp>' | c++ -x c++ -std=c++20 -fsyntax-only - 2>/dev/null || echo nlohmann-json3-dev
  echo '#include <CLI/CLI.hpp>' | c++ -x c++ -std=c++20 -fsyntax-only - 2>/dev/null || echo libcli11-dev
  echo '#include <gtest/gtest.h>' | c++ -x c++ -std=c++20 -fsyntax-only - 2>/dev/null || echo libgtest-dev
  echo '#include <benchmark/benchmark.h>' | c++ -x c++ -std=c++20 -fsyntax-only - 2>/dev/null || echo libbenchmark-dev
  "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  header=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h
  [ -f "$header" ] || echo python3-dev
}

missing_lint_tools() {
  command -v clang-format >/dev/null || echo clang-format
  command -v clang-tidy >/dev/null || echo clang-tidy
}

missing_clang() {
  command -v clang++ >/dev/null || echo clang
}

# clang with the run-time library of libFuzzer and the sanitizers: a package of its own, named after the version.
missing_fuzzer() {
  local version runtime
  missing_clang
  version=$(clang++ -dumpversion 2>/dev/null || apt-cache depends clang 2>/dev/null | grep -o 'clang-[0-9]*' || true)
  version=$(echo "$version" | grep -o '[0-9]*' | head -1)
  runtime=$(clang++ -print-file-name=libclang_rt.fuzzer-"$(uname -m)".a 2>/dev/null || true)
  [ -f "$runtime" ] || echo "libclang-rt-${version:-14}-dev"
}

# A browser without a window, for the tests that look at the report. Ubuntu has Chromium as a snap alone.
missing_browser() {
  local name
  for name in chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && return
  done
  if grep -qs '^ID=debian' /etc/os-release; then
    echo chromium-headless-shell
  else
    echo "setup: no Chromium; the tests that look at the report in a browser will be skipped" >&2
  fi
}

missing_docs_tools() {
  command -v doxygen >/dev/null || echo doxygen
}

install_packages() {
  local packages=$1 sudo=""
  if ! command -v apt-get >/dev/null; then
    echo "setup: please install what Debian calls: $packages" >&2
    exit 1
  fi
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "setup: not root; please run: sudo apt-get install $packages" >&2
      exit 1
    fi
    sudo=sudo
  fi
  $sudo apt-get update -qq
  # shellcheck disable=SC2086 # one word a package
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
}

# What pyproject.toml asks for: to build, to run, and for every extra.
listed() {
  "$python" -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    text = tomllib.load(file)
project = text["project"]
extras = [name for names in project["optional-dependencies"].values() for name in names]
print(*text["build-system"]["requires"], "ninja", *project["dependencies"], *extras, sep="\n")'
}

make_environment() {
  echo "setup: virtual environment in $venv"
  rm -rf "$venv"
  "$python" -m venv "$venv"
  if [ "$torch" = system ]; then
    # A .pth file, since --system-site-packages does not see the packages of a parent that is itself an environment.
    "$python" -c 'import torch' || { echo "setup: TORCH=system, but $python has no torch" >&2; exit 1; }
    "$python" -c 'import sysconfig; p = sysconfig.get_paths(); print(p["purelib"]); print(p["platlib"])' \
      > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/parent.pth"
  else
    # shellcheck disable=SC2086 # TORCH may hold pip options
    "$venv/bin/python" -m pip install -q $torch
  fi
  mapfile -t packages < <(listed)
  "$venv/bin/python" -m pip install -q -c requirements.txt "${packages[@]}"
  echo "$wanted" > "$stamp"
}

for tool in c++ cmake "$python"; do
  command -v "$tool" >/dev/null || { echo "setup: $tool is missing; please install g++, cmake and python3" >&2; exit 1; }
done
stamp=$venv/ready tests_stamp=$venv/ready-tests
wanted=$({ "$python" -VV; echo "$torch"; cat requirements.txt; } | cksum)
wanted_tests="$wanted $(cat requirements-tests.txt requirements-no-deps.txt | cksum)"
ready=no
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && ready=yes
packages=$({ [ $ready = yes ] || missing_packages; ! wants lint || missing_lint_tools; ! wants clang || missing_clang
             ! wants fuzz || missing_fuzzer; ! wants browser || missing_browser
             ! wants docs || missing_docs_tools; } | tr '\n' ' ')
if [ -n "${packages// /}" ]; then
  echo "setup: installing $packages"
  install_packages "$packages"
fi
[ $ready = yes ] || make_environment
if wants tests && [ "$(cat "$tests_stamp" 2>/dev/null)" != "$wanted_tests" ]; then
  "$venv/bin/python" -m pip install -q -r requirements-tests.txt
  "$venv/bin/python" -m pip install -q --no-deps -r requirements-no-deps.txt
  echo "$wanted_tests" > "$tests_stamp"
fi
if wants docs && ! cmp -s requirements-docs.txt "$venv/ready-docs"; then
  "$venv/bin/python" -m pip install -q -r requirements-docs.txt
  cp requirements-docs.txt "$venv/ready-docs"
fi
