"""The model that a run trains, and whether all ranks hold the same weights."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from dhp._core import InputError
from dhp.models import freeze, lora, unwrapped
from dhp.models.attention import head_size, kernel_for
from dhp.models.model_folder import load_weights
from dhp.run.runtime import RankFailed, Run
from dhp.settings.config import TrainConfig

# Of weights.
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "bf16_weights": torch.bfloat16, "fp64": torch.float64}


def compute_dtype(precision: str) -> torch.dtype:
    """Of what attention gets: with "bf16", autocast's."""
    return torch.bfloat16 if precision == "bf16" else DTYPES[precision]


def load_model(
    settings: TrainConfig, folder: str | Path, device: torch.device | None = None, adapters: Path | None = None
) -> Any:
    """The model to train, with the weights of the folder, on the device. With LoRA as peft wraps it, its adapters new
    or those of the checkpoint `adapters`, if there is one."""
    model = load_weights(folder, DTYPES[settings.precision])
    if device and device.type == "cuda":
        refuse_plain_attention(settings.precision, model.config.get_text_config(), device)
    if device and device.type != "cpu":
        model.to(device)
        model.tie_weights()  # .to() makes two tensors of one on devices whose tensors torch cannot move in place
    freeze(model, settings.frozen)
    if settings.lora_rank:
        model = lora.with_adapters(model, settings, adapters)
    model.train()
    if settings.recomputed != "none":
        recompute_layers(unwrapped(model), keep_attention=settings.recomputed == "keep_attention")
    return model


def recompute_layers(model: Any, keep_attention: bool = False) -> None:
    """Layers keep their inputs alone, and run again in the backward pass; with `keep_attention` also the output of
    attention, which then does not: no message is sent again."""
    how: dict[str, Any] = {"use_reentrant": False}
    if keep_attention:
        how["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _kept)
    enable = getattr(model, "activation_checkpointing_enable", None)  # since transformers 5.23
    (enable or model.gradient_checkpointing_enable)(how)


def _kept(context: Any, op: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    of_attention = op is torch.ops.dhp.ring_attention_with_lse.default
    return CheckpointPolicy.MUST_SAVE if of_attention else CheckpointPolicy.PREFER_RECOMPUTE


FUSED = {  # what a device's flash attention takes
    "cuda": "16 bits and head sizes that are multiples of 8 up to 256",
    "npu": "16 or 32 bits and head sizes that are multiples of 16 up to 768 (torch_npu's npu_fusion_attention)",
}


def refuse_plain_attention(precision: str, text: Any, device: torch.device) -> None:
    """Raises InputError where there is no flash attention for a run: plain algebra keeps whole score matrices."""
    if kernel_for(text, compute_dtype(precision), device) == "reference":
        raise InputError(
            f"precision: found {precision!r}, and the model has heads of {head_size(text)}: on {device.type} there is "
            f"flash attention for {FUSED.get(device.type, FUSED['cuda'])}, and plain algebra keeps "
            'whole score matrices; set precision = "bf16" or "bf16_weights", take another model, or device = "cpu"'
        )


def agree_on_weights(model: torch.nn.Module, run: Run) -> None:
    """Raises RankFailed on every rank unless all hold the same parameters and buffers, to the last bit: names the ranks
    that differ from most others, and the first tensor that does. Collective; one small reduction where all is well."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # 2 GB/s a core: eight seconds for 8B in 16 bits on one
        digests = torch.tensor(list(pool.map(_digest, tensors.values())), dtype=torch.int64)
    extremes = run.max(torch.cat([digests, -digests]))
    if torch.equal(extremes[: len(digests)], -extremes[len(digests) :]):
        return
    everyone = torch.zeros(run.world_size, len(digests), dtype=torch.int64)
    everyone[run.rank] = digests
    table = run.sum(everyone)
    first = next(i for i in range(len(digests)) if len(set(table[:, i].tolist())) > 1)
    counts = Counter(map(tuple, table.tolist()))
    usual, most = counts.most_common(1)[0]
    others = [rank for rank, row in enumerate(map(tuple, table.tolist())) if row != usual]
    who = (
        f"{'ranks' if len(others) > 1 else 'rank'} {', '.join(map(str, others))}"
        if most > run.world_size / 2
        else f"the {run.world_size} ranks"
    )
    differ = "differ from the other ranks'" if most > run.world_size / 2 else "differ from each other"
    raise RankFailed(
        f"the weights of {who} {differ}, first in {list(tensors)[first]}: the checkpoint, the settings, and the "
        "versions of torch and dhp must be the same everywhere; where they are, a machine computes wrongly"
    )


def _digest(tensor: torch.Tensor) -> int:
    """62 bits: their negative, too, is a number of 64."""
    content: Any = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 2
