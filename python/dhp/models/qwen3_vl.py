"""Qwen3-VL on shards of packed sequences (Hugging Face transformers, models/qwen3_vl)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import vision_utils

from dhp._core import Cluster, Task
from dhp.data.text import IGNORED
from dhp.models.attention import FRAMES, TEXT, Group
from dhp.run.devices import Uploads
from dhp.run.runtime import Run
from dhp.task.input import TaskInput
from dhp.task.layout import TaskLayout, Unit


class Qwen3VLAdapter:
    """See `dhp.models.Adapter`."""

    def __init__(self, model: Any, run: Run, cluster: Cluster | None = None) -> None:
        self.model = model
        self.run = run
        self._cluster = cluster
        model.set_attn_implementation({"text_config": TEXT, "vision_config": FRAMES})
        self._vision = model.model.visual
        multiply_patches(self._vision.patch_embed.proj)
        self._text = model.model.language_model
        add_deepstack_by_index(self._text.layers)
        self._uploads = Uploads()
        self._row_width = model.config.text_config.hidden_size * (1 + len(self._vision.deepstack_visual_indexes))

    def loss(self, task_input: TaskInput, task: Task, valid_tokens: int) -> torch.Tensor:
        layout = task_input.layout
        nodes = [self._cluster.node_of(rank) for rank in task.ranks] if self._cluster else []
        group = Group(layout.seq_tokens, self.run.group_of(task), self.run.traffic, task.exchange.name, nodes)
        ids, positions, labels, labelled = self._upload(*self._shard(task_input))
        embeds = self._text.embed_tokens(ids)  # [T_local, C]
        if layout.has_vision:
            rows = self._visual_rows(layout, task_input.pixels, group).to(embeds.dtype)
            [slots] = self._upload(torch.from_numpy(layout.visual_slots))
            merged, *deepstack = rows.split(embeds.shape[-1], dim=-1)
            embeds = embeds.index_copy(0, slots, merged)
            group = dataclasses.replace(group, visual_slots=slots, deepstack=tuple(deepstack))
        hidden = self._text(
            inputs_embeds=embeds.unsqueeze(0), position_ids=positions, attention_mask=None, use_cache=False, dhp=group
        ).last_hidden_state[0]
        return self._loss_sum(hidden, labels, labelled) / valid_tokens

    def _upload(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        return self._uploads(next(self._text.parameters()).device, *tensors)

    def _shard(self, task_input: TaskInput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """This rank's ids [T_local], M-RoPE positions [3, 1, T_local], next-token labels [n] and the tokens that have
        them [n], on the host.

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
        all_labels = torch.cat(labels)
        [labelled] = (all_labels != IGNORED).nonzero(as_tuple=True)
        return torch.cat(ids), torch.cat(positions, dim=-1), all_labels[labelled], labelled

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
        send_order, receive_order = self._upload(*map(torch.from_numpy, (layout.send_order, layout.receive_order)))
        if share:
            encoded = self._encode(share, pixels)
            rows = torch.cat([encoded.pooler_output, *encoded.deepstack_features], dim=-1)
        else:
            trains = any(p.requires_grad for p in self._vision.parameters())
            device = send_order.device
            rows = torch.empty(0, self._row_width, dtype=self._vision.dtype, device=device, requires_grad=trains)
            if torch.is_autocast_enabled(device.type):
                rows = rows.to(torch.get_autocast_dtype(device.type))
        arrived = torch.ops.dhp.exchange_rows(
            rows.index_select(0, send_order),
            layout.send_counts,
            layout.receive_counts,
            group.ranks,
            group.traffic,
        )
        return arrived.index_select(0, receive_order)

    def _encode(self, share: Sequence[Unit], pixels: torch.Tensor) -> Any:
        """The vision model's output for these units. What it would make of their sizes on the device, waiting for it,
        is made on the host."""
        vision = self._vision
        grid = torch.tensor([[1, unit.height, unit.width] for unit in share])
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=vision.num_grid_per_side,
            mode=vision.interpolation_mode,
            align_corners=vision.interpolation_align_corners,
            spatial_merge_size=vision.config.spatial_merge_size,
        )
        positions = vision_utils.get_vision_position_ids(grid, vision.spatial_merge_size)
        pixels, indices, weights, positions = self._upload(pixels, indices, weights, positions)
        frames = [unit.patches for unit in share]
        return vision(
            pixels.to(vision.dtype),
            grid_thw=grid,
            return_dict=True,
            interp_indices=indices,
            interp_weights=weights,
            position_ids=positions,
            cu_seqlens=vision_utils.get_vision_cu_seqlens(grid),  # on the host: attention takes frame_patches
            max_seqlen=max(frames),
            frame_patches=frames,
        )

    def _loss_sum(self, hidden: torch.Tensor, labels: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
        """Sum of token losses. Logits only where there is a label: the head is the widest matrix of the model."""
        # fp32 as in transformers' loss, also for fp64 models
        logits = self.model.lm_head(hidden.index_select(0, labelled)).float()
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        # Keeps ranks without a label connected: their backward is part of their peers' backward.
        return loss if len(labels) else loss + 0.0 * hidden.sum()


def add_deepstack_by_index(layers: torch.nn.ModuleList) -> None:
    """Adds the rows of `Group.deepstack` behind each layer. The model's own code adds by a mask, whose size the host
    waits for."""
    remove_deepstack_by_index(layers)
    for number, layer in enumerate(layers):
        hook = functools.partial(_add_rows, number)
        layer.__dict__["_dhp_deepstack"] = layer.register_forward_hook(hook, with_kwargs=True)


def remove_deepstack_by_index(layers: torch.nn.ModuleList) -> None:
    for layer in layers:
        if handle := layer.__dict__.pop("_dhp_deepstack", None):
            handle.remove()


def _add_rows(number: int, layer: Any, arguments: Any, named: dict[str, Any], hidden: torch.Tensor) -> torch.Tensor:
    group = named.get("dhp")
    if group is None or number >= len(group.deepstack):
        return hidden
    return hidden[0].index_add(0, group.visual_slots, group.deepstack[number].to(hidden.dtype)).unsqueeze(0)


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
