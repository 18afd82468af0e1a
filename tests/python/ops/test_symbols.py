"""scripts/check_symbols.sh: whether one build of the run-time fits another wheel of the same torch."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import torch

from dhp.run import ops

ROOT = Path(__file__).parents[3]
TORCH = Path(torch.__file__).parent


def check(library: Path, package: Path) -> tuple[int, str]:
    done = subprocess.run([ROOT / "scripts/check_symbols.sh", library, package], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_every_symbol_is_in_the_torch_that_it_was_built_for() -> None:
    code, said = check(ops.library_path(), TORCH)
    assert code == 0, said
    assert said.startswith("check_symbols: all ")


def test_a_symbol_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("libtorch_cpu.so", "libc10.so"):  # one of them for both
        shutil.copy(TORCH / "lib" / "libc10.so", tmp_path / "lib" / name)
    code, said = check(ops.library_path(), tmp_path)
    assert code == 1
    assert f"{tmp_path} lacks " in said
    assert "at::" in said or "c10d::" in said


def test_a_library_of_cuda_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.cpp").write_text("")
    compile_to = ["g++", "-shared", "-o"]
    subprocess.run([*compile_to, tmp_path / "libc10_cuda.so", tmp_path / "none.cpp"], check=True)
    linked = ["-Wl,--no-as-needed", f"-L{tmp_path}", "-lc10_cuda"]
    subprocess.run([*compile_to, tmp_path / "it.so", tmp_path / "none.cpp", *linked], check=True)
    code, said = check(tmp_path / "it.so", TORCH)
    assert code == 1
    assert "needs libc10_cuda.so, which a wheel for CPUs lacks" in said
