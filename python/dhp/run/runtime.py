"""The run: who this rank is, the two process groups, and what happens when a rank fails."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dhp._core import Batch, Cluster, CostModel, Infeasible, InputError, Plan, Task, check_plan, plan_batch
from dhp.base.output import complain
from dhp.run import joining, ops, rendezvous

EXCHANGES = ("ring", "direct", "hierarchical")  # how the run-time moves shards
SLICE_S = 0.2  # how soon a wait ends after the failure of another rank
CARRIER_SHARE, ROOM_S = 1.1, 5.0  # what Gloo's own time-out is more than the run's
END_S = 3.0  # that a failed process may take to end by itself


class InfeasibleBatch(Exception):
    """The batch is well formed, but no plan of this kind holds it. The message names the sequence and its needs."""


class RunStopped(Exception):
    """The run cannot go on, though no rank has failed: all have come to the same conclusion, which the message says."""


class RankFailed(RuntimeError):
    """This rank, or one that it depends on, failed. The message begins with the root cause."""


@dataclass
class Run:
    """One rank of a run. Made by `dhp.init`, closed by `close()` (or `with dhp.init() as run:`).

    rank, world_size  this rank and how many there are
    traffic           name of the process group that carries shards and rows between the ranks of a task
    timeout_s         how long a rank waits for a peer; must exceed the skew that a free schedule makes legitimate
    """

    rank: int
    world_size: int
    traffic: str
    timeout_s: float
    store: dist.Store
    place: str = "start"
    name: str = ""  # "rank 5 (host b, pid 123)"
    _groups: list[dist.ProcessGroup] = field(default_factory=list, repr=False)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        elif isinstance(error, Exception):
            self.failure(error)  # tells the peers
        else:  # Ctrl-C, sys.exit
            torch.ops.dhp.report_failure(
                self.traffic, f"{self.name} left the run at {self.place}: {kind and kind.__name__}"
            )

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Names what the rank is doing ("step 3, task 7"), so that errors say where they happened, and tells the peers
        that wait for this rank when it fails, so that none of them hangs."""
        before = self.place
        self._enter(place)
        try:
            yield
        except (RankFailed, RunStopped):
            raise
        except (InputError, InfeasibleBatch) as error:  # mostly on all ranks at once
            torch.ops.dhp.report_failure(self.traffic, f"{self.name} at {place}: {error}")
            raise
        except Exception as error:
            raise self.failure(error) from error
        self._enter(before)

    def _enter(self, place: str) -> None:
        self.place = place
        torch.ops.dhp.set_label(self.traffic, place)  # the run-time's own messages name it too

    def failure(self, error: Exception) -> RankFailed:
        """The error to raise for `error`: root cause first, then what this rank was doing. Records it for the peers."""
        if isinstance(error, RankFailed):
            return error
        text = without_advice(str(error).strip() or type(error).__name__)
        cause = without_advice(torch.ops.dhp.failure(self.traffic))
        if not cause and isinstance(error, RuntimeError) and is_broken_wait(str(error)):
            cause = self._ask(text.splitlines()[0], expired="timed out" in text.lower())
        if not cause:
            own = f"{self.name} at {self.place}: {text}"
            torch.ops.dhp.report_failure(self.traffic, own)
            return RankFailed(own)
        first, *details = [line.strip() for line in text.splitlines()]
        seen = " ".join(details if details and first in cause else [first, *details])
        return RankFailed(f"{cause}\n  {self.name} at {self.place}: {seen}")

    def _ask(self, problem: str, *, expired: bool) -> str:
        """The cause, when a wait of this rank broke or lasted too long: all ranks are asked what they are doing."""
        words = f"{self.name} at {self.place}: {problem}"
        return without_advice(torch.ops.dhp.explain_failure(self.traffic, words, expired))

    def say_once(self, message: str) -> None:
        """Prints to standard error what several ranks may have to say, the first time only."""
        key = "dhp/said/" + hashlib.sha256(message.encode()).hexdigest()
        with contextlib.suppress(RuntimeError, TimeoutError):  # the store is gone, or its host hangs
            answers = torch.ops.dhp.pulse(self.traffic, self.rank) >= 0
            if answers and rendezvous.within(rendezvous.ANSWER_S, lambda: self.store.add(key, 1)) > 1:
                return
        complain(message)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, in place."""
        self.wait_for("sum", lambda: [dist.all_reduce(values, op=dist.ReduceOp.SUM, async_op=True)])
        return values

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum over all ranks, in place."""
        self.wait_for("max", lambda: [dist.all_reduce(values, op=dist.ReduceOp.MAX, async_op=True)])
        return values

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank, on rank 0; nothing on the others. For small ones: they are pickled."""
        data = pickle.dumps(value)
        room = int(self.max(torch.tensor([len(data)]))[0])
        mine = torch.frombuffer(bytearray(data.ljust(room)), dtype=torch.uint8)  # pickle ignores what follows
        theirs = [torch.empty_like(mine) for _ in range(self.world_size)] if self.rank == 0 else None
        self.wait_for("gather", lambda: [dist.gather(mine, theirs, async_op=True)])
        return [pickle.loads(buffer.numpy().tobytes()) for buffer in theirs or []]

    def all(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank, on all ranks. For small ones: they are pickled."""
        data = pickle.dumps(value)
        room = int(self.max(torch.tensor([len(data)]))[0])
        mine = torch.frombuffer(bytearray(data.ljust(room)), dtype=torch.uint8)
        theirs = [torch.empty_like(mine) for _ in range(self.world_size)]
        self.wait_for("all_gather", lambda: [dist.all_gather(theirs, mine, async_op=True)])
        return [pickle.loads(buffer.numpy().tobytes()) for buffer in theirs]

    def from_rank_0(self, value: Any) -> Any:
        """Rank 0's value, on all ranks. For small ones: they are pickled."""
        data = pickle.dumps(value) if self.rank == 0 else b""
        room = int(self.max(torch.tensor([len(data)]))[0])
        buffer = torch.frombuffer(bytearray(data.ljust(room)), dtype=torch.uint8)
        self.wait_for("broadcast", lambda: [dist.broadcast(buffer, src=0, async_op=True)])
        return pickle.loads(buffer.numpy().tobytes())

    def barrier(self) -> None:
        self.wait_for("barrier", lambda: [dist.all_reduce(torch.zeros(1, dtype=torch.uint8), async_op=True)])

    def wait_for(self, name: str, start: Callable[[], Iterable[dist.Work | None]]) -> None:
        """Starts collectives, which every rank starts in the same order, and waits for them as for every peer: at most
        `timeout_s`, and not beyond the failure of another rank. Raises RankFailed with the cause."""
        with self.collective(name):
            for work in start():
                if work is not None:
                    self._wait(work, name)

    def _wait(self, work: dist.Work, name: str) -> None:
        deadline = time.monotonic() + self.timeout_s
        while True:
            left = deadline - time.monotonic()
            try:
                work.wait(timedelta(seconds=min(SLICE_S, max(left, 1e-3))))
                return
            except RuntimeError:
                if work.is_completed():  # since the slice ended, or with an error, which this raises
                    work.wait()
                    return
            # A slice is over. (Of transfers between two ranks this would close the connections, not of collectives.)
            if cause := torch.ops.dhp.known_failure(self.traffic):
                raise RankFailed(f"{without_advice(cause)}\n  {self.name} at {self.place}: in the collective {name!r}")
            if left <= 0:
                cause = self._ask(f"nothing came for {self.timeout_s:g} s in the collective {name!r}", expired=True)
                raise RankFailed(f"{cause}\n  {self.name} at {self.place}: in the collective {name!r}")

    @contextlib.contextmanager
    def collective(self, name: str) -> Iterator[None]:
        """Around collectives that every rank runs: tells the others that this rank has come to them, so that those that
        have not are named when the wait breaks."""
        torch.ops.dhp.enter_collective(self.traffic, name)
        try:
            yield
        except RankFailed:
            raise
        except Exception as error:
            raise self.failure(error) from error
        torch.ops.dhp.leave_collective(self.traffic)

    def close(self) -> None:
        """Ends the run: waits for all ranks, then releases the groups."""
        global _current
        self.barrier()
        _current = None
        torch.ops.dhp.release_group(self.traffic)
        self._groups.clear()  # who keeps the run must not keep their threads and connections
        dist.destroy_process_group()


def without_advice(text: str) -> str:
    """An error of Gloo without its source file and its words of comfort."""
    return re.sub(r"\[[^\]]*\.cc:\d+\] |\. This is typically caused by .*", "", text)


def is_broken_wait(text: str) -> bool:
    """Whether an error tells of a transfer, not of this rank: the text is all that Gloo gives."""
    return bool(re.search(r"Connection (closed|reset|refused)|(Read|Write) error|Timed out|gloo/", text))


_current: Run | None = None


def current_run() -> Run:
    """The run that `init` joined last. Raises RuntimeError before."""
    if _current is None:
        raise RuntimeError("there is no run yet: call dhp.init() first")
    return _current


def init(*, timeout_s: float = 600.0) -> Run:
    """Joins the run that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT: `dhp train`, torchrun
    and SLURM scripts set them); without them, a run of one rank.

    Makes two process groups over all ranks, and no other ever: the default group, which sums gradients, and the
    traffic group, which carries the shards and rows of tasks. Groups of a plan are arrays of ranks on the latter.

    Raises InputError where the environment is wrong, RankFailed when a rank or the store cannot be reached within
    `timeout_s`, and ImportError when the run-time library does not fit the installed torch. Each is one line.
    """
    global _current
    ops.load()
    place = rendezvous.read_environment()
    rank, world_size = (place.rank, place.world_size) if place else (0, 1)
    name = torch.ops.dhp.own_name(rank)
    seconds = 2 * timeout_s + ROOM_S
    try:
        if place is None:
            store: dist.Store = dist.HashStore()
            traffic = _make_groups(store, rank, world_size, timeout_s)
        else:
            others = joining.join(place, name, timeout_s)
            store = others.store
            traffic = others.watch(seconds, lambda: _make_groups(store, rank, world_size, timeout_s))
        torch.ops.dhp.configure_group(traffic.group_name, timeout_s)
        if place:
            torch.ops.dhp.set_store_host(traffic.group_name, place.host_rank, others.host)
            torch.ops.dhp.failure(traffic.group_name)  # the watch has begun when it has looked
            others.watch(seconds, lambda: others.meet_again("ready"))  # from here on all have one
            others.end()
    except rendezvous.Unreachable as error:  # who is lost stands first, not who tells it
        seen = "" if isinstance(error, rendezvous.NotJoined) else f" (seen by {name})"
        raise RankFailed(f"{error}{seen}") from error
    except (RuntimeError, TimeoutError) as error:
        raise RankFailed(f"{name}: the ranks cannot be connected: {_one_line(error)}") from error
    run = Run(rank, world_size, traffic.group_name, timeout_s, store, name=name, _groups=[traffic])
    run.wait_for("start", lambda: [dist.barrier(group=traffic, async_op=True)])  # all pairs connect here, not in a task
    _current = run
    atexit.unregister(_leave_soon)
    atexit.register(_leave_soon)  # not with `run`, which would stay after its end
    return run


def _make_groups(store: dist.Store, rank: int, world_size: int, timeout_s: float) -> dist.ProcessGroup:
    """Gloo's own time-out closes the connections to all ranks: the run's comes before it."""
    timeout = timedelta(seconds=timeout_s * CARRIER_SHARE + ROOM_S)
    dist.init_process_group(
        "gloo", store=dist.PrefixStore("dhp", store), rank=rank, world_size=world_size, timeout=timeout
    )
    return dist.new_group(list(range(world_size)), backend="gloo", timeout=timeout)


def _one_line(error: BaseException) -> str:
    return " ".join(without_advice(str(error) or type(error).__name__).split())


def _leave_soon() -> None:
    """At the end of the interpreter. An exception that nobody caught is told to the peers; where the run has failed,
    its process groups may wait for transfers that never end, and must not hold the process."""
    if (run := _current) is None:
        return
    if isinstance(error := getattr(sys, "last_value", None), Exception):
        run.failure(error)
    if torch.ops.dhp.known_failure(run.traffic):
        torch.ops.dhp.release_group(run.traffic)
        torch.ops.dhp.exit_within(END_S, 1)


def plan(batch: Batch, cluster: Cluster, cost: CostModel, *, run: Run | None = None, **options: Any) -> Plan:
    """Decides which ranks share which sequences of the batch: `plan_batch`, then `check_plan`. `options` are those of
    `dhp plan`: planner="lockstep", max_degree=8, exchanges=["ring"], ….

    With `run`, makes sure that all ranks have planned the same (one small collective), and that the plan is for as many
    ranks as the run has; `agree_on` does that for a plan from elsewhere. Raises InfeasibleBatch with the reason when no
    plan holds the batch, InputError for bad input, RankFailed when plans differ.
    """
    result = plan_batch(batch, cluster, cost, **options)
    if isinstance(result, Infeasible):
        raise InfeasibleBatch(result.reason)
    violations = check_plan(result, batch, cluster, cost)
    if violations:
        raise RuntimeError("the planner made an invalid plan: " + "; ".join(violations))
    if run is not None:
        agree_on(result, run)
    return result


def agree_on(plan: Plan, run: Run) -> None:
    """Raises RankFailed on every rank unless all ranks hold this very plan, for as many ranks as there are, and
    InputError if its tasks use an exchange that the run-time does not implement."""
    if missing := {task.exchange.name for task in plan.tasks} - set(EXCHANGES):
        raise InputError(
            f"planner: {plan.planner or 'the plan'} exchanges by {', '.join(missing)}, which is there for comparing "
            f"plans only; expected {', '.join(EXCHANGES)}"
        )
    if plan.ranks != run.world_size:
        raise RankFailed(f"the plan is for {plan.ranks} ranks, the run has {run.world_size}")
    words = [int(plan.hash[i : i + 8], 16) for i in range(0, len(plan.hash), 8)]
    extremes = run.max(torch.tensor([*words, *(-word for word in words)], dtype=torch.int64))
    if extremes.tolist() != [*words, *(-word for word in words)]:
        raise RankFailed(
            f"rank {run.rank}: the ranks planned differently (here {plan.hash}): data, cost, cluster and "
            "version must be the same everywhere"
        )


def tasks(plan: Plan, run: Run | None = None) -> Iterator[Task]:
    """The tasks of this rank, in plan order: the only order in which its transfers may be posted. `run` is the current
    one unless given."""
    rank = (run or current_run()).rank
    for task in plan.tasks:
        if rank in task.ranks:
            yield task
