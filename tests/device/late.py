"""The late device in Python: torch.device("late"), and the c10d backend "lateccl" (device.h, lateccl.h).

import late
late.arrange("lazy", "eager", seed=3)  # policies of compute and of transfers, before any use
dist.init_process_group("cpu:gloo,late:lateccl", ...)
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

NAME = os.environ.get("LATE_NAME", "late")  # of its type: "npu" for code that looks for one
BACKEND = f"cpu:gloo,{NAME}:lateccl"
_transfers = ["lazy"]


def _load() -> Any:
    folder = Path(os.environ.get("DHP_BUILD", Path(__file__).parents[2] / "build" / "release"))
    path = folder / "tests" / "device" / "late_device.so"
    if not path.exists():
        raise ImportError(f"{path}: missing; cmake --build build/release --target late_device")
    torch.utils.rename_privateuse1_backend(NAME)
    spec = importlib.util.spec_from_file_location("late_device", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


device = _load()


def _register() -> None:
    """What torch looks for as torch.late, by the rules for a device of one's own."""
    module: Any = types.ModuleType(f"torch.{NAME}")
    module.is_available = module.is_initialized = lambda: True
    module._is_in_bad_fork = lambda: False
    module.device_count = lambda: device.DEVICES
    module.current_device = lambda: torch.accelerator.current_device_index()
    module.set_device = lambda index: torch.accelerator.set_device_index(index)
    module.manual_seed_all = lambda seed: None
    module.get_rng_state = lambda device=None: torch.get_rng_state()
    module.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.synchronize = lambda index=None: device.synchronize()
    module.device = lambda index=0: contextlib.nullcontext()
    torch._register_device_module(NAME, module)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    sys.modules[f"torch.{NAME}"] = module
    dist.Backend.register_backend("lateccl", _make_backend, extended_api=True, devices=[NAME])


def _make_backend(options: Any, _: Any) -> Any:
    store = dist.PrefixStore("carrier", options.store)
    gloo = dist.ProcessGroupGloo(store, options.group_rank, options.group_size, timeout=options.timeout)
    return device.make_backend(gloo, _transfers[0])


_register()


def fuse() -> None:
    """Groups made from here on do as those of an older HCCL: they refuse to coalesce, and have a method instead."""
    device.set_coalescing(False)
    backend: Any = torch._C._distributed_c10d.Backend
    backend.batch_isend_irecv = lambda self, kinds, tensors, ranks: device.post_batch(self, kinds, tensors, ranks)


def arrange(compute: str, transfers: str, seed: int = 7) -> None:
    """The policies of the default stream, and of the groups made from here on; "serial": one queue for all."""
    device.seed(seed)
    if compute == "serial":
        device.make_serial()
    device.set_policy(0, "eager" if compute == "serial" else compute)
    _transfers[0] = transfers
