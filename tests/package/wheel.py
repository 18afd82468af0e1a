"""What a wheel of dhp does in a fresh environment without torch and without a compiler: run by its Python, with its
folder, by scripts/wheel.sh. README's console blocks say what commands print; the Python API plans the same."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "bench" / "cases"
sys.path.insert(0, str(ROOT / "tests/support"))

import console  # noqa: E402


def run(*words: str, cwd: Path = CASES) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C.UTF-8"})


def check_environment() -> None:
    for program in ("cc", "c++", "gcc", "g++", "clang++", "cmake", "ninja"):
        assert shutil.which(program) is None, program
    installed = {distribution.name.lower() for distribution in importlib.metadata.distributions()}
    assert installed <= {"dhp", "numpy", "pip", "setuptools"}, installed
    assert importlib.util.find_spec("torch") is None


def check_commands(folder: Path) -> None:
    """Those of README's console blocks."""
    shutil.copytree(CASES, folder / "cases")
    seen = set()
    for shown in console.shown_in("README.md"):
        words = shown.command.split()
        if words[0] != "dhp":
            continue
        done = run(*words, cwd=folder / "cases")
        assert done.returncode == 0, done.stderr
        console.check(shown, done.stdout.splitlines())
        seen.add(words[1])
    assert seen == {"dataset", "compare"}, seen
    named = ["--batch", "batch_openvid_512.json", "--cluster", "h100-4x8", "--cost", "qwen3-vl-8b@h100"]
    for command in (
        ["plan", "-o", "plan.json"],
        ["simulate", "--plan", "plan.json"],
        ["explain", "--plan", "plan.json"],
    ):
        done = run("dhp", command[0], *named, *command[1:], cwd=folder / "cases")
        assert done.returncode == 0, done.stderr


def check_api() -> None:
    import dhp

    batch = dhp.read_batch(str(CASES / "batch_openvid_512.json"))
    cluster = dhp.read_cluster(str(CASES / "cluster_910b_8x8.json"))
    cost = dhp.read_cost_model(str(CASES / "cost_qwen3-vl-8b_8192.json"))
    plan = dhp.try_plan(batch, cluster, cost)
    assert isinstance(plan, dhp.Plan)
    assert dhp.check_plan(plan, batch, cluster, cost) == []
    assert plan.hash == "fd63ece15d373202c16629c49281adcf", "README's"
    assert "torch" not in sys.modules
    try:
        dhp.init()
        raise AssertionError("there is a torch")
    except ImportError as error:
        assert str(error) == 'dhp.init needs torch: pip install torch "dhp[train]"', error


def check_what_is_lacking() -> None:
    modules = "transformers, tokenizers, safetensors, PIL, av, scipy"
    for command in ("train", "index", "calibrate"):
        done = run("dhp", command, "--help")
        expected = f'dhp: error: dhp {command} needs torch, {modules}: pip install torch "dhp[train]"\n'
        assert (done.returncode, done.stdout, done.stderr) == (2, "", expected), done
    done = run("dhp", "report", "result.json")
    expected = 'dhp: error: dhp report needs plotly: pip install "dhp[report]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected), done
    done = run("dhp", "build-ops")
    assert (done.returncode, done.stderr) == (2, "dhp: error: dhp build-ops needs torch: pip install torch\n"), done


def main() -> None:
    folder = Path(sys.argv[1])
    check_environment()
    check_commands(folder)
    check_api()
    check_what_is_lacking()
    version = run("dhp", "--version").stdout.split()[1]
    assert version == importlib.metadata.version("dhp"), version
    print(f"wheel: dhp {version} plans, explains, simulates and compares without torch and compiler")


if __name__ == "__main__":
    main()
