"""kill -9 at random moments, the run resumed each time: whoever is left ends soon and says who was killed, the losses
are those of a run that nobody killed, and no checkpoint that was announced is lost. Links of the chain are started by
`dhp train`, by hand (RANK and so on set) and by torchrun, in turn."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from budget import KILLS, NIGHTLY, SEED
from quick import Program, QuickStart, all_gone
from safetensors.torch import load_file
from world import make_world, start_ranks, write_settings

RANKS = 3
STEPS = 100 if NIGHTLY else 40
KEPT = 2  # checkpoints
SOON_S = 60  # by then whoever is left has ended
# The longest wait for a peer: ranks of which one was killed before all had met wait as long as that.
TIMEOUT_S = 30.0
MOMENTS = ("start-up", "first step", "any step", "any step", "any step", "saving", "saving")
# Of ten runs; workers of torchrun import torch themselves, which takes seconds.
HERE, BY_HAND, TORCHRUN = "dhp train", "by hand", "torchrun"
WAYS = [HERE, BY_HAND, HERE, BY_HAND, BY_HAND, HERE, BY_HAND, HERE, BY_HAND, TORCHRUN]


@dataclass
class Link:
    """One run of the chain: who was killed when, and what came of it."""

    way: str
    moment: str
    victim: str = ""  # "rank 1", "launcher", "check" (the process that looks at the data first), or nobody
    after_s: float = 0.0  # from the start to the kill
    seconds: float = 0.0  # from the kill until all had ended
    ended: bool = False
    codes: list[int | None] = field(default_factory=list)  # of the processes that were started and not killed
    logs: list[str] = field(default_factory=list)  # one, or one a rank

    def complaints(self) -> list[list[str]]:
        """By log."""
        return [[line for line in text.splitlines() if line.startswith("dhp: ")] for text in self.logs]

    def saved(self) -> list[int]:
        """Steps that the run announced as saved."""
        return [int(step) for text in self.logs for step in re.findall(r"^saved \S*step-(\d+)$", text, re.M)]

    def row(self) -> str:
        first = next((lines[0] for lines in self.complaints() if lines), "-")
        times = f"{self.after_s:6.2f} s {self.seconds:6.1f} s" if self.victim else " " * 17
        return f"{self.way:<10} {self.moment:<11} {self.victim or 'nobody':<9} {times}  {first}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, quick: QuickStart) -> Path:
    """Model and data, and the run that nobody kills: whole.jsonl, whole/."""
    folder = make_world(tmp_path_factory.mktemp("chain"))
    settings(folder, "whole")
    whole = quick.start(["whole.toml", "--metrics", "whole.jsonl"], folder / "whole.log", cwd=folder)
    assert quick.ended(whole, seconds=600), "the unbroken run does not end"
    assert whole.code == 0, whole.said()
    return folder


def settings(folder: Path, name: str) -> None:
    write_settings(
        folder,
        f"{name}.toml",
        output_dir=name,
        ranks=RANKS,
        steps=STEPS,
        save_steps=1,
        save_total_limit=KEPT,
        global_batch_size=4,
        capacity_tokens=40,
        timeout_s=TIMEOUT_S,
        index=f"{name}.idx",
    )


def test_kills_end_soon_name_the_killed_and_lose_nothing(folder: Path, quick: QuickStart) -> None:
    chance = random.Random(SEED)
    print(f"\n{KILLS} kills, seed {SEED} (DHP_TEST_SEED={SEED} repeats it)")
    print("started    at          killed    after      all ended  first line")
    problems: list[str] = []
    kills = chain = 0
    while kills < KILLS:
        chain += 1
        name, newest, whole = f"chain{chain}", 0, False
        settings(folder, name)
        while not whole:
            wanted = kills < KILLS and newest < STEPS
            link = Link(WAYS[kills % len(WAYS)] if wanted else HERE, chance.choice(MOMENTS) if wanted else "-")
            run_link(link, folder, name, quick, chance)
            kills += bool(link.victim)
            print(link.row(), flush=True)
            problems += [f"{link.row()}\n    {text}" for text in wrong_with(link, folder / name, newest)]
            # A kill may come between the last checkpoint and the line about it.
            on_disk = [int(saved.name.removeprefix("step-")) for saved in (folder / name).glob("step-*")]
            newest = max([newest, *link.saved(), *on_disk])
            whole = not link.victim  # who was killed after the last checkpoint has not removed the old ones yet
            assert not whole or newest == STEPS, f"nobody was killed: {link.logs}"
        problems += [f"{name}: {text}" for text in wrong_with_chain(folder, name)]
    assert not problems, "\n".join(problems)


# ---- one run ---------------------------------------------------------------------------------------------------------


def run_link(link: Link, folder: Path, name: str, quick: QuickStart, chance: random.Random) -> None:
    """Starts the run, kills somebody at the moment, waits for the others."""
    log = f"{name}.{time.monotonic_ns()}.log"
    arguments = [f"{name}.toml", "--resume", "--metrics", f"{name}.jsonl"]
    started = time.monotonic()
    if link.way == BY_HAND:
        programs = start_ranks(quick, folder, RANKS, arguments, log)
    elif link.way == TORCHRUN:
        programs = [quick.start_by_torchrun(RANKS, arguments, folder / log, cwd=folder)]
    else:
        programs = [quick.start(arguments, folder / log, cwd=folder)]
    victims: dict[str, int] = {}
    if link.moment != "-":
        wait_for(link.moment, folder / name, programs, quick, chance)
        victims = victims_of(link, programs)
    everybody = [pid for program in programs for pid in program.children()]
    if victims and not quick.ended(*programs, seconds=0):
        link.victim = chance.choice(sorted(victims))
        signal_to(victims[link.victim])
        link.after_s = time.monotonic() - started
    killed = time.monotonic()
    limit = SOON_S if link.victim else 600
    link.ended = quick.ended(*programs, seconds=limit) and all_gone(everybody, limit)
    link.seconds = time.monotonic() - killed
    if not link.ended:
        for pid in everybody:
            signal_to(pid)
        quick.end_all()
    link.codes = [program.code for program in programs if program.pid != victims.get(link.victim)]
    link.logs = [program.said() for program in programs]


def wait_for(moment: str, out: Path, programs: list[Program], quick: QuickStart, chance: random.Random) -> None:
    """Returns at the moment, or when the run has ended."""
    if moment == "start-up":
        time.sleep(chance.uniform(0, 2))
        return
    wait_s = {"first step": chance.uniform(0, 0.3), "any step": chance.uniform(0, 1), "saving": chance.uniform(0, 0.02)}

    def has_come() -> bool:
        line = r"^step +\d" if moment == "any step" else r"samples of"
        begun = re.search(line, programs[0].said(), re.M) is not None
        return begun and (moment != "saving" or any(file.is_dir() for file in out.glob(".*")))

    while not has_come() and not quick.ended(*programs, seconds=0):
        time.sleep(0.001)
    time.sleep(wait_s[moment])


def victims_of(link: Link, programs: list[Program]) -> dict[str, int]:
    """Process ids by who they are."""
    if link.way == BY_HAND:
        return {f"rank {rank}": program.pid for rank, program in enumerate(programs)}
    children = programs[0].children()
    found = {f"rank {rank}": pid for rank, pid in enumerate(children)} if len(children) == RANKS else {}
    if link.way == HERE:
        found["launcher"] = programs[0].pid
        if len(children) == 1:
            found["check"] = children[0]
    return found


def signal_to(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


# ---- what may not be -------------------------------------------------------------------------------------------------


def wrong_with(link: Link, out: Path, newest: int) -> Iterator[str]:
    if not link.ended:
        yield f"not all had ended after {SOON_S} s"
    for text in link.logs:
        if "Traceback" in text and link.way != TORCHRUN:  # its agent always ends with one
            yield f"a traceback: {text}"
    saved = max([newest, *link.saved()])
    if saved:
        yield from wrong_with_checkpoints(out, saved)
    for first in re.findall(r"\| from step (\d+)", link.logs[0]):
        if int(first) < newest:
            yield f"went on from step {first}, although step {newest} had been saved"
    if not link.victim or saved == STEPS:
        return
    for lines in link.complaints():
        blamed = {int(rank) for line in lines for rank in re.findall(r"^dhp: error: rank (\d+) at ", line)}
        if blamed:
            yield f"ranks {blamed}, which live, are named as the cause: {lines}"
        if lines and link.victim.startswith("rank") and link.victim not in lines[0]:
            yield f"{link.victim} is not named first: {lines}"
    if link.way != TORCHRUN and link.victim != "launcher" and not any(link.complaints()):
        yield "nobody says why the run ended"
    if any(code in (0, None) or (code < 0 and link.way != TORCHRUN) for code in link.codes):
        yield f"exit codes of whoever was left: {link.codes}"


def wrong_with_checkpoints(out: Path, saved: int) -> Iterator[str]:
    """The step announced last is there, whole, unless the limit dropped it: for later ones that were not announced in
    time."""
    there = sorted(int(folder.name[5:]) for folder in out.glob("step-*"))
    if saved not in there and len([step for step in there if step > saved]) < KEPT:
        yield f"step {saved} was announced as saved, and is not there: {there}"
    for step in there:
        yield from wrong_with_checkpoint(out / f"step-{step:06d}")


def wrong_with_checkpoint(folder: Path) -> Iterator[str]:
    files = json.loads((folder / "trainer_state.json").read_text())["files"]
    for name, measured in files.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != measured["sha256"]:
            yield f"{folder.name}: {name} is damaged"


def wrong_with_chain(folder: Path, name: str) -> Iterator[str]:
    whole, chain = (records(folder / f"{run}.jsonl") for run in ("whole", name))
    expected = dict(whole)
    for step, kept in chain:
        if kept != expected[step]:
            yield f"step {step}: {kept}; {expected[step]} where nobody was killed"
    if missing := expected.keys() - {step for step, _ in chain}:
        yield f"no metrics of steps {sorted(missing)}"
    ends = [load_file(folder / run / f"step-{STEPS:06d}" / "model.safetensors") for run in ("whole", name)]
    if not all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0]):
        yield "the last checkpoint has other weights than that of the run that nobody killed"
    if left := [file.name for file in (folder / name).glob(".*") if file.is_dir()]:
        yield f"left behind: {left}"


def records(file: Path) -> list[tuple[int, tuple[float, ...]]]:
    """Of each step, as often as it was trained, what must be the same to the last bit."""
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [(row["step"], (row["loss"], row["grad_norm"], row["label_tokens"], row["tokens"])) for row in rows]
