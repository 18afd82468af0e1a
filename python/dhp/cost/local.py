"""Cluster and cost of local ranks, where no files are given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dhp._core import (
    Cluster,
    CostModel,
    Freeze,
    InputError,
    Link,
    Recompute,
    activation_budget_bytes,
    analytic_cost,
    device_presets,
    read_device,
)

NOTHING_FROZEN = Freeze()
# Families that the core does not count.
COUNTED_BY_PARTS = (
    *("glm4v", "glm4v_moe", "idefics3", "llava", "llava_onevision", "mistral3", "smolvlm"),
    *("qwen2_5_omni", "qwen2_5_omni_thinker"),
)
# Bytes a parameter that a rank of `dhp train` holds, by precision: weights; gradients; and, shared by the ranks, sums
# of gradients, two moments, and fp32 copies of 16-bit weights (step/sharded.py).
STATE_BYTES = {
    "fp32": (4.0, 4.0, 4.0 + 8.0),
    "bf16": (4.0, 4.0, 4.0 + 8.0),
    "bf16_weights": (2.0, 2.0, 4.0 + 8.0 + 4.0),
    "fp64": (8.0, 8.0, 8.0 + 16.0),
}
# And what autocast keeps while a task runs: 16-bit copies of what matrices are multiplied with, all but all parameters.
AUTOCAST_BYTES = {"bf16": 2.0}


def preset_at_hand(device: str, setting: str) -> str:
    """The preset of `dhp cost` for what a run on `device` (auto, cpu, cuda, npu) computes on here. Raises InputError
    where there is none; `setting` is what to name one by."""
    from dhp.run import devices  # torch: only where it is needed

    model = devices.model_of(device)
    if not model:
        return "local-cpu"
    presets = [preset.name for preset in device_presets()]
    for preset in presets:
        name = re.sub("[^a-z0-9]", "", preset)  # makers add a digit: Ascend910B2
        if any(re.fullmatch(f"{name}[0-9]?", word) for word in re.split("[^a-z0-9]+", model.lower())):
            return preset
    raise InputError(
        f"{setting}: there is no preset for this device, {model}; set it to one that is alike ({', '.join(presets)}), "
        "or measure a cost file with dhp calibrate"
    )


def local_cluster(ranks: int, *, device: str = "local-cpu", capacity_tokens: int = 0) -> Cluster:
    """One node of `ranks` ranks. Loopback links (assumed: 2 GB/s, 50 us), the device preset's memory, or, with
    `capacity_tokens`, a memory that counts tokens (see `local_cost`)."""
    link = Link(bandwidth_bytes_per_s=2e9, latency_s=5e-5)
    memory = float(capacity_tokens) or read_device(device).memory_bytes
    return Cluster(nodes=1, ranks_per_node=ranks, memory_bytes=memory, intra_node=link, inter_node=link)


def local_cost(
    model: str | Path,
    ranks: int,
    *,
    device: str = "local-cpu",
    recompute: bool | Recompute = True,
    freeze: Freeze = NOTHING_FROZEN,
    capacity_tokens: int = 0,
    precision: str = "bf16",
    lora_rank: int = 0,
) -> CostModel:
    """Cost counted from the checkpoint folder's config.json. With `capacity_tokens`, a rank may hold that many
    tokens of any kind in a task: each counts as one byte, and nothing else counts. `precision`: of `dhp train`, which
    decides what parameters, gradients and the optimizer hold. `lora_rank`: adapters on all linear layers of the
    language model alone train, whatever `lora_target` says."""
    config = Path(model) / "config.json"
    try:
        text = config.read_text()
    except OSError as error:
        raise InputError(f"{config}: cannot be read ({error.strerror})") from None
    weights, *others = STATE_BYTES[precision]
    state = (weights + AUTOCAST_BYTES.get(precision, 0.0), *others)
    options: dict[str, Any] = {"device": device, "ranks": ranks, "state": state}
    how = recompute if isinstance(recompute, Recompute) else Recompute.full if recompute else Recompute.none
    try:
        cost = analytic_cost(text, str(config), recompute=how, freeze=freeze, lora_rank=lora_rank, **options)
    except InputError:
        from dhp.cost.counted import cost_by_parts  # torch and transformers: only where they are needed
        from dhp.models import FAMILIES, family_of

        if family_of(model) in FAMILIES.keys() - set(COUNTED_BY_PARTS):
            raise
        counts_tokens = capacity_tokens > 0
        cost = cost_by_parts(
            model, recompute=how, freeze=freeze, lora_rank=lora_rank, counts_tokens=counts_tokens, **options
        )
    if capacity_tokens:
        cost.token_bytes, cost.patch_bytes, cost.state_bytes = 1.0, 0.0, 0.0
    return cost


def no_room(cost: CostModel, cluster: Cluster) -> str:
    """Why no rank can hold any sequence: the model's state takes all memory. Nothing where there is room."""
    if activation_budget_bytes(cost, cluster) > 0.0:
        return ""
    return (
        f"the model's state (parameters, gradients, optimizer, reserve) needs {_size(cost.state_bytes)} a rank; a rank "
        f"has {_size(cluster.memory_bytes)}, which leaves nothing for activations"
    )


def _size(count: float) -> str:
    """Bytes for people, four digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024.0:
            return f"{count:.4g} {unit}"
        count /= 1024.0
    return f"{count:.4g} TiB"
