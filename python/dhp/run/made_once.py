"""A file that all ranks need and some may lack, as the index of the data: of the ranks that share a disk one makes it,
while the others look for it. That may take hours, so no collective is entered meanwhile, and what limits the wait is
progress, not time."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from dhp._core import InputError
from dhp.base.output import new_beside
from dhp.run.patience import ANSWER_S, within
from dhp.run.runtime import RankFailed, Run, without_advice

LOOK_S = 0.2  # how often a rank that waits looks for the file
SIGN_S = 1.0  # how often a rank says how far it is
SILENT_S = 12.0  # one that has stopped to say it, and whose process gives no other sign for so long, is dead or frozen
SHOW_S = 90.0  # a network file system may hide a new file from other hosts so long
Progress = Callable[[int], None]
T = TypeVar("T")

_stages = itertools.count()  # ranks come to them in the same order


def made_once(run: Run, file: str | os.PathLike[str], work: Callable[[Progress], T]) -> T:
    """What `work(progress)` returns, when it has returned on all ranks. It makes `file` where it is missing, reads it
    where it is not, and calls `progress(lines so far)` again and again: for a rank that has not done so for `timeout_s`
    nobody waits any longer.

    Raises the InputError of any rank on all of them, and RankFailed where a rank is lost or hangs."""
    if run.world_size == 1:
        return work(lambda lines: None)
    stage = _Stage(run, Path(os.path.realpath(file)))
    with stage.signs():
        try:
            if not stage.is_there() and not stage.is_maker():
                stage.wait_for_file()
            value = work(stage.progress)
        except InputError as error:
            stage.publish(error)
            raise
        stage.count("done")
        stage.wait(lambda: stage.count("done", 0) == run.world_size)
    return value


class _Stage:
    """What the ranks tell each other meanwhile. Keys of the store:

    sign/RANK   a number that grows, how often the rank has made progress, lines so far, and "waits" or "works"
    late/RANK   what to say where it makes no progress
    disk/HASH   the rank that came first of those with the same disk
    probe       a file that the first of all has laid on its disk: whoever sees it shares the disk over a network
    came, done  how many ranks
    problem     the first InputError
    """

    def __init__(self, run: Run, file: Path) -> None:
        self.run, self.file = run, file
        self.store = dist.PrefixStore(f"dhp/made{next(_stages)}", run.store)
        self._advances, self._lines, self._does = 0, 0, "works"
        self._probe: Path | None = None
        self._ended = threading.Event()
        self._looked = self._answered = time.monotonic()  # this rank has looked, the store has answered
        self._is_made = True  # as far as is known
        self._seen: dict[object, tuple[object, float]] = {}  # what was seen of something last, and since when

    # ---- what this rank says

    @contextlib.contextmanager
    def signs(self) -> Iterator[None]:
        """Around all: says how far this rank is, from a thread of its own."""
        late = f"{self.run.name} keeps the others waiting, at {self.file}"  # whose path may differ
        self._call(lambda: self.store.set(f"late/{self.run.rank}", late))
        self._call(lambda: self._say(0))
        self.count("came")
        thread = threading.Thread(target=self._say_on, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join(ANSWER_S)
            if self._probe:
                self._probe.unlink(missing_ok=True)

    def _say(self, number: int) -> None:
        self.store.set(f"sign/{self.run.rank}", f"{number} {self._advances} {self._lines} {self._does}")
        self.store.add("came", 0)  # which answers, as setting does not
        self._answered = time.monotonic()

    def _say_on(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone, which the others find out
            for number in itertools.count(1):
                if self._ended.wait(SIGN_S):
                    return
                self._say(number)

    def progress(self, lines: int) -> None:
        """Ends the work soon after another rank has failed."""
        self._advances, self._lines = self._advances + 1, lines
        if time.monotonic() - self._looked > SIGN_S:
            self._looked = time.monotonic()
            self._raise_known()
            self._check_store()

    def count(self, what: str, more: int = 1) -> int:
        """How many ranks have come, or are done; -1 where the store does not tell."""
        return self._call(lambda: self.store.add(what, more), -1)

    def publish(self, error: InputError) -> None:
        self._call(lambda: self.store.compare_set("problem", "", str(error)))
        torch.ops.dhp.report_failure(self.run.traffic, f"{self.run.name} at {self.run.place}: {error}")

    # ---- who makes the file

    def is_there(self) -> bool:
        with contextlib.suppress(OSError):
            os.listdir(self.file.parent)  # has a network file system look again
        return os.path.exists(self.file)

    def is_maker(self) -> bool:
        """Whether this rank is the one of its disk to make the file."""
        rank = str(self.run.rank)
        folder, disk = _disk_of(self.file)
        if self._call(lambda: self.store.compare_set(f"disk/{disk}", "", rank).decode(), rank) != rank:
            return False
        own = "none"
        with contextlib.suppress(OSError):  # making the file will fail too, and say why
            handle, self._probe = new_beside(folder / self.file.name)
            os.close(handle)
            own = self._probe.name
        first = self._call(lambda: self.store.compare_set("probe", "", own).decode(), own)
        return first == own or not (folder / first).exists()

    # ---- waiting

    def wait_for_file(self) -> None:
        """Until the file is there. Where nobody makes it any more and it stays hidden, this rank makes its own."""
        idle = time.monotonic()

        def is_over() -> bool:
            nonlocal idle
            if self._is_made:
                idle = time.monotonic()
            return self.is_there() or time.monotonic() - idle > SHOW_S

        self.wait(is_over)

    def wait(self, is_over: Callable[[], bool]) -> None:
        """Raises InputError and RankFailed, see made_once."""
        size = self.run.world_size
        look_s = max(SIGN_S, size / 500)  # a look asks for a word of each rank
        pause = LOOK_S / 20
        self._does = "waits"
        with self.run.at(f"{self.run.place}, waiting"):
            while not is_over():
                self._raise_known()
                self._check_store()
                now = time.monotonic()
                if now - self._looked > look_s:
                    self._looked = now
                    self._look(now)
                time.sleep(pause)
                pause = min(max(LOOK_S, size / 4000), 2 * pause)
        self._does = "works"

    def _look(self, now: float) -> None:
        """Raises RankFailed where a rank is silent, or has made no progress."""
        ranks, patience_s = range(self.run.world_size), self.run.timeout_s
        came = self.count("came", 0)
        if came < len(ranks):
            if came >= 0 and self._unchanged("came", came, now) > patience_s:
                self._ask(f"{len(ranks) - came} of {len(ranks)} ranks have not come to it for {patience_s:g} s")
            return
        signs: list[bytes] = self._call(lambda: self.store.multi_get([f"sign/{rank}" for rank in ranks]), [])
        words = [sign.decode().split(" ") for sign in signs]
        for rank, (number, advances, lines, does) in enumerate(words):
            silent_s = self._unchanged(("sign", rank), number, now)
            if silent_s > 3 * SIGN_S and not self._lives(rank, now):
                self._ask(f"rank {rank} gave no sign of life for {silent_s:.0f} s")
            if self._unchanged(("advances", rank), now if does == "waits" else advances, now) > patience_s:
                self._give_up(rank, int(lines))
        self._is_made = not words or any(word[-1] == "works" for word in words)

    def _check_store(self) -> None:
        """Raises RankFailed where it is silent."""
        if time.monotonic() - self._answered > SILENT_S and self.count("came", 0) < 0:
            self._ask(f"the store gave no answer for {SILENT_S:g} s")

    def _unchanged(self, what: object, value: object, now: float) -> float:
        """For how many seconds it has been seen with the same value."""
        if what not in self._seen or self._seen[what][0] != value:
            self._seen[what] = value, now
        return now - self._seen[what][1]

    def _lives(self, rank: int, now: float) -> bool:
        """Whether its process does, although its thread says nothing: a library may hold up all that is Python."""
        return self._unchanged(("pulse", rank), torch.ops.dhp.pulse(self.run.traffic, rank), now) < SILENT_S

    def _give_up(self, rank: int, lines: int) -> None:
        late = self._call(lambda: self.store.get(f"late/{rank}").decode(), f"rank {rank} keeps the others waiting")
        cause = (
            f"{late}: no progress for {self.run.timeout_s:g} s (timeout_s), {lines:,} lines so far "
            f"(seen by {self.run.name})"
        )
        torch.ops.dhp.report_failure(self.run.traffic, cause)
        self._raise_known()
        raise RankFailed(cause)

    def _ask(self, problem: str) -> None:
        words = f"{self.run.name} at {self.run.place} for {self.file.name}: {problem}"
        cause = torch.ops.dhp.explain_failure(self.run.traffic, words, True)
        raise RankFailed(f"{without_advice(cause)}\n  {words}")

    def _raise_known(self) -> None:
        """Raises what another rank has found: its InputError, which comes before the failure that it leads to."""
        cause = without_advice(torch.ops.dhp.known_failure(self.run.traffic))
        if not cause:
            return
        if self._call(lambda: self.store.check(["problem"]), False):
            raise InputError(self.store.get("problem").decode())
        raise RankFailed(f"{cause}\n  {self.run.name} at {self.run.place}")

    def _call(self, call: Callable[[], T], default: T | None = None) -> T:
        """What the store answers; `default` where it does not: its host is found out otherwise."""
        with contextlib.suppress(RuntimeError, TimeoutError):
            return within(ANSWER_S, call)
        return default  # type: ignore[return-value]


def _disk_of(file: Path) -> tuple[Path, str]:
    """The folder of the file, or the nearest above that is there, and a name for it that two ranks share only where
    they share the folder."""
    folder = next(parent for parent in file.parents if os.path.exists(parent))
    found = folder.stat()
    words = (_machine(), found.st_dev, found.st_ino, file.relative_to(folder))
    return folder, hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _machine() -> str:
    """Of this start of this machine: numbers of disks mean nothing on another."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.uname().nodename


__all__ = ["Progress", "made_once"]
