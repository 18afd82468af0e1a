"""How the ranks of a run find each other: the environment, the store, who has come. Every wait has an end."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from dhp._core import InputError
from dhp.run import slurm

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
NAME_LOOKUP_S = 10.0  # a name server may come up later than the ranks
FAILURE_KEY = "dhp/not_joined"  # the first cause that a rank has found


class Unreachable(RuntimeError):
    """A rank, or the store, that cannot be reached. One line."""


class NotJoined(Unreachable):
    """The cause that ends the run before it begins, the same on all ranks. One line that says who saw it."""


@dataclass(frozen=True)
class Place:
    """What the environment, or the program's process group, says of this rank."""

    rank: int
    world_size: int
    address: str = ""  # none where the program has connected the ranks itself
    port: int = 0

    @property
    def host_rank(self) -> int:
        """The rank that hosts the store, or -1: then the process that started the ranks does."""
        return -1 if self.host else 0

    @property
    def host(self) -> str:
        """What hosts the store, if no rank does."""
        if "DHP_LAUNCHER" in os.environ:  # it outlives each of the ranks
            return "the launcher of the ranks"
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
            return f"torchrun on {self.address}" if self.address else "torchrun"
        return ""

    @property
    def advice(self) -> str:
        """What to look at where ranks do not come."""
        if self.address:
            return "were all of them started, with the same MASTER_ADDR and MASTER_PORT?"
        return "every rank of the default process group calls it, members and others"

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.address else "dhp.join"


def started_by_others() -> bool:
    """Whether torchrun, srun or a script has started this process as a rank. Raises InputError for a step of SLURM's
    that lacks what makes it one."""
    slurm.adopt(os.environ)
    return "RANK" in os.environ


def read_environment() -> Place | None:
    """None where no RANK is set. Raises InputError, which names what is missing or wrong."""
    if not started_by_others():
        return None
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        raise InputError(
            f"environment: RANK is set ({os.environ['RANK']}), but not {', '.join(missing)}: torchrun, or the script "
            "that starts the ranks, sets all of them; for a run without them unset RANK"
        )
    rank, world_size, port = (_whole(name) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if world_size < 1:
        raise InputError(f"environment: WORLD_SIZE: found {world_size}, expected at least 1")
    if not 0 <= rank < world_size:
        raise InputError(
            f"environment: RANK: found {rank}, expected 0 to {world_size - 1}, as WORLD_SIZE is {world_size}"
        )
    if not 0 < port < 65536:
        raise InputError(f"environment: MASTER_PORT: found {port}, expected 1 to 65535")
    return Place(rank, world_size, os.environ["MASTER_ADDR"], port)


def _whole(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError:
        raise InputError(f"environment: {name}: found {os.environ[name]!r}, expected a whole number") from None


def open_store(place: Place, timeout_s: float) -> dist.Store:
    timeout = timedelta(seconds=timeout_s)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return next(iter(dist.rendezvous("env://", timeout=timeout)))[0]
    address = _look_up(place, min(NAME_LOOKUP_S, timeout_s))
    if place.rank == 0 and not place.host:
        listener = _listen(place, address)
        return dist.TCPStore(
            place.address,
            place.port,
            None,
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
    return dist.TCPStore(place.address, place.port, None, is_master=False, timeout=timeout, wait_for_workers=False)


def _look_up(place: Place, patience_s: float) -> tuple[socket.AddressFamily, str]:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            family, _, _, _, address = socket.getaddrinfo(place.address, place.port, type=socket.SOCK_STREAM)[0]
            return family, str(address[0])
        except OSError as error:
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"MASTER_ADDR: the host {place.address!r} is unknown ({error.strerror or error}); give the name or "
                    "address of the machine of rank 0"
                ) from None
            time.sleep(0.5)


def _listen(place: Place, found: tuple[socket.AddressFamily, str]) -> socket.socket:
    """Where the run's address is this machine's, on that address alone. On all where it is not (a forwarded one), or
    where the name is the loopback's here alone (Debian's 127.0.1.1) and other machines are to come."""
    family, address = found
    is_loopback = address.startswith("127.") or address == "::1"
    is_local = int(os.environ.get("LOCAL_WORLD_SIZE", "0") or 0) == place.world_size
    if is_loopback and not is_local and not place.address.startswith(("127.", "localhost", "::1")):
        address = ""
    try:
        try:
            return _bind(family, address, place)
        except OSError as error:
            if address and error.errno == errno.EADDRNOTAVAIL:
                return _bind(family, "", place)
            raise
    except OSError as error:
        raise Unreachable(
            f"MASTER_PORT: rank 0 cannot host the store at {place}: {error.strerror}; another program, perhaps an "
            "older run, may have the port: give another"
        ) from None


def _bind(family: socket.AddressFamily, address: str, place: Place) -> socket.socket:
    return socket.create_server((address, place.port), family=family, backlog=max(128, place.world_size))


def meet(store: dist.Store, place: Place, name: str, timeout_s: float) -> None:
    """Returns when every rank has come."""
    own = f"{place.world_size} {torch.__version__} {name}"
    if store.add(f"dhp/come/{place.rank}", 1) > 1:
        raise Unreachable(f"RANK: a second process has come as rank {place.rank}; each rank has a number of its own")
    store.set(f"dhp/who/{place.rank}", own)
    if store.add("dhp/came", 1) == place.world_size:
        store.set("dhp/all", "1")
    deadline = time.monotonic() + timeout_s
    while not store.check(["dhp/all"]):
        if time.monotonic() > deadline:
            missing = [rank for rank in range(place.world_size) if not store.check([f"dhp/who/{rank}"])]
            raise NotJoined(publish(store, f"{_describe_missing(missing, place, timeout_s)} (seen by {name})"))
        if store.check([FAILURE_KEY]):
            raise NotJoined(store.get(FAILURE_KEY).decode())
        with contextlib.suppress(dist.DistStoreError, RuntimeError):  # nothing in this second
            store.wait(["dhp/all"], timedelta(seconds=min(1.0, timeout_s)))
    if problem := _compare(own, store.get("dhp/who/0").decode(), name):
        raise NotJoined(publish(store, problem))


def publish(store: dist.Store, cause: str) -> str:
    """Tells the other ranks why the run cannot begin; returns the first cause of all."""
    return store.compare_set(FAILURE_KEY, "", cause).decode()


def _describe_missing(missing: list[int], place: Place, timeout_s: float) -> str:
    listed = ", ".join(str(rank) for rank in missing[:8]) + (
        f" and {len(missing) - 8} more" if len(missing) > 8 else ""
    )
    return (
        f"{'ranks' if len(missing) > 1 else 'rank'} {listed} of {place.world_size} did not come to {place} within "
        f"{timeout_s:g} s (timeout_s); {place.advice}"
    )


def _compare(own: str, first: str, name: str) -> str:
    (size, version, _), (first_size, first_version, first_name) = own.split(" ", 2), first.split(" ", 2)
    if size != first_size:
        return f"WORLD_SIZE: {name} was given {size}, {first_name} {first_size}"
    if version != first_version:
        return f"{name} has torch {version}, {first_name} has {first_version}: install the same everywhere"
    return ""
