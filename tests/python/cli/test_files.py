"""Files that the command line reads and writes: what is refused, and interrupts that whoever starts it ignores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from command_line import DHP, ROOT, dhp, inputs


def _shell(script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script, "sh", *map(str, words)], capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize("ignored", [True, False])
def test_interrupts_stay_ignored(files: dict[str, Path], tmp_path: Path, ignored: bool) -> None:
    """The batch is a pipe: the program waits for it while it is interrupted."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = [DHP, "plan", *map(str, inputs(dict(files, batch=pipe)))]
    trap = "trap '' INT; " if ignored else ""
    running = subprocess.Popen(
        ["sh", "-c", f'{trap}exec "$@"', "sh", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with pipe.open("w") as batch:  # opens once the program reads
        running.send_signal(signal.SIGINT)
        if ignored:
            batch.write(files["batch"].read_text())
        else:
            running.wait(timeout=240)
    _, complaints = running.communicate(timeout=240)
    assert (running.returncode, complaints) == ((0, "") if ignored else (130, "dhp: interrupted\n"))


def test_programs_behind_a_command_ignore_interrupts_too(tmp_path: Path) -> None:
    program = tmp_path / "dhp-greet"
    program.write_text("#!/bin/sh\nkill -INT $$\necho alive\n")
    program.chmod(0o755)
    path = f"PATH={tmp_path}:$PATH"
    assert _shell(f"trap '' INT; {path} exec \"$@\"", DHP, "greet").stdout == "alive\n"
    assert _shell(f'{path} exec "$@"', DHP, "greet").returncode == -signal.SIGINT


@pytest.fixture
def everybodys(files: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of somebody else's, as /tmp is root's, in which others have laid links to a file of ours, and to others
    of their kind."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of other users")
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "file").write_text("ours")
    os.mkfifo(ours / "pipe")
    folder = tmp_path / "everybodys"
    folder.mkdir()
    folder.chmod(0o1777)
    os.chown(folder, 1001, 1001)
    links = {
        "theirs": (1002, ours / "file"),
        "theirs-pipe": (1002, ours / "pipe"),
        "theirs-device": (1002, Path("/dev/null")),
        "way": (1002, ours),
        "folders": (1001, ours / "file"),
        "own": (0, ours / "file"),
        "own-to-theirs": (0, folder / "theirs"),
    }
    for name, (owner, target) in links.items():
        (folder / name).symlink_to(target)
        os.chown(folder / name, owner, owner, follow_symlinks=False)
    return folder


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("theirs", "theirs"),
        ("theirs-pipe", "theirs-pipe"),
        ("theirs-device", "theirs-device"),
        ("way/new", "way"),
        ("way/../new", "way"),
        ("own-to-theirs", "theirs"),
    ],
)
def test_links_of_others_are_not_followed(files: dict[str, Path], everybodys: Path, name: str, link: str) -> None:
    file = f"{everybodys}/{name}"
    result = dhp("plan", *inputs(files), "-o", file)
    reason = f"cannot be written: {everybodys / link} is a link that another user has made; give another path"
    assert (result.code, result.err) == (2, f"dhp: error: {file}: {reason}\n")
    ours = everybodys.parent / "ours"
    assert (ours / "file").read_text() == "ours"
    assert sorted(path.name for path in ours.iterdir()) == ["file", "pipe"]


@pytest.mark.parametrize("name", ["folders", "own", "elsewhere"])
def test_links_that_mislead_nobody_are_followed(files: dict[str, Path], everybodys: Path, name: str) -> None:
    if name == "elsewhere":  # somebody's link in a folder of their own
        everybodys.chmod(0o755)
        os.chown(everybodys, 1001, 1001)
        (everybodys / name).symlink_to(everybodys.parent / "ours" / "file")
        os.chown(everybodys / name, 1002, 1002, follow_symlinks=False)
    assert dhp("plan", *inputs(files), "-o", everybodys / name).code == 0
    assert (everybodys / name).is_symlink()
    assert json.loads((everybodys.parent / "ours" / "file").read_text())["format"] == "dhp.plan/1"


@pytest.mark.parametrize("input_", ["batch", "cluster", "cost"])
@pytest.mark.parametrize("how", ["itself", "link", "long way"])
def test_inputs_are_not_overwritten(files: dict[str, Path], tmp_path: Path, input_: str, how: str) -> None:
    file, text = files[input_], files[input_].read_text()
    out = str(file)
    if how == "link":
        out = str(tmp_path / "link")
        Path(out).symlink_to(file)
    elif how == "long way":
        out = f"{file.parent}/../{file.parent.name}/{file.name}"
    result = dhp("plan", *inputs(files), "-o", out)
    name = "" if how == "itself" else f" ({file})"
    reason = f"is an input of this command{name} and would be overwritten; give another path"
    assert (result.code, result.out, result.err) == (2, "", f"dhp: error: {out}: {reason}\n")
    assert file.read_text() == text


def test_no_command_overwrites_its_inputs(files: dict[str, Path], tmp_path: Path) -> None:
    plan = files["plan"]
    assert dhp("plan", *inputs(files), "-o", plan).code == 0
    rows, rank = tmp_path / "rows.csv", tmp_path / "rank-00000.json"
    rows.write_text("tokens,patches\n100,20\n")
    rank.write_text(plan.read_text())
    config = tmp_path / "config.json"
    config.write_text((ROOT / "data" / "models" / "qwen3-vl-8b.json").read_text())
    simulate = ["simulate", *inputs(files)]
    commands: list[list[str | Path]] = [
        ["dataset", "--data", rows, "-o", rows],
        ["cost", "--model", config, "-o", config],
        ["cost", "--model", tmp_path, "-o", config],
        [*simulate, "--plan", plan, "--result", plan],
        [*simulate, "--plan", plan, "--trace", files["cost"]],
        [*simulate, "--plan", rank, "--trace", tmp_path],
    ]
    before = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    for words in commands:
        result = dhp(*words)
        assert (result.code, result.out) == (2, ""), words
        assert "is an input of this command" in result.err, words
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("option", ["batch", "cluster", "cost", "plan"])
def test_devices_are_not_read(files: dict[str, Path], option: str) -> None:
    """Some have no end."""
    files[option] = Path("/dev/zero")
    result = dhp("check", *inputs(files), "--plan", files["plan"])
    assert result.code == 2
    assert result.err == "dhp: error: /dev/zero: is a device, expected a file or a pipe\n"


def test_pipes_are_read(files: dict[str, Path]) -> None:
    words = [DHP, "plan", *map(str, inputs(dict(files, batch=Path("/dev/stdin"))))]
    done = _shell('batch="$1"; shift; cat "$batch" | "$@"', files["batch"], *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_names_do_not_forge_lines(files: dict[str, Path], tmp_path: Path) -> None:
    forged = "x\ndhp: error: all is lost"
    for words in (
        ["plan", *inputs(dict(files, batch=tmp_path / forged))],
        ["check", *inputs(files), "--plan", tmp_path / forged],
        ["plan", *inputs(files), "-o", tmp_path / "none" / forged],
        ["dataset", "--data", forged],
        ["plan", *inputs(files), "--" + forged],
        [forged],
    ):
        result = dhp(*words)
        assert result.code == 2
        assert result.err.count("\n") == 1, result.err
        assert "x\\ndhp: error: all is lost" in result.err
    plan = json.loads(files["plan"].read_text())
    plan["hash"] = forged
    files["plan"].write_text(json.dumps(plan))
    found = dhp("check", *inputs(files), "--plan", files["plan"]).out
    assert "x\\ndhp: error: all is lost" in found
    assert all(line.startswith("violation: ") for line in found.splitlines())


def test_any_file_may_be_a_data_set(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.write_text("tokens,patches\n100,20\n")
    assert dhp("dataset", "--data", rows).out.startswith(f"{rows}: 1 sample, 100 tokens, 20 patches\n")
    assert dhp("dataset", "--data", "none").err.endswith(", or a file, CSV or what dhp index has written\n")
