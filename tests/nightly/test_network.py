"""Ranks on two hosts (network namespaces): a link that is cut ends the run on both sides, which name who was lost; one
that is slow, late or lossy does not, and changes no loss."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from budget import nightly
from netns import ADDRESSES, LINK, Relay, TwoHosts, why_not
from quick import Program, QuickStart, all_gone
from world import make_world, rank_environment, start_ranks, write_settings

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

TIMEOUT_S = 5.0
TORCHRUN_TIMEOUT_S = 20.0  # its workers import all for themselves, and one a host looks at the model meanwhile
GRACE_S = 25.0  # beyond these: to notice, to follow who waits for whom, to tell
STEPS = 12
SIDES = (0, 0, 1)  # of ranks 0, 1, 2; rank 0 hosts the store
PORT = 29555  # in namespaces of our own


def link_down(hosts: TwoHosts) -> None:
    hosts.ip(1, "link", "set", LINK, "down")


def route_removed(hosts: TwoHosts) -> None:
    hosts.ip(1, "route", "del", "10.77.0.0/24")


def black_hole(hosts: TwoHosts) -> None:
    """One way: what side 1 sends is refused by its own kernel."""
    hosts.ip(1, "route", "add", "blackhole", f"{ADDRESSES[0]}/32")


def silent_one_way(hosts: TwoHosts) -> None:
    """One way: what side 1 sends goes to a card that nobody has."""
    hosts.ip(1, "neigh", "replace", ADDRESSES[0], "lladdr", "02:00:00:00:00:99", "dev", LINK, "nud", "permanent")


def silent_other_way(hosts: TwoHosts) -> None:
    hosts.ip(0, "neigh", "replace", ADDRESSES[1], "lladdr", "02:00:00:00:00:99", "dev", LINK, "nud", "permanent")


CUTS: list[Any] = [
    link_down,
    pytest.param(route_removed, marks=nightly),
    pytest.param(black_hole, marks=nightly),
    silent_one_way,
    pytest.param(silent_other_way, marks=nightly),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, quick: QuickStart) -> Path:
    """Model and data, and the run of one host: whole.jsonl."""
    folder = make_world(tmp_path_factory.mktemp("hosts"))
    name = settings(folder, "whole", steps=STEPS, ranks=len(SIDES), timeout_s=120.0)
    whole = quick.start([name, "--metrics", "whole.jsonl"], folder / "whole.log", cwd=folder)
    assert quick.ended(whole, seconds=300)
    assert whole.code == 0, whole.said()
    return folder


def settings(folder: Path, name: str, **more: Any) -> str:
    table = {"output_dir": name, "global_batch_size": 4, "capacity_tokens": 40, "timeout_s": TIMEOUT_S, **more}
    return write_settings(folder, f"{name}.toml", **table)


def start(
    quick: QuickStart, hosts: TwoHosts, folder: Path, name: str, *words: str, module: str = "dhp.train"
) -> list[Program]:
    """A rank each, by hand."""
    return [
        quick.start(
            [f"{name}.toml", *words],
            folder / f"{name}.rank{rank}",
            cwd=folder,
            netns=hosts.netns(side),
            env=rank_environment(rank, len(SIDES), PORT, ADDRESSES[0], LINK),
            module=module,
        )
        for rank, side in enumerate(SIDES)
    ]


start_on_device = functools.partial(start, module="on_late")


def start_by_torchrun(
    quick: QuickStart, hosts: TwoHosts, folder: Path, name: str, *words: str, module: str = "dhp.train"
) -> list[Program]:
    """An agent a side, with two ranks and one; the first hosts the store."""
    where = ["--nnodes", "2", "--master-addr", ADDRESSES[0], "--master-port", str(PORT)]
    agents = []
    for side in (0, 1):
        here = ["--node-rank", str(side), "--nproc-per-node", str(SIDES.count(side)), "--local-addr", ADDRESSES[side]]
        agents.append(
            quick.start(
                [*where, *here, "-m", module, f"{name}.toml", *words],
                folder / f"{name}.side{side}",
                cwd=folder,
                env={"GLOO_SOCKET_IFNAME": LINK, "PYTHONPATH": str(Path(__file__).parent)},
                netns=hosts.netns(side),
                module="torch.distributed.run",
            )
        )
    return agents


def cut_while_training(quick: QuickStart, programs: list[Program], cut: Callable[[], None], timeout_s: float) -> None:
    """Cuts once the run has made a few steps; all ranks must have ended soon after."""
    while not re.search(r"^step +3/", programs[0].said(), re.M):
        assert not quick.ended(*programs, seconds=0.05), [program.said() for program in programs]
    workers = [pid for program in programs for pid in program.children()]
    cut()
    limit = timeout_s + GRACE_S  # torchrun's agents take their own time to give each other up
    ended = all_gone(workers, limit) if workers else quick.ended(*programs, seconds=limit)
    assert ended, f"not all have ended: {[(program.code, program.said()[-2000:]) for program in programs]}"


def run_and_cut(
    quick: QuickStart,
    folder: Path,
    name: str,
    cut: Callable[[TwoHosts], None],
    *,
    begin: Callable[[QuickStart, TwoHosts, Path, str], list[Program]],
    relay: Relay | None = None,
    timeout_s: float = TIMEOUT_S,
    **more: Any,
) -> list[Program]:
    """A run without an end on two hosts, until it is cut and has ended."""
    settings(folder, name, steps=100_000, timeout_s=timeout_s, **more)
    with TwoHosts(relay) as hosts:
        programs = begin(quick, hosts, folder, name)
        try:
            cut_while_training(quick, programs, lambda: cut(hosts), timeout_s)
        finally:
            quick.end_all()
    return programs


def complaints(program: Program) -> list[str]:
    return [line for line in program.said().splitlines() if line.startswith("dhp: ")]


def check_named(programs: list[Program], mine: list[int], lost: str) -> None:
    """The first line that a side says names who was lost (a pattern); nobody of its own is the cause."""
    said = [line for program in programs for line in complaints(program)]
    assert said, "nobody says why the run ended"
    for program in programs:
        for first in complaints(program)[:1]:
            assert re.search(lost, first), f"does not name who was lost: {first}"
    blamed = [line for line in said for rank in mine if re.match(rf"dhp: error: rank {rank} (at|was|keeps)\b", line)]
    assert not blamed, f"a rank that lives is named as the cause: {blamed}"


def check_both_sides(ranks: list[Program]) -> None:
    """Ranks 0 and 1 name rank 2 or its host, rank 2 one of them or theirs."""
    assert all(rank.code == 1 and "Traceback" not in rank.said() for rank in ranks), [rank.said() for rank in ranks]
    check_named(ranks[:2], [0, 1], r"\brank 2\b|10\.77\.0\.2")
    check_named(ranks[2:], [2], r"\brank [01]\b|10\.77\.0\.1")


@pytest.mark.parametrize("cut", CUTS)
def test_cut_network_ends_both_sides_and_names_the_other(
    cut: Callable[[TwoHosts], None], quick: QuickStart, folder: Path
) -> None:
    check_both_sides(run_and_cut(quick, folder, f"cut-{cut.__name__}", cut, begin=start))


@nightly
@pytest.mark.parametrize("cut", [link_down, silent_one_way, silent_other_way])
def test_cut_network_under_torchrun_ends_both_sides(
    cut: Callable[[TwoHosts], None], quick: QuickStart, folder: Path
) -> None:
    name, timeout_s = f"torchrun-{cut.__name__}", TORCHRUN_TIMEOUT_S
    agents = run_and_cut(quick, folder, name, cut, begin=start_by_torchrun, timeout_s=timeout_s)
    check_named(agents[:1], [0, 1], r"\brank 2\b|10\.77\.0\.2")
    check_named(agents[1:], [2], r"\brank [01]\b|10\.77\.0\.1|store")


@nightly
def test_relay_that_stops_is_a_cut_network(quick: QuickStart, folder: Path) -> None:
    relay = Relay(delay_s=0.001)
    ranks = run_and_cut(quick, folder, "stopped", lambda _: setattr(relay, "loss", 1.0), begin=start, relay=relay)
    check_both_sides(ranks)


@pytest.mark.parametrize(
    ("kind", "relay"),
    [
        pytest.param("rate", None, id="2 Mbit/s"),
        pytest.param("latency", Relay(delay_s=0.05), id="50 ms each way", marks=nightly),
        pytest.param("loss", Relay(delay_s=0.002, loss=0.02), id="2 % lost", marks=nightly),
    ],
)
def test_slow_network_is_no_failure_and_changes_nothing(
    kind: str, relay: Relay | None, quick: QuickStart, folder: Path
) -> None:
    name = settings(folder, f"slow-{kind}", steps=STEPS, timeout_s=60.0).removesuffix(".toml")
    with TwoHosts(relay) as hosts:
        if kind == "rate":
            hosts.throttle("2mbit", "16kbit", "400ms")
        ranks = start(quick, hosts, folder, name, "--metrics", f"{name}.jsonl")
        try:
            ended = quick.ended(*ranks, seconds=240)
            assert ended, [rank.said()[-2000:] for rank in ranks]
        finally:
            quick.end_all()
    assert [rank.code for rank in ranks] == [0, 0, 0], [rank.said()[-2000:] for rank in ranks]
    assert losses(folder / f"{name}.jsonl") == losses(folder / "whole.jsonl"), "to the last bit"


@pytest.fixture(scope="module")
def on_device(quick: QuickStart, folder: Path) -> list[tuple[float, float]]:
    """What three ranks of one host come to on the late device."""
    settings(folder, "device-whole", steps=4, timeout_s=60.0, precision="bf16")
    ranks = start_ranks(
        quick, folder, len(SIDES), ["device-whole.toml", "--metrics", "device.jsonl"], "device-whole", module="on_late"
    )
    assert quick.ended(*ranks, seconds=240)
    assert [rank.code for rank in ranks] == [0] * len(SIDES), [rank.said()[-2000:] for rank in ranks]
    return losses(folder / "device.jsonl")


@pytest.mark.parametrize("begin", [start, pytest.param(start_by_torchrun, marks=nightly)])
def test_training_on_a_device_over_two_hosts(
    begin: Callable[..., list[Program]], quick: QuickStart, folder: Path, on_device: list[tuple[float, float]]
) -> None:
    """The late device: CPU tensors and those of the device cross the link, in one group."""
    name = f"device-{begin.__name__}"
    settings(folder, name, steps=4, timeout_s=60.0, precision="bf16")
    with TwoHosts() as hosts:
        programs = begin(quick, hosts, folder, name, "--metrics", f"{name}.jsonl", module="on_late")
        try:
            assert quick.ended(*programs, seconds=240), [program.said()[-2000:] for program in programs]
        finally:
            quick.end_all()
    assert {program.code for program in programs} == {0}, [program.said()[-2000:] for program in programs]
    # By torchrun, a rank that is alone on its side takes more threads, which sum in another order.
    same = on_device if begin is start else [pytest.approx(row, rel=1e-4) for row in on_device]
    assert losses(folder / f"{name}.jsonl") == same


@nightly
def test_cut_network_ends_both_sides_on_a_device(quick: QuickStart, folder: Path) -> None:
    check_both_sides(run_and_cut(quick, folder, "device-cut", link_down, begin=start_on_device, precision="bf16"))


def losses(file: Path) -> list[tuple[float, float]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [(row["loss"], row["grad_norm"]) for row in rows]
