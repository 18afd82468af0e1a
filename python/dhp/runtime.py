"""The run: who this rank is, the two process groups, and what happens when a rank fails."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dhp import _ops
from dhp._core import Batch, Cluster, CostModel, Infeasible, InputError, Plan, Task, check_plan, plan_batch
from dhp.output import complain

LOST_KEY = "dhp/lost"  # where the launcher writes which rank died, and how
EXCHANGES = ("ring", "direct", "hierarchical")  # how the run-time moves shards


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
    _groups: list[dist.ProcessGroup] = field(default_factory=list, repr=False)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Names what the rank is doing ("step 3, task 7"), so that errors say where they happened, and tells the peers
        that wait for this rank when it fails, so that none of them hangs."""
        before = self.place
        self._enter(place)
        try:
            yield
        except (RankFailed, RunStopped, InputError, InfeasibleBatch):
            raise
        except Exception as error:
            raise self.failure(error) from error
        self._enter(before)

    def _enter(self, place: str) -> None:
        self.place = place
        torch.ops.dhp.set_label(self.traffic, place)  # the run-time's own messages name it too

    def failure(self, error: Exception) -> RankFailed:
        """The error to raise for `error`: root cause first, then what this rank was doing. Records it for the peers."""
        text = _without_advice(str(error).strip() or type(error).__name__)
        cause = self._lost_rank() or _without_advice(torch.ops.dhp.failure(self.traffic))
        if not cause:
            own = f"rank {self.rank} at {self.place}: {text}"
            torch.ops.dhp.report_failure(self.traffic, own)
            return RankFailed(own)
        first, *details = [line.strip() for line in text.splitlines()]
        seen = " ".join(details if details and first in cause else [first, *details])
        return RankFailed(f"{cause}\n  rank {self.rank} at {self.place}: {seen}")

    def _lost_rank(self) -> str:
        """What the launcher knows of a rank that died: it sees the signal, the peers only a closed connection."""
        if "DHP_LAUNCHER" not in os.environ:
            return ""
        try:
            for _ in range(10):
                if self.store.check([LOST_KEY]):
                    return self.store.get(LOST_KEY).decode()
                time.sleep(0.05)
        except (RuntimeError, dist.DistStoreError):
            return "the launcher is gone"
        return ""

    def say_once(self, message: str) -> None:
        """Prints to standard error what several ranks may have to say, the first time only."""
        key = "dhp/said/" + hashlib.sha256(message.encode()).hexdigest()
        try:
            first = self.store.add(key, 1) == 1
        except RuntimeError:  # the store is gone
            first = True
        if first:
            complain(message)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, in place."""
        dist.all_reduce(values, op=dist.ReduceOp.SUM)
        return values

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise maximum over all ranks, in place."""
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return values

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank, on rank 0; nothing on the others. For small ones: they are pickled."""
        values: list[Any] | None = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(value, values)
        return values or []

    def all(self, value: Any) -> list[Any]:
        """The values of all ranks, by rank, on all ranks. For small ones: they are pickled."""
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def from_rank_0(self, value: Any) -> Any:
        """Rank 0's value, on all ranks. For small ones: they are pickled."""
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def barrier(self) -> None:
        self.max(torch.zeros(1, dtype=torch.uint8))

    def close(self) -> None:
        """Ends the run: waits for all ranks, then releases the groups."""
        global _current
        self.barrier()
        _current = None
        torch.ops.dhp.release_group(self.traffic)
        dist.destroy_process_group()


def _without_advice(text: str) -> str:
    """An error of Gloo without its source file and its words of comfort."""
    return re.sub(r"\[/[^\]]*\.cc:\d+\] |\. This is typically caused by a remote worker crashing\..*", "", text)


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

    Raises RuntimeError when the run-time library does not fit the installed torch, or a rank cannot be reached.
    """
    global _current
    _ops.load()
    timeout = timedelta(seconds=timeout_s)
    if "RANK" in os.environ:
        store, rank, world_size = _join(timeout)
    else:
        store, rank, world_size = dist.HashStore(), 0, 1
    dist.init_process_group(
        "gloo", store=dist.PrefixStore("dhp", store), rank=rank, world_size=world_size, timeout=timeout
    )
    traffic = dist.new_group(list(range(world_size)), backend="gloo", timeout=timeout)
    torch.ops.dhp.configure_group(traffic.group_name, timeout_s)
    run = Run(rank, world_size, traffic.group_name, timeout_s, store, _groups=[traffic])
    dist.barrier(group=traffic)  # all pairs connect here, not in the middle of a task
    _current = run
    return run


def _join(timeout: timedelta) -> tuple[dist.Store, int, int]:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return next(iter(dist.rendezvous("env://", timeout=timeout)))
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    hosted = "DHP_LAUNCHER" in os.environ  # by the process that started the ranks, which outlives each of them
    store = dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        world_size,
        is_master=rank == 0 and not hosted,
        timeout=timeout,
    )
    return store, rank, world_size


def plan(
    batch: Batch, cluster: Cluster, cost: CostModel, *, schedule: str = "free", run: Run | None = None, **options: Any
) -> Plan:
    """Decides which ranks share which sequences of the batch: `plan_batch`, then `check_plan`. `options` are those of
    `dhp plan`: max_degree=8, exchanges=["ring"], ….

    With `run`, makes sure that all ranks have planned the same (one small collective), and that the plan is for as many
    ranks as the run has; `agree_on` does that for a plan from elsewhere. Raises InfeasibleBatch with the reason when no
    plan holds the batch, InputError for bad input, RankFailed when plans differ.
    """
    result = plan_batch(batch, cluster, cost, schedule=schedule, **options)
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
    InputError if its tasks exchange shards in a way that the run-time has not."""
    if missing := {task.exchange.name for task in plan.tasks} - set(EXCHANGES):
        raise InputError(
            f"schedule: {plan.planner or 'the plan'} exchanges by {', '.join(missing)}, which is there for comparing "
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
