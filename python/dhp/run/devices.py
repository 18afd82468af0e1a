"""The device that a rank computes on, and the backends that carry its tensors between ranks."""

from __future__ import annotations

import collections
import functools
import os
import socket
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from dhp._core import InputError

NCCL_DEFAULTS = {
    # The run's own watch ends what hangs, and names who is to blame; NCCL's counts from when an operation is enqueued,
    # which is long before it can start where hosts run ahead, and takes the process down without a word of DHP's.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    # Several communicators keep the order in which the host has launched them.
    "NCCL_LAUNCH_ORDER_IMPLICIT": "1",
}
HCCL_DEFAULTS = {"HCCL_CONNECT_TIMEOUT": "7200"}  # the most that it takes: who does not come, the watch names
NEVER = timedelta(days=1)


def choose(wanted: str) -> torch.device:
    """The device of this rank. wanted: "auto" (the accelerator that torch finds, else the CPU), "cpu", or a kind of
    accelerator: "cuda", "npu". LOCAL_RANK says which of several. Makes it the current one. To be called in the rank's
    own process: one that has asked CUDA for devices cannot be forked.

    Raises InputError if there is no such device, or fewer than ranks on this machine.
    """
    kind = _kind_of(wanted)
    if kind == "cpu":
        return torch.device("cpu")
    index, count = int(os.environ.get("LOCAL_RANK", "0")), torch.accelerator.device_count()
    if index >= count:
        raise InputError(
            f"device: this is rank {index} of its machine (LOCAL_RANK), but there are {count} devices of type {kind}: "
            "a rank has one of its own; start fewer ranks, or take device cpu"
        )
    torch.accelerator.set_device_index(index)
    return torch.device(kind, index)


def check(wanted: str, ranks: int) -> str:
    """The kind of device of each of so many ranks of this machine, before there are any: to be called in a process that
    ends before they start. Raises InputError for what `choose` would refuse on one of them."""
    kind = _kind_of(wanted)
    if kind != "cpu" and ranks > (count := torch.accelerator.device_count()):
        raise InputError(
            f"device: {ranks} ranks were to start here, but there are {count} devices of type {kind}: a rank has one "
            f"of its own; start at most {count} with --ranks, or take device cpu"
        )
    return kind


def _kind_of(wanted: str) -> str:
    found = torch.accelerator.current_accelerator(check_available=True)
    kind = (found.type if found else "cpu") if wanted == "auto" else wanted
    if kind == "cpu":
        return kind
    if found is None or found.type != kind:
        here = f"torch {torch.__version__} finds {found.type}" if found else f"torch {torch.__version__} finds none"
        raise InputError(f"device: found {wanted!r}, but {here} here; expected auto, cpu or what there is")
    if kind not in dist.Backend.default_device_backend_map:
        raise InputError(f"device: torch knows no backend that carries tensors on {kind}; expected cpu")
    return kind


def model_of(wanted: str) -> str:
    """What its maker calls the device that `choose` would take ("NVIDIA H100 80GB HBM3"); empty for CPUs, and where
    torch does not tell."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if wanted == "cpu" or found is None:
        return ""
    tell = getattr(torch.get_device_module(found), "get_device_name", None)
    return str(tell(0)) if tell else ""


def backend_of(device: torch.device) -> str:
    """For torch.distributed: CPU tensors, which are small, over Gloo; those on the device over its own backend."""
    if device.type == "cpu":
        return "gloo"
    for name, value in {"cuda": NCCL_DEFAULTS, "npu": HCCL_DEFAULTS}.get(device.type, {}).items():
        os.environ.setdefault(name, value)
    return f"cpu:gloo,{far_backend_of(device)}"


def far_backend_of(device: torch.device) -> str:
    """For the group that carries transfers between nodes, of tensors on the device alone."""
    return f"{device.type}:{dist.Backend.default_device_backend_map[device.type]}"


def node_of_this_rank(rank: int) -> str:
    """The same for the ranks of a machine: its name, and its first rank, as far as LOCAL_RANK tells."""
    local = os.environ.get("LOCAL_RANK", "")
    return f"{socket.gethostname()} {rank - int(local) if local.isdigit() else ''}"


def options_of(device: torch.device) -> Any:
    """Of a traffic group. Without priority, transfers would wait for the attention kernels they should hide behind."""
    return dist.ProcessGroupNCCL.Options(is_high_priority_stream=True) if device.type == "cuda" else None


def leave_time_outs_to_the_watch(group: dist.ProcessGroup, device: torch.device) -> None:
    """Gloo keeps its own time-out, which only ends what the watch has left."""
    if device.type == "cuda":
        group._get_backend(device)._set_default_timeout(NEVER)


def read_together(scalars: list[torch.Tensor]) -> list[float]:
    """Their values, in one wait of the host, where any is on a device."""
    if not scalars:
        return []
    device = next((x.device for x in scalars if x.device.type != "cpu"), scalars[0].device)
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in scalars))
    values: list[float] = torch.stack([x.to(device, dtype) for x in scalars]).tolist()
    return values


def pin(device: torch.device, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """In memory that `device` reads by itself, in any thread; for a CPU, and of those on the device, the same
    tensors."""
    if device.type == "cpu":
        return list(tensors)
    torch.accelerator.set_device_index(device)  # of this thread
    return [tensor.pin_memory() if tensor.device.type == "cpu" else tensor for tensor in tensors]


class Uploads:
    """Tensors of the host, copied to a device without waiting for it: from pinned memory, which lives until it has been
    read."""

    def __init__(self) -> None:
        self._pending: collections.deque[tuple[torch.Event, list[torch.Tensor]]] = collections.deque()

    def __call__(self, device: torch.device, *tensors: torch.Tensor) -> list[torch.Tensor]:
        """On a CPU the same tensors, and those that are on the device already."""
        if device.type == "cpu":
            return list(tensors)
        while self._pending and self._pending[0][0].query():
            self._pending.popleft()
        pinned = pin(device, *tensors)  # the same, where they are so already
        copies = [tensor.to(device, non_blocking=True) for tensor in pinned]
        copied = torch.Event(device)
        copied.record()
        self._pending.append((copied, [tensor for tensor in pinned if tensor.device.type == "cpu"]))
        return copies
