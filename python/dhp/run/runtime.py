"""The run: who this rank is, what it tells the others and gets from them, and what happens when a rank fails."""

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

from dhp._core import Batch, Cluster, InputError, Plan, Task
from dhp.base.output import complain
from dhp.run.patience import ANSWER_S, within
from dhp.run.planning import InfeasibleBatch

EXCHANGES = ("ring", "direct", "hierarchical")  # how the run-time moves shards
SLICE_S = 0.2  # how soon a wait ends after the failure of another rank
END_S = 3.0  # that a failed process may take to end by itself


class RunStopped(Exception):
    """The run cannot go on although no rank has failed. All ranks reached the conclusion that the message gives."""


class RankFailed(RuntimeError):
    """This rank, or one that it depends on, failed. The message begins with the root cause."""


@dataclass
class Run:
    """One rank of a run. Made by `dhp.init` or `dhp.join`, closed by `close()` (or `with dhp.init() as run:`).

    rank, world_size  this rank and the number of ranks, as plans count them; rank is -1 in a non-member process
    members           their ranks in the default process group, by rank of the run
    traffic           name of the process group that carries shards and rows between the ranks of a task
    device            where this rank computes: its tensors of shards and rows are there
    timeout_s         how long a rank waits for a peer; must exceed the skew that a free schedule makes legitimate

    `sum` to `barrier` are collectives of the members: all members call them in the same order, with tensors of the same
    shape and type, on the CPU or on `device`. They raise RankFailed if a member fails or keeps the others waiting for
    `timeout_s`, and InputError in a process that is not a member. None of them uses the default process group.
    """

    rank: int
    world_size: int
    traffic: str
    timeout_s: float
    store: dist.Store
    members: tuple[int, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    place: str = "start"
    name: str = ""  # "rank 5 (host b, pid 123)"
    _groups: list[dist.ProcessGroup] = field(default_factory=list, repr=False)  # of `traffic`; of far transfers, if any
    _owns_world: bool = field(default=False, repr=False)  # init has made the default process group

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
        self.enter(place)
        try:
            yield
        except (RankFailed, RunStopped):
            raise
        except (InputError, InfeasibleBatch) as error:  # mostly on all ranks at once
            torch.ops.dhp.report_failure(self.traffic, f"{self.name} at {place}: {error}")
            raise
        except Exception as error:
            raise self.failure(error) from error
        self.check_device()
        self.enter(before)

    def check_device(self) -> None:
        """Raises RankFailed if the run has failed. On a CPU every wait does; a host that has waited for its device does
        not know whether what it has read is of transfers that were aborted."""
        if self.device.type != "cpu" and (cause := torch.ops.dhp.known_failure(self.traffic)):
            raise RankFailed(f"{without_advice(cause)}\n  {self.name} at {self.place}")

    def enter(self, place: str) -> None:
        """Names what the rank does from now on, until the next call or the end of the `at` around it."""
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
            answers = torch.ops.dhp.pulse(self.traffic, dist.get_rank()) >= 0
            if answers and within(ANSWER_S, lambda: self.store.add(key, 1)) > 1:
                return
        complain(message)

    def group_of(self, task: Task) -> list[int]:
        """The ranks of a task in ring order, as `torch.ops.dhp` takes them: of the default process group."""
        return [self.members[rank] for rank in task.ranks]

    @property
    def group(self) -> dist.ProcessGroup:
        """The process group of `traffic`. It spans the world, whoever is a member: for collectives of all processes."""
        return self._groups[0]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, in place: the same bits on all."""
        return self._reduce("sum", values, dist.ReduceOp.SUM)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum over all ranks, in place."""
        return self._reduce("max", values, dist.ReduceOp.MAX)

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank, on rank 0; nothing on the others. For small ones: they are pickled."""
        if not self._spans_world():
            return [theirs for theirs in self.all(value) if self.rank == 0]
        mine = self._packed(value)
        theirs = [torch.empty_like(mine) for _ in range(self.world_size)] if self.rank == 0 else None
        first = self.members[0]
        self.wait_for("gather", lambda: [dist.gather(mine, theirs, first, self.group, async_op=True)])
        return [pickle.loads(theirs[member].numpy().tobytes()) for member in self.members] if theirs else []

    def all(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank, on all ranks. For small ones: they are pickled."""
        mine = self._packed(value)
        if self._spans_world():
            theirs = [torch.empty_like(mine) for _ in range(self.world_size)]
            self.wait_for("all_gather", lambda: [dist.all_gather(theirs, mine, self.group, async_op=True)])
            theirs = [theirs[member] for member in self.members]
        else:
            theirs = list(self._exchange(mine.expand(self.world_size, -1)))
        return [pickle.loads(buffer.numpy().tobytes()) for buffer in theirs]

    def from_rank_0(self, value: Any) -> Any:
        """Rank 0's value, on all ranks. For small ones: they are pickled."""
        if not self._spans_world():
            return self.all(value if self.rank == 0 else None)[0]
        buffer = self._packed(value if self.rank == 0 else None)
        first = self.members[0]
        self.wait_for("broadcast", lambda: [dist.broadcast(buffer, first, self.group, async_op=True)])
        return pickle.loads(buffer.numpy().tobytes())

    def barrier(self) -> None:
        """Returns when all ranks have come."""
        self._reduce("barrier", torch.zeros(1, dtype=torch.uint8), dist.ReduceOp.SUM)

    def _spans_world(self) -> bool:
        """Whether every process is a member, so that the members' collectives are those of the process group."""
        self.require_member()
        return self.world_size == self.group.size()

    def require_member(self) -> None:
        """Raises InputError in a process that is none."""
        if self.rank < 0:
            raise InputError(f"{self.name} is no member of a run: dhp.join was given members without it")

    def _packed(self, value: Any) -> torch.Tensor:
        """Pickled, uint8 [as long on all ranks]; unpickling ignores what follows."""
        data = pickle.dumps(value)
        room = int(self.max(torch.tensor([len(data)]))[0])
        return torch.frombuffer(bytearray(data.ljust(room)), dtype=torch.uint8)

    def _reduce(self, name: str, values: torch.Tensor, op: dist.ReduceOp.RedOpType) -> torch.Tensor:
        if self._spans_world():
            self.wait_for(
                name,
                lambda: [dist.all_reduce(values, op, self.group, async_op=True)],
                on_device=values.device.type != "cpu",
            )
            return values
        # Each member reduces its share of the values, in the order of ranks, and hands the result to all: as many bytes
        # as a ring carries. A process group of the members would be one more that every process has to make.
        share = -(-values.numel() // self.world_size)
        padding = self.world_size * share - values.numel()
        shares = torch.nn.functional.pad(values.detach().reshape(-1), (0, padding)).reshape(self.world_size, share)
        theirs = self._exchange(shares)
        mine = theirs.amax(0) if op == dist.ReduceOp.MAX else theirs.sum(0, dtype=theirs.dtype)
        whole = self._exchange(mine.expand(self.world_size, -1)).reshape(-1)[: values.numel()]
        with torch.no_grad():
            values.copy_(whole.view(values.shape))
        return values

    def _exchange(self, rows: torch.Tensor) -> torch.Tensor:
        """Row i of `rows` [members, C] goes to rank i; the result [members, C] are the rows from all, by rank."""
        ones = [1] * self.world_size
        try:
            with torch.no_grad():
                return torch.ops.dhp.exchange_rows(rows, ones, ones, list(self.members), self.traffic)
        except Exception as error:
            raise self.failure(error) from error

    def wait_for(self, name: str, start: Callable[[], Iterable[dist.Work | None]], *, on_device: bool = False) -> None:
        """Starts collectives, which every process starts in the same order, and waits for them as for every peer: at
        most `timeout_s`, and not beyond the failure of another rank. Raises RankFailed with the cause. `on_device`: of
        tensors there; the current stream waits, and the watch looks after the work."""
        with self.collective(name):
            for work in start():
                if work is None:
                    continue
                if on_device:
                    torch.ops.dhp.watch_work(self.traffic, work.boxed(), f"the collective {name!r}")
                    work.wait()
                else:
                    self._wait(work, name)

    def _wait(self, work: dist.Work, name: str) -> None:
        deadline = time.monotonic() + self.timeout_s
        while True:
            left = deadline - time.monotonic()
            try:
                work.wait(timedelta(seconds=min(SLICE_S, max(left, 1e-3))))
                return
            except RuntimeError as error:
                if "Operation timed out" not in str(error):
                    raise
            # Only the slice is over. (Of transfers between two ranks this would close the connections.)
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
        """Ends the run: waits for all ranks, then releases its process group, and the default one if `init` made it."""
        if self.rank >= 0:
            self.barrier()
        set_current(None)
        torch.ops.dhp.release_group(self.traffic)
        groups, self._groups = self._groups, []  # who keeps the run must not keep their threads and connections
        for group in [None] if self._owns_world else groups:
            dist.destroy_process_group(group)


def without_advice(text: str) -> str:
    """An error of Gloo without its source file and its words of comfort."""
    return re.sub(r"\[[^\]]*\.cc:\d+\] |\. This is typically caused by .*", "", text)


def is_broken_wait(text: str) -> bool:
    """Whether an error tells of a transfer, not of this rank: the text is all that Gloo gives."""
    return bool(re.search(r"Connection (closed|reset|refused)|(Read|Write) error|Timed out|gloo/", text))


_current: Run | None = None


def current_run() -> Run:
    """The run that this process joined last. Raises RuntimeError if there is none."""
    if _current is None:
        raise RuntimeError("there is no run yet: call dhp.init() first, or dhp.join() where there is a process group")
    return _current


def is_current() -> bool:
    """Whether this process is in a run."""
    return _current is not None


def set_current(run: Run | None) -> None:
    """The run that this process is in from here on."""
    global _current
    _current = run
    atexit.unregister(_leave_soon)
    if run:
        atexit.register(_leave_soon)  # not with `run`, which would stay after its end


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


def agree_on(plan: Plan, run: Run) -> None:
    """Raises RankFailed on every rank unless all ranks hold the same plan, for as many ranks as the run has members,
    and InputError if its tasks use an exchange that the run-time does not implement."""
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


def connect(plan: Plan, batch: Batch, run: Run, cluster: Cluster | None = None, *, rows: bool = False) -> int:
    """Before the tasks of a plan: connects this rank, in plan order, with those that it will exchange data with for the
    first time. On an accelerator the first transfer between two ranks holds up their hosts, which else happens in the
    middle of a task. A plan connects no more ranks than it lets work together (`max_peers`). Every rank calls it, after
    `agree_on`. `rows`: members exchange rows in every task, not only those of pictures (`Adapter.exchanges_rows`).
    Returns how many connections are new: none on CPUs, where the process group has made all of them.
    """
    if run.device.type == "cpu":
        return 0
    visual = {sequence.id for sequence in batch.sequences if sequence.patches}
    fresh = 0
    for task in tasks(plan, run):
        if len(task.ranks) > 1:
            nodes = [cluster.node_of(rank) for rank in task.ranks] if cluster else []
            travel = rows or any(sequence in visual for sequence in task.sequences)  # from any member to any
            fresh += torch.ops.dhp.connect(run.group_of(task), run.traffic, task.exchange.name, nodes, travel)
    return fresh


def tasks(plan: Plan, run: Run | None = None) -> Iterator[Task]:
    """The tasks of this rank, in plan order: the only order in which its transfers may be posted. `run` defaults
    to the current run."""
    rank = (run or current_run()).rank
    for task in plan.tasks:
        if rank in task.ranks:
            yield task
