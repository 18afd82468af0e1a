"""How a process comes into a run: by the environment (`init`), or with a process group that it has already (`join`)."""

from __future__ import annotations

import contextlib
import hashlib
import operator
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from dhp._core import InputError
from dhp.run import devices, joining, ops, rendezvous
from dhp.run.joining import Joining
from dhp.run.rendezvous import Place
from dhp.run.runtime import RankFailed, Run, is_current, set_current, without_advice

CARRIER_SHARE, ROOM_S = 1.1, 5.0  # what Gloo's own time-out is more than the run's
SHOWN = 8  # members in a message
T = TypeVar("T")


def init(*, timeout_s: float = 600.0, device: str = "auto") -> Run:
    """Joins the run that the environment describes (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT: `dhp train`, torchrun
    and SLURM scripts set them); without them, starts a run of one rank. A program that already has a process group
    calls `join` instead.

    device     where this rank computes: "auto" (the accelerator that torch finds, else the CPU), "cpu", "cuda" or
               "npu"; the one with the number LOCAL_RANK. `run.device` is it, and the current one.
    timeout_s  how long a rank waits for a peer

    Makes two process groups over all ranks: the default group, which torch requires, and the traffic group, which
    carries all messages between ranks. Groups of a plan are arrays of ranks on the traffic group. With devices on
    several nodes a third carries what goes from node to node. There is never another.

    Raises InputError if the environment is wrong or this process is already in a run, RankFailed if a rank or the store
    cannot be reached within `timeout_s`, and ImportError if the run-time library does not fit the installed torch. Each
    message is one line.
    """
    _refuse_second(timeout_s)
    if dist.is_initialized():
        raise InputError("dhp.init: this program has made a process group already; call dhp.join() instead")
    ops.load()
    place = rendezvous.read_environment()
    own_device = devices.choose(device)
    rank, size = (place.rank, place.world_size) if place else (0, 1)
    name = torch.ops.dhp.own_name(rank)
    with _in_one_line(name):
        said = {"node": devices.node_of_this_rank(rank)}
        others = joining.join(place, name, timeout_s, said) if place else None
        store = dist.PrefixStore("dhp", others.store) if others else dist.HashStore()

        def make_world() -> None:
            timeout = _carrier_timeout(timeout_s)
            # Bound to its device, a communicator is made now, and those of other groups split from it.
            bound = own_device if own_device.type == "cuda" else None
            backend = devices.backend_of(own_device)
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=bound)

        _watched(others, timeout_s, make_world)
        place = place or Place(rank, size)
        return _connect(others, place, store, tuple(range(size)), timeout_s, own_device, owns_world=True)


def join(members: Sequence[int] | None = None, timeout_s: float = 600.0, device: str = "auto") -> Run:
    """Starts a run on the ranks of a program that has a default process group: Accelerate, Trainer, Megatron, FSDP or
    your own.

    members    ranks of the default group that train together, in the order in which plans count them: a plan's rank is
               an index into this list. Default: all ranks. Several slices of the ranks may each have their own list; no
               rank may be in two. A process that is not in its own list is in no slice: its `run.rank` is -1.
    timeout_s  how long a rank waits for a peer
    device     where the run's tensors are, as in `init`

    Every rank of the default group calls this equally often, including those in no slice. It makes one process group
    over all of them, which carries the traffic of all slices: CPU tensors by Gloo, and those on a device by its own
    backend; with devices on several nodes, a second for what goes from node to node. Collectives of the run do not use
    the default group, whatever its backend. A rank that is lost in one slice ends the others too. `close()` ends the
    run and leaves the program's groups as they are.

    Raises InputError for wrong members, without a process group, or in a process that is already in a run. Raises
    RankFailed if a rank does not join within `timeout_s` or is lost, and on ranks that could not know that another
    rank's members are wrong. Each message is one line.
    """
    _refuse_second(timeout_s)
    if not dist.is_available() or not dist.is_initialized():
        raise InputError(
            "dhp.join: there is no process group yet; call torch.distributed.init_process_group() first, or "
            "dhp.init(), which makes one"
        )
    ops.load()
    place = Place(dist.get_rank(), dist.get_world_size())
    own_device = devices.choose(device)
    name = torch.ops.dhp.own_name(place.rank)
    listed, problem = _check_members(members, place.world_size)
    said = {
        "members": problem or _some(listed),
        "slice": "" if problem else _digest(listed, place.rank),
        "node": devices.node_of_this_rank(place.rank),
    }
    store = dist.group.WORLD.get_group_store()  # type: ignore[union-attr]  # it is initialized
    with _in_one_line(name):
        others = joining.join_by(store, place, name, timeout_s, said)
        if problem:
            others.give_up(f"dhp.join: {name}: {problem}")
            raise InputError(f"dhp.join: {problem}")
        _watched(others, timeout_s, lambda: _compare_members(others, listed, name))
        return _connect(others, place, others.store, listed, timeout_s, own_device, owns_world=False)


def _refuse_second(timeout_s: float) -> None:
    if is_current():
        raise InputError("this process is in a run already: close() it before the next, a rank is in one slice at most")
    if not 1e-3 <= timeout_s <= 1e6:
        raise InputError(f"timeout_s: found {timeout_s}, expected seconds from 0.001 to 1,000,000")


def _check_members(members: Sequence[int] | None, world_size: int) -> tuple[tuple[int, ...], str]:
    """The members, and what is wrong with them."""
    if members is None:
        return tuple(range(world_size)), ""
    try:
        listed = tuple(operator.index(member) for member in members)
    except TypeError:
        return (), f"members: found {members!r}, expected ranks of the default process group"
    if not listed:
        return (), "members: found an empty list, expected the ranks of a slice; one that this rank is not in will do"
    seen: set[int] = set()
    for position, member in enumerate(listed):
        if not 0 <= member < world_size:
            return (), f"members[{position}]: found {member}, expected a rank from 0 to {world_size - 1}"
        if member in seen:
            return (), f"members[{position}]: found rank {member} twice, expected every rank once"
        seen.add(member)
    return listed, ""


def _digest(members: tuple[int, ...], rank: int) -> str:
    """Equal where the ranks are in one slice."""
    return hashlib.sha256(str(members).encode()).hexdigest()[:32] if rank in members else "none"


def _some(members: tuple[int, ...]) -> str:
    more = f", … ({len(members):,} in all)" if len(members) > SHOWN else ""
    return f"[{', '.join(map(str, members[:SHOWN]))}{more}]"


def _compare_members(others: Joining, members: tuple[int, ...], name: str) -> None:
    """Raises NotJoined, on all ranks, unless all members have joined with the same ones."""
    expected = _digest(members, members[0])
    for member, found in zip(members, others.said_by("slice", members), strict=True):
        if found == expected:
            continue
        words = others.said_by("members", [member])[0]
        cause = (
            f"rank {member} called dhp.join with members {words}, {name} with {_some(members)}: all of a slice give "
            "the same ranks in the same order, and no rank is in two"
            if found
            else f"rank {member} called dhp.join with wrong members: {words}"
        )
        raise rendezvous.NotJoined(others.give_up(cause))


def _connect(
    others: Joining | None,
    place: Place,
    store: dist.Store,
    members: tuple[int, ...],
    timeout_s: float,
    device: torch.device,
    *,
    owns_world: bool,
) -> Run:
    """Makes the groups of traffic over the world, and sees to it that from then on every rank watches the others."""

    def make_group(backend: str) -> dist.ProcessGroup:
        ranks = list(range(place.world_size))
        group = dist.new_group(
            ranks, backend=backend, timeout=_carrier_timeout(timeout_s), pg_options=devices.options_of(device)
        )
        devices.leave_time_outs_to_the_watch(group, device)
        return group

    traffic = _watched(others, timeout_s, lambda: make_group(devices.backend_of(device)))
    groups = [traffic]
    torch.ops.dhp.configure_group(traffic.group_name, timeout_s)
    if device.type != "cpu" and others and _watched(others, timeout_s, lambda: _spans_nodes(others, place)):
        groups.append(_watched(others, timeout_s, lambda: make_group(devices.far_backend_of(device))))
        torch.ops.dhp.set_far_group(traffic.group_name, groups[1].group_name)
    if others:
        torch.ops.dhp.set_store_host(traffic.group_name, place.host_rank, others.host)
        torch.ops.dhp.failure(traffic.group_name)  # the watch has begun when it has looked
        _watched(others, timeout_s, lambda: others.meet_again("ready"))  # from here on all have one
        others.end()
    rank = members.index(place.rank) if place.rank in members else -1
    name = torch.ops.dhp.own_name(place.rank)
    run = Run(rank, len(members), traffic.group_name, timeout_s, store, members, device, name=name)
    run._groups, run._owns_world = groups, owns_world
    # All pairs connect here, not in a task. A barrier would go to the device.
    run.wait_for("start", lambda: [dist.all_reduce(torch.zeros(1), group=traffic, async_op=True)])
    set_current(run)
    return run


def _spans_nodes(others: Joining, place: Place) -> bool:
    """Whether the ranks are on several machines: the same answer on all."""
    return len(set(others.said_by("node", range(place.world_size)))) > 1


def _watched(others: Joining | None, timeout_s: float, call: Callable[[], T]) -> T:
    return others.watch(2 * timeout_s + ROOM_S, call) if others else call()


def _carrier_timeout(timeout_s: float) -> timedelta:
    """Gloo's own time-out closes the connections to all ranks: the run's comes before it."""
    return timedelta(seconds=timeout_s * CARRIER_SHARE + ROOM_S)


@contextlib.contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Errors of ranks that cannot be connected: who is lost stands first, not who tells it."""
    try:
        yield
    except RankFailed:
        raise
    except rendezvous.Unreachable as error:
        seen = "" if isinstance(error, rendezvous.NotJoined) else f" (seen by {name})"
        raise RankFailed(f"{error}{seen}") from error
    except (RuntimeError, TimeoutError) as error:
        words = " ".join(without_advice(str(error) or type(error).__name__).split())
        raise RankFailed(f"{name}: the ranks cannot be connected: {words}") from error
