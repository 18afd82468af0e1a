"""Which device a rank takes, and what it says where there is none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dhp import Batch, CostModel, InputError, PassCost, Sequence
from dhp.cost import calibrate_links
from dhp.cost.local import local_cluster
from dhp.loop.inputs import cost_device
from dhp.run import devices, runtime
from dhp.run.planning import plan
from dhp.run.runtime import RankFailed
from dhp.settings.config import TrainConfig

PASS = PassCost(1e-5, 1e-9, 1e-4, 1e-5, 1e3, 1e3)
COST = CostModel("x", 2, 1e-4, 1e-6, PASS, PASS, 4, 2, token_bytes=1.0)


@pytest.fixture
def h100s(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As where there are four; the list of those made current."""
    current: list[int] = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    module = SimpleNamespace(get_device_name=lambda index: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    return current


def test_without_an_accelerator_ranks_compute_on_the_cpu() -> None:
    assert devices.choose("auto") == devices.choose("cpu") == torch.device("cpu")
    assert devices.backend_of(torch.device("cpu")) == "gloo"
    with pytest.raises(InputError, match=r"device: found 'cuda', but torch .* finds none here; expected auto, cpu or"):
        devices.choose("cuda")


def test_a_rank_takes_the_device_of_its_number(h100s: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert devices.choose("auto") == torch.device("cuda", 3)
    assert h100s == [3]
    assert devices.choose("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match=r"device: found 'npu', but torch .* finds cuda here"):
        devices.choose("npu")
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(InputError, match=r"rank 4 of its machine .* there are 4 devices of type cuda: .* start fewer"):
        devices.choose("cuda")


def test_ranks_that_no_device_is_left_for_are_refused_before_they_start(h100s: list[int]) -> None:
    for wanted, ranks in (("auto", 4), ("cuda", 4), ("cpu", 99)):
        devices.check(wanted, ranks)
    with pytest.raises(InputError, match=r"device: 5 ranks were to start here, but there are 4 .* at most 4 with"):
        devices.check("auto", 5)
    with pytest.raises(InputError, match=r"device: found 'npu', but torch .* finds cuda here"):
        devices.check("npu", 1)


def test_the_backends_of_a_group_and_what_nccl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in devices.NCCL_DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")  # the user's
    assert devices.backend_of(torch.device("cuda", 0)) == "cpu:gloo,cuda:nccl"
    told = {name: devices.os.environ[name] for name in devices.NCCL_DEFAULTS}
    assert told == devices.NCCL_DEFAULTS | {"TORCH_NCCL_DUMP_ON_TIMEOUT": "1"}
    for name in devices.NCCL_DEFAULTS:
        monkeypatch.delenv(name)


def test_the_backends_of_an_npu_and_what_hccl_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(devices.dist.Backend.default_device_backend_map, "npu", "hccl")  # as torch_npu does
    monkeypatch.setenv("HCCL_CONNECT_TIMEOUT", "")
    monkeypatch.delenv("HCCL_CONNECT_TIMEOUT")
    npu: Any = SimpleNamespace(type="npu")  # torch without torch_npu knows no such device
    assert devices.backend_of(npu) == "cpu:gloo,npu:hccl"
    assert devices.far_backend_of(npu) == "npu:hccl"
    assert devices.os.environ["HCCL_CONNECT_TIMEOUT"] == "7200"


def test_ranks_of_a_machine_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name and first rank; without LOCAL_RANK its name alone."""
    said = []
    for rank in range(6):
        monkeypatch.setenv("LOCAL_RANK", str(rank % 3))
        said.append(devices.node_of_this_rank(rank))
    assert len(set(said[:3])) == len(set(said[3:])) == 1
    assert said[0] != said[3]
    monkeypatch.delenv("LOCAL_RANK")
    assert devices.node_of_this_rank(1) == devices.node_of_this_rank(5)


@pytest.mark.parametrize("rows", [False, True])
def test_ranks_connect_for_the_rows_that_they_exchange(rows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of text alone there are none, but for a router loss."""
    seen: list[bool] = []
    monkeypatch.setattr(torch.ops.dhp, "connect", lambda *given: seen.append(given[-1]) or 1, raising=False)
    monkeypatch.setattr(runtime, "agree_on", lambda plan, run: None)
    run: Any = SimpleNamespace(device=torch.device("meta"), rank=0, traffic="", group_of=lambda task: list(task.ranks))
    batch, cluster = Batch([Sequence(0, 900)]), local_cluster(2, capacity_tokens=500)
    made = plan(batch, cluster, COST, run=run, rows=rows)
    assert [len(task.ranks) for task in made.tasks] == [2]
    assert seen == [rows]


def test_links_of_devices_are_measured_under_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is ended and told; seconds of transfers that were aborted are not taken."""
    seen: list[str] = []
    work = SimpleNamespace(boxed=lambda: "work", wait=lambda: seen.append("wait"))
    monkeypatch.setattr(torch.ops.dhp, "watch_work", lambda group, *_: seen.append(f"watch {group}"), raising=False)
    monkeypatch.setattr(calibrate_links.dist, "batch_isend_irecv", lambda operations: [work])
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: seen.append("synchronize"))
    event = SimpleNamespace(record=lambda: None, elapsed_time=lambda other: 1.0)
    monkeypatch.setattr(torch, "Event", lambda *_, **__: event)

    def aborted() -> None:
        raise RankFailed("rank 1 was lost")

    run: Any = SimpleNamespace(device=torch.device("meta"), traffic="t", check_device=aborted)
    with pytest.raises(RankFailed):
        calibrate_links._median_s(run, lambda: calibrate_links._transfer(run, []), 1, 0)
    assert seen == ["watch t", "wait"] * 2 + ["synchronize"]


def test_costs_are_counted_for_the_device_found(h100s: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(model="m", data="d")
    assert cost_device(config) == "h100"
    assert cost_device(TrainConfig(model="m", data="d", device="cpu")) == "local-cpu"
    assert cost_device(TrainConfig(model="m", data="d", cost_device="b200")) == "b200"
    for name, preset in (("Ascend910B2", "ascend-910b"), ("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA B200", "b200")):
        module = SimpleNamespace(get_device_name=lambda index, name=name: name)
        monkeypatch.setattr(torch, "get_device_module", lambda device, module=module: module)
        assert cost_device(config) == preset
    module = SimpleNamespace(get_device_name=lambda index: "NVIDIA L40S")
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    with pytest.raises(InputError, match="cost_device: there is no preset for this device, NVIDIA L40S; set it to one"):
        cost_device(config)
