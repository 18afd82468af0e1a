"""Qwen3-VL on shards of packed sequences (Hugging Face transformers, models/qwen3_vl)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from dhp._core import Cluster, Task
from dhp.data.text import IGNORED
from dhp.run.runtime import Run
from dhp.task.input import TaskInput
from dhp.task.layout import TaskLayout


@dataclass(frozen=True)
class Group:
    """What attention needs to know of the task at hand; travels through the model as the argument `dhp`."""

    seq_tokens: list[int]  # padded global lengths
    ranks: list[int]  # of the default process group, in ring order
    traffic: str
    exchange: str
    nodes: list[int]  # of each of `ranks`; empty: all on one


def group_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # [1, Hq, T_local, D]
    key: torch.Tensor,  # [1, Hkv, T_local, D]
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    dhp: Group | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls: causal, packed, over the group's ranks. [1, T_local, Hq, D]"""
    if dhp is None:
        raise RuntimeError(
            "this model is attached to DHP: call it through its adapter, or dhp.models.detach(model) first"
        )
    if dropout:
        raise RuntimeError(f"attention_dropout is {dropout}: ring attention has no dropout, set it to 0")
    if torch.is_autocast_enabled(query.device.type):  # as autocast does for PyTorch's own attention
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    out = torch.ops.dhp.ring_attention(
        q, k, v, dhp.seq_tokens, dhp.ranks, dhp.traffic, scaling, True, dhp.exchange, dhp.nodes
    )
    return out.unsqueeze(0), None


# No mask function is registered with it on purpose: transformers then passes no mask, which is what packing needs.
AttentionInterface.register("dhp", group_attention)


class Qwen3VLAdapter:
    """See `dhp.models.Adapter`."""

    def __init__(self, model: Any, run: Run, cluster: Cluster | None = None) -> None:
        self.model = model
        self.run = run
        self._cluster = cluster
        model.set_attn_implementation({"text_config": "dhp", "vision_config": "sdpa"})
        self._vision = model.model.visual
        multiply_patches(self._vision.patch_embed.proj)
        self._text = model.model.language_model
        self._row_width = model.config.text_config.hidden_size * (1 + len(self._vision.deepstack_visual_indexes))

    def loss(self, task_input: TaskInput, task: Task, valid_tokens: int) -> torch.Tensor:
        layout = task_input.layout
        nodes = [self._cluster.node_of(rank) for rank in task.ranks] if self._cluster else []
        group = Group(layout.seq_tokens, self.run.group_of(task), self.run.traffic, task.exchange.name, nodes)
        device = next(self._text.parameters()).device
        ids, positions, labels = (x.to(device) for x in self._shard(task_input))
        embeds = self._text.embed_tokens(ids)  # [T_local, C]
        visual_mask = torch.zeros(1, len(ids), dtype=torch.bool, device=embeds.device)
        deepstack: list[torch.Tensor] = []
        if layout.has_vision:
            rows = self._visual_rows(layout, task_input.pixels, group).to(embeds.dtype)
            slots = torch.from_numpy(layout.visual_slots).to(embeds.device)
            merged, *deepstack = rows.split(embeds.shape[-1], dim=-1)
            embeds = embeds.index_copy(0, slots, merged)
            visual_mask[0, slots] = True
        hidden = self._text(
            inputs_embeds=embeds.unsqueeze(0),
            position_ids=positions,
            attention_mask=None,
            use_cache=False,
            visual_pos_masks=visual_mask,
            deepstack_visual_embeds=deepstack or None,
            dhp=group,
        ).last_hidden_state[0]
        return self._loss_sum(hidden, labels) / valid_tokens

    def _shard(self, task_input: TaskInput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """This rank's ids [T_local], M-RoPE positions [3, 1, T_local] and next-token labels [T_local].

        Positions and the shift of the labels are computed on whole sequences, then sharded: on a shard they would be
        wrong. Pads repeat position 0 and carry no label.
        """
        ids, positions, labels = [], [], []
        for encoded, grids, local in zip(
            task_input.encoded, task_input.layout.grids, task_input.layout.local_tokens, strict=True
        ):
            real = torch.from_numpy(np.where(local < len(encoded.input_ids), local, 0))
            pad = torch.from_numpy(local >= len(encoded.input_ids))
            whole_ids = torch.as_tensor(encoded.input_ids)
            shifted = torch.cat([torch.as_tensor(encoded.labels)[1:], torch.tensor([IGNORED])])
            ids.append(whole_ids[real])
            positions.append(self._positions(whole_ids, torch.as_tensor(encoded.media_type), grids)[:, :, real])
            labels.append(shifted[real].masked_fill(pad, IGNORED))
        return torch.cat(ids), torch.cat(positions, dim=-1), torch.cat(labels)

    def _positions(
        self, ids: torch.Tensor, media_type: torch.Tensor, grids: Sequence[tuple[int, int, int]]
    ) -> torch.Tensor:
        """[3, 1, T] of a whole sequence, by the model's own rule."""
        kinds = _kinds_of_media(media_type, grids, self._vision.spatial_merge_size)
        by_kind = {kind: [g for g, k in zip(grids, kinds, strict=True) if k == kind] for kind in (1, 2)}
        images, videos = (torch.tensor(by_kind[k]) if by_kind[k] else None for k in (1, 2))
        return self.model.model.get_rope_index(
            ids[None], media_type[None].to(torch.int32), image_grid_thw=images, video_grid_thw=videos
        )[0]

    def _visual_rows(self, layout: TaskLayout, pixels: torch.Tensor, group: Group) -> torch.Tensor:
        """[n, C * (1 + deepstack sets)]: the rows of this rank's visual tokens, in local order.

        Encodes the units dealt to this rank, and swaps rows with the other members once. A rank without a unit or
        without a visual token takes part all the same, forward and backward.
        """
        share = layout.shares[layout.position]
        device = next(self._vision.parameters()).device
        if share:
            grid = torch.tensor([[1, unit.height, unit.width] for unit in share], device=device)
            encoded = self._vision(pixels.to(device, self._vision.dtype), grid_thw=grid, return_dict=True)
            rows = torch.cat([encoded.pooler_output, *encoded.deepstack_features], dim=-1)
        else:
            trains = any(p.requires_grad for p in self._vision.parameters())
            rows = torch.empty(0, self._row_width, dtype=self._vision.dtype, device=device, requires_grad=trains)
            if torch.is_autocast_enabled(device.type):
                rows = rows.to(torch.get_autocast_dtype(device.type))
        arrived = torch.ops.dhp.exchange_rows(
            rows.index_select(0, torch.from_numpy(layout.send_order).to(device)),
            layout.send_counts,
            layout.receive_counts,
            group.ranks,
            group.traffic,
        )
        return arrived.index_select(0, torch.from_numpy(layout.receive_order).to(device))

    def _loss_sum(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Sum of token losses. Logits only where there is a label: the head is the widest matrix of the model."""
        labelled = labels != IGNORED
        logits = self.model.lm_head(hidden[labelled]).float()  # fp32 as in transformers' loss, also for fp64 models
        loss = torch.nn.functional.cross_entropy(logits, labels[labelled], reduction="sum")
        # Keeps ranks without a label connected: their backward is part of their peers' backward.
        return loss + 0.0 * hidden.sum() if not labelled.any() else loss


def multiply_patches(projection: torch.nn.Conv3d) -> None:
    """Makes the patch embedding one matrix product. A patch is as large as the kernel, so the convolution is one; on
    CPUs its own code takes four to five times as long, and a fifth of a small model's step."""
    if projection.kernel_size == projection.stride and not any(projection.padding) and projection.groups == 1:
        projection.forward = functools.partial(_product, projection)  # type: ignore[method-assign]


def _product(projection: torch.nn.Conv3d, patches: torch.Tensor) -> torch.Tensor:
    """[n, C, T, P, P] -> [n, E, 1, 1, 1], as the convolution gives it."""
    rows = torch.nn.functional.linear(patches.flatten(1), projection.weight.flatten(1), projection.bias)
    return rows[:, :, None, None, None]


def _kinds_of_media(media_type: torch.Tensor, grids: Sequence[tuple[int, int, int]], merge: int) -> list[int]:
    """1 (image) or 2 (video) of each medium: the kind of its first token."""
    kinds = media_type[media_type != 0].tolist()
    starts = np.cumsum([0, *(t * h * w // merge**2 for t, h, w in grids)])
    return [kinds[start] for start in starts[:-1]]
