# make demo   sets everything up, builds, and trains a small Qwen3-VL on pictures and clips over four local ranks;
#             MODEL=internvl, qwen2_5_vl or qwen2_vl: another model
# make test   sets everything up, builds, and runs all tests
# make lint   formats and static checks, as in CI; DEEP=1: the slow ones too
# make docs   the documentation as a site, build/docs/html; needs no network once it is set up
#
# TORCH   what pip installs; options are allowed: make TORCH="torch==2.13.0 --index-url URL". "system": the installed one
# PYTHON  the interpreter to make the virtual environment of

TORCH ?= torch==2.13.0
PYTHON ?= python3
VENV ?= build/venv
JOBS ?= $(shell nproc)
MODEL ?= qwen3_vl
DEMO ?= build/demo$(if $(filter-out qwen3_vl,$(MODEL)),-$(MODEL))
FUZZ_SECONDS ?= 6
# The tests wait for processes half of their time.
TESTERS := $(shell echo $$(($(JOBS) * 2)))

export PYTHON
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
export PATH := $(abspath $(VENV))/bin:$(PATH)

# Folders too: a file that is gone is a change.
sources := $(shell find include src cmake data/models data/devices data/clusters data/datasets) CMakeLists.txt pyproject.toml
python := $(VENV)/bin/python

.PHONY: demo test test-core test-sanitizers test-threads fuzz same-bytes compilers nightly wheel docs lint format setup build bench clean

demo: build
	@$(python) -m dhp.demo $(DEMO) --model $(MODEL)
	@rm -f $(DEMO)/train.index  # of the demo before, perhaps by an older dhp
	@if [ -e $(DEMO)/run ]; then kept=$(DEMO)/run-$$(date +%Y%m%d-%H%M%S) && mv -nT $(DEMO)/run $$kept && \
	  echo "the run before is now $$kept"; fi
	dhp train examples/demo.toml --set model=$(DEMO)/model data=$(DEMO)/train.jsonl output_dir=$(DEMO)/run

test: build
	@scripts/setup.sh $(VENV) "$(TORCH)" tests browser
	cmake --build build/release
	ctest --test-dir build/release --output-on-failure -j $(JOBS)
	$(python) -m pytest -q -n $(TESTERS) --dist loadfile --no-loadscope-reorder $(wildcard tests/nightly) tests/python

# The core alone: no torch, no Python packages.
test-core:
	@scripts/setup.sh $(VENV) "$(TORCH)"
	cmake -S . -B build/core -DCMAKE_BUILD_TYPE=Release -DDHP_BENCH=OFF
	cmake --build build/core --target core_tests
	ctest --test-dir build/core --output-on-failure

# Address and undefined-behaviour sanitizers, then threads, over core and run-time.
test-sanitizers: build
	for preset in asan-ubsan tsan; do \
	  cmake --preset $$preset -DDHP_TORCH=ON -DPython_EXECUTABLE=$(abspath $(python)) && \
	  cmake --build --preset $$preset && ctest --preset $$preset || exit 1; \
	done

# What threads share in the run-time, under ThreadSanitizer.
test-threads: build
	cmake --preset tsan -DDHP_TORCH=ON -DPython_EXECUTABLE=$(abspath $(python)) >/dev/null
	cmake --build --preset tsan --target torch_tests late_tests
	OMP_NUM_THREADS=1 build/tsan/tests/cpp/torch/torch_tests --gtest_brief=1
	OMP_NUM_THREADS=1 build/tsan/tests/cpp/torch/late_tests --gtest_brief=1

# Every reader of files against texts that grow out of tests/fuzz/corpus, FUZZ_SECONDS each, with sanitizers.
fuzz:
	@scripts/setup.sh $(VENV) "$(TORCH)" fuzz
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(JOBS)

# The same plans to the last bit from builds of several compilers; BUILDS="FOLDER FOLDER": from those that are there.
same-bytes:
	@scripts/setup.sh $(VENV) "$(TORCH)" clang
	@scripts/same_bytes.sh $(JOBS) $(BUILDS)

# The core built and tested by every compiler that there is a package of; COMPILERS="g++-13 clang++-16": by these.
compilers:
	@scripts/setup.sh $(VENV) "$(TORCH)"
	@scripts/compilers.sh $(JOBS) $(COMPILERS)

# Hours: what is too slow for every change. PARTS="fuzz kills": these alone.
nightly:
	@scripts/nightly.sh $(JOBS) $(PARTS)

# Wheels without torch, tested in fresh environments; PYTHONS="python3.11 python3.13": for these.
wheel:
	@scripts/setup.sh $(VENV) "$(TORCH)"
	@scripts/wheel.sh $(PYTHONS)

docs: build
	@scripts/setup.sh $(VENV) "$(TORCH)" docs
	$(python) -m sphinx -q -W --keep-going -b html docs build/docs/html
	@echo "docs: build/docs/html/index.html"

bench: build
	cmake --build build/release
	build/release/bench/planner_bench
	$(python) bench/distribution_cost.py

lint:
	@scripts/setup.sh $(VENV) "$(TORCH)" tests lint
	$(VENV)/bin/ruff check python tests bench examples docs
	$(VENV)/bin/ruff format --check python tests bench examples docs
	$(VENV)/bin/mypy
	@scripts/lint_cpp.sh $(python) $(JOBS) $(DEEP)

format:
	@scripts/setup.sh $(VENV) "$(TORCH)" tests lint
	$(VENV)/bin/ruff check --fix python tests bench examples docs
	$(VENV)/bin/ruff format python tests bench examples docs
	git ls-files '*.cpp' '*.h' | xargs clang-format -i

# FOR="tests lint clang fuzz browser docs": what these need, too, in one go.
setup:
	@scripts/setup.sh $(VENV) "$(TORCH)" $(FOR)

build: setup build/release/installed

# The editable install sees Python edits at once; compiled parts are installed again when a source is newer.
build/release/installed: $(sources) $(VENV)/ready
	$(python) -m pip install -q --no-build-isolation --no-deps -e .
	@$(python) -c "import dhp.run.ops as ops; ops.load()"
	@touch $@

$(VENV)/ready: ;

clean:
	rm -rf build
