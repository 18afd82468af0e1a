"""`dhp build-ops`: compiles the op library of the run-time (dhp.run.ops) against the torch that is installed, of the
sources that the package carries: for a dhp that was installed as a wheel, or before torch was. Exit codes: 0 built, 1
the compiler refuses, 2 bad input."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dhp
from dhp import _core
from dhp._core import InputError
from dhp.base.output import check_writable, complain, say
from dhp.run import commands

# As src/torch/CMakeLists.txt has it.
FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-fPIC", "-DUSE_C10D_GLOO", "-ffp-contract=off")
TOGETHER = 12  # files of one unit, most of which is torch's headers: a unit takes 1.5 GB and half a minute


def _sources() -> Path:
    for folder in dhp.__path__:
        if (path := Path(folder) / "sources").is_dir():
            return path
    raise InputError(
        "dhp build-ops: this dhp carries no sources; install its wheel, or build in a checkout (make build)"
    )


def _compiler(chosen: str) -> list[str]:
    """The words of a command, as $CXX may hold them: "ccache g++"."""
    words = shlex.split(chosen)
    if words and shutil.which(words[0]):
        return words
    raise InputError(
        f"dhp build-ops: found no C++ compiler {chosen}; install g++ 12 or later (apt-get install g++), or name one "
        "with --compiler"
    )


def _torch_flags() -> tuple[list[str], list[str], str]:
    """What compiling and linking against torch takes, and its version."""
    import torch  # here, since it takes a second, and there may be none

    folder = Path(torch.__file__).parent
    includes = [folder / "include", folder / "include/torch/csrc/api/include"]
    compiling = [f"-isystem{path}" for path in includes]
    compiling += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"]
    linking = [f"-L{folder / 'lib'}", f"-Wl,-rpath,{folder / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10", "-pthread"]
    return compiling, linking, str(torch.__version__)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}".rstrip())


def build(output: Path, compiler: Sequence[str], jobs: int) -> str:
    """Returns the version of torch. Raises InputError, and RuntimeError with what the compiler says."""
    sources = _sources()
    compiling, linking, version = _torch_flags()
    dhp_version = importlib.metadata.version("dhp")
    compiling += [f"-I{sources}", f"-I{sources / 'include'}", f'-DDHP_VERSION="{dhp_version}"']
    compiling += [f'-DDHP_TORCH_VERSION="{version}"']
    files = sorted(sources.rglob("*.cpp"), key=lambda file: (file.relative_to(sources).parts[0] != "torch", file))
    with tempfile.TemporaryDirectory() as folder:
        units = []
        for start in range(0, len(files), TOGETHER):
            unit = Path(folder) / f"unit{start}.cpp"
            unit.write_text("".join(f'#include "{file}"\n' for file in files[start : start + TOGETHER]))
            units.append(unit)
        with ThreadPoolExecutor(jobs) as pool:
            calls = [[*compiler, *FLAGS, *compiling, "-c", str(unit), "-o", f"{unit}.o"] for unit in units]
            list(pool.map(_run, calls))
        partial = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            _run([*compiler, "-shared", "-s", *(f"{unit}.o" for unit in units), "-o", str(partial), *linking])
            os.replace(partial, output)  # ranks that run keep the one they have
        finally:
            partial.unlink(missing_ok=True)
    return version


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dhp build-ops", description="Compile the run-time for the installed torch.")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: in the package, where dhp looks for it")
    parser.add_argument("--compiler", default=os.environ.get("CXX", "c++"), help="default: $CXX, or c++")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="number of parallel compilers")
    options = parser.parse_args(argv)
    if problem := commands.missing("build-ops"):
        complain(problem)
        return 2
    output = Path(options.output or Path(_core.__file__).parent / "libdhp_torch.so")
    start_s = time.monotonic()
    try:
        check_writable("-o", str(output))
        if options.jobs < 1:
            raise InputError(f"--jobs: found {options.jobs}, expected at least 1")
        version = build(output, _compiler(options.compiler), options.jobs)
    except InputError as error:
        complain(f"dhp: error: {error}")
        return 2
    except RuntimeError as error:
        complain(f"{error}\ndhp: error: dhp build-ops: the compiler refuses; see above")
        return 1
    except KeyboardInterrupt:
        complain("dhp build-ops: interrupted; nothing was written")
        return commands.INTERRUPTED
    return say(f"{output} for torch {version}, in {time.monotonic() - start_s:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
