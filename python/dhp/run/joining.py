"""Joins a run, and names the rank that is lost meanwhile: the run-time's own watch comes with the process groups."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch.distributed as dist

from dhp.run import rendezvous
from dhp.run.patience import ANSWER_S, AwakeClock, Call, within
from dhp.run.rendezvous import FAILURE_KEY, NotJoined, Place, Unreachable

LOST_KEY = "dhp/lost"  # where a launcher writes which rank died, and how; run_store.cpp reads it
SIGN_S = 0.5  # how often a rank gives a sign of life
SILENT_S = 15.0  # one that gives none for so long is dead or frozen
SILENT_NOW_S = 3.0  # and where a connection has broken
ASK_S = 5.0  # how long it is looked then
FAREWELL_S = 3.0  # how long the store's host stays for the others to learn the cause
JOINED = "joined"
T = TypeVar("T")

_joined = itertools.count()


class Joining:
    """A rank from when it reaches the store until its watch runs: gives signs of life, and sees those of the others."""

    def __init__(self, base: dist.Store, prefix: str, place: Place, name: str, said: dict[str, str]) -> None:
        self.store = dist.PrefixStore(prefix, base)
        for key, text in said.items():
            self.store.set(f"dhp/{key}/{place.rank}", text)
        self.host = place.host or "rank 0"  # of the store; with its name as soon as that is known
        self._place, self._name = place, name
        # Connections of their own: a call that waits for its answer holds up the others of its connection.
        self._launcher = _connect_again(base)
        self._signs = dist.PrefixStore(prefix, _connect_again(base))
        self._look_s = max(SIGN_S, place.world_size / 500)  # a look asks for a word of each rank
        self._clock = AwakeClock(2 * self._look_s)
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._ended = threading.Event()
        self._has_joined = False
        self._give(self._signs, b"0")
        self._thread = threading.Thread(target=self._give_signs, args=(_connect_again(self.store),), daemon=True)
        self._thread.start()

    def _give(self, store: dist.Store, sign: bytes) -> None:
        store.set(f"dhp/alive/{self._place.rank}", sign.decode())

    def _give_signs(self, store: dist.Store) -> None:
        try:
            for number in itertools.count(1):
                if self._ended.wait(SIGN_S):
                    break
                self._give(store, str(number).encode())
            if self._has_joined:
                self._give(store, JOINED.encode())
        except RuntimeError:  # the store is gone, which the other threads find out
            pass

    def meet(self, timeout_s: float) -> None:
        """Returns when every rank has come. Raises Unreachable."""

        def come() -> None:
            rendezvous.meet(self.store, self._place, self._name, timeout_s)
            self._learn_host()

        try:
            within(timeout_s + ANSWER_S, come)
        except Unreachable:
            self._bid_farewell()
            raise
        except (TimeoutError, RuntimeError) as error:
            self._ended.set()
            raise NotJoined(f"{self._lost_host()} ({self._name} waited for the others: {_line(error)})") from None

    def _learn_host(self) -> None:
        if not self._place.host:
            self.host = self.store.get("dhp/who/0").decode().split(" ", 2)[2]

    def _lost_host(self) -> str:
        return f"{self.host}, which hosts the store of the run at {self._place}, was lost or does not answer"

    def watch(self, seconds: float, call: Callable[[], T]) -> T:
        """What `call` returns. Raises NotJoined where a rank gives no sign of life, or `call` breaks or is too late."""
        work = Call(call)
        deadline = time.monotonic() + seconds
        while True:
            work.thread.join(self._look_s)
            if work.results:
                return work.results[0]
            cause = ""
            if work.errors or time.monotonic() > deadline:
                cause = self._ask(_line(work.errors[0]) if work.errors else f"not connected within {seconds:g} s")
            if cause := cause or self._look(SILENT_S):
                self._bid_farewell()
                raise NotJoined(cause)

    def said_by(self, key: str, ranks: Sequence[int]) -> list[str]:
        """What these ranks have said of themselves."""
        return [text.decode() for text in self.store.multi_get([f"dhp/{key}/{rank}" for rank in ranks])]

    def give_up(self, cause: str) -> str:
        """Ends the joining on all ranks; returns the first cause of all."""
        first = self._try(ANSWER_S, lambda: self._publish(cause))
        self._bid_farewell()
        return first

    def meet_again(self, key: str) -> None:
        """Returns when every rank has called this."""
        if self.store.add(f"dhp/{key}", 1) == self._place.world_size:
            self.store.set(f"dhp/all_{key}", "1")
        while not self.store.check([f"dhp/all_{key}"]) and not self._ended.wait(SIGN_S / 10):
            pass

    def end(self) -> None:
        """From here on the run-time's watch gives the signs of life."""
        self._has_joined = True
        self._ended.set()
        self._thread.join(ANSWER_S)

    def _ask(self, problem: str) -> str:
        """Who is silent now that a connection has broken; where nobody is, the problem."""
        clock = AwakeClock(2 * self._look_s)
        while clock() < ASK_S:
            if cause := self._look(SILENT_NOW_S, problem):
                return cause
            time.sleep(SIGN_S / 2)
        own = f"{self._name}: the ranks cannot be connected, although all of them live: {problem}"
        return self._try(ANSWER_S, lambda: self._publish(own)) or own

    def _look(self, patience_s: float, problem: str = "") -> str:
        return self._try(max(patience_s, ANSWER_S), lambda: self._find(patience_s, problem))

    def _try(self, seconds: float, call: Callable[[], str]) -> str:
        try:
            return within(seconds, call)
        except (TimeoutError, RuntimeError) as error:
            return f"{self._lost_host()} (seen by {self._name}: {_line(error)})"

    def _find(self, patience_s: float, problem: str) -> str:
        if self._launcher.check([LOST_KEY]):
            return self._launcher.get(LOST_KEY).decode()
        if self._signs.check([FAILURE_KEY]):
            return self._signs.get(FAILURE_KEY).decode()
        signs = self._signs.multi_get([f"dhp/alive/{rank}" for rank in range(self._place.world_size)])
        now = self._clock()
        for rank, sign in enumerate(signs):
            if rank not in self._seen or self._seen[rank][0] != sign:
                self._seen[rank] = sign, now
        silent = [
            rank
            for rank, (sign, since) in self._seen.items()
            if sign != JOINED.encode() and now - since > patience_s and rank != self._place.rank
        ]
        if not silent:
            return ""
        names = [self._signs.get(f"dhp/who/{rank}").decode().split(" ", 2)[2] for rank in silent[:4]]
        more = f" and {len(silent) - 4} more" if len(silent) > 4 else ""
        lost = "were lost" if len(silent) > 1 else "was lost"
        seen = f"{self._name}{': ' if problem else ''}{problem}"
        return self._publish(
            f"{', '.join(names)}{more} {lost} while the ranks were being connected: killed, frozen, or cut off "
            f"(seen by {seen})"
        )

    def _publish(self, cause: str) -> str:
        return rendezvous.publish(self._signs, cause)

    def _bid_farewell(self) -> None:
        if self._place.host_rank == self._place.rank:
            time.sleep(FAREWELL_S)
        self._ended.set()  # the program may go on without a run


def join(place: Place, name: str, timeout_s: float, said: dict[str, str]) -> Joining:
    """Joins the run when all ranks have come to its store. `name` says who this one is; what is `said` of it the others
    find as `joining.said_by`. Raises Unreachable."""
    try:
        joining = within(
            timeout_s + ANSWER_S, lambda: Joining(rendezvous.open_store(place, timeout_s), _prefix(), place, name, said)
        )
    except Unreachable:
        raise
    except (TimeoutError, RuntimeError) as error:
        raise Unreachable(
            f"the store of the run at {place} (MASTER_ADDR, MASTER_PORT), hosted by {place.host or 'rank 0'}, "
            f"cannot be reached within {timeout_s:g} s: {_line(error)}"
        ) from None
    joining.meet(timeout_s)
    return joining


def join_by(store: dist.Store, place: Place, name: str, timeout_s: float, said: dict[str, str]) -> Joining:
    """The same by the store of a process group that is there already."""
    try:
        joining = within(timeout_s + ANSWER_S, lambda: Joining(store, _prefix(), place, name, said))
    except (TimeoutError, RuntimeError) as error:
        raise Unreachable(f"the store of the default process group does not answer: {_line(error)}") from None
    joining.meet(timeout_s)
    return joining


def _prefix() -> str:
    # A run after this one, or workers that torchrun starts anew, must not find what this one has written.
    return f"run{next(_joined)}.{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _connect_again(store: dist.Store) -> dist.Store:
    return store.clone()  # type: ignore[attr-defined]  # it is there, only not in the stubs


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". This ")[0]
