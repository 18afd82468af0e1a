"""A Hugging Face model on shards of packed sequences, through its own forward.

What a family does in its own way is in families.py; this is the same for all: ids, positions and labels of whole
sequences are cut into shards, rows of pictures travel to the ranks that hold their tokens, and the model itself does
the rest on embeddings.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from dhp._core import Cluster, InputError, Task
from dhp.data.text import IGNORED, Encoded
from dhp.models import compiled, deepstack, guards, router_loss, whole_rope
from dhp.models.attention import TEXT, Group, attend_by
from dhp.models.families import Family
from dhp.models.loss import token_loss_sum
from dhp.run.devices import Uploads, pin
from dhp.run.ops import packed_call
from dhp.run.runtime import Run
from dhp.task.input import TaskInput
from dhp.task.layout import TaskLayout


@dataclasses.dataclass(frozen=True)
class Made:
    """What is made on the host of a task's input."""

    shard: list[torch.Tensor]  # ids, positions, labels, and which tokens have them
    slots: torch.Tensor  # of visual tokens among this rank's
    send_order: torch.Tensor
    receive_order: torch.Tensor


class ModelAdapter:
    """See `dhp.models.Adapter`."""

    def __init__(
        self, family: Family, run: Run, cluster: Cluster | None = None, compile_by: compiled.Backend | None = None
    ) -> None:
        self.family, self.model, self.run = family, family.model, run
        self._cluster = cluster
        self._text = family.text
        guards.check_config(self._text.config)
        attend_by(TEXT, self._text)
        family.prepare()
        if family.deepstack:
            deepstack.add_by_index(self._text.layers)
        self._rope = whole_rope.wrap(self._text)
        self._router = router_loss.of(self.model, self._text)
        self.exchanges_rows = self._router is not None
        self._uploads = Uploads()
        self._row_width = self._text.config.hidden_size * (1 + family.deepstack)
        self._vision = family.encoder_parameters
        self._checked = False  # whether it is seen that every layer attends
        if compile_by is not None:
            self._try_layers()  # compiled ones are not seen to attend
            compiled.compile_layers(self._text.layers, compile_by)

    def loss(self, task_input: TaskInput, task: Task, valid_tokens: int) -> torch.Tensor:
        layout = task_input.layout
        made = task_input.made or self._make(task_input)
        nodes = [self._cluster.node_of(rank) for rank in task.ranks] if self._cluster else []
        ranks = self.run.group_of(task)
        group = Group(ranks, self.run.traffic, packed_call(layout.seq_tokens, ranks, task.exchange.name, nodes))
        ids, positions, labels, labelled = self._upload(*made.shard)
        # [1, T_local, C], and no view of other shapes: of that, compiled layers would be other programs
        embeds = self.model.get_input_embeddings()(ids[None])
        if layout.has_vision:
            rows = self._visual_rows(task_input, made, group).to(embeds.dtype)
            [slots] = self._upload(made.slots)
            merged, *deeper = rows.split(embeds.shape[-1], dim=-1)
            embeds = embeds.index_copy(1, slots, merged[None])
            group = dataclasses.replace(group, visual_slots=slots, deepstack=tuple(deeper))
        if self._rope:
            self._rope.begin(layout, self._upload)
        out = self._through_layers(embeds, positions, group)
        hidden = out.last_hidden_state[0]
        loss = self._loss_sum(hidden, labels, labelled) / valid_tokens
        if self._router:
            loss = loss + self._router.loss(out, task_input, valid_tokens, group, self._upload)
        return loss

    def _through_layers(self, embeds: torch.Tensor, positions: torch.Tensor, group: Group) -> Any:
        out = self.family.base(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=None,
            use_cache=False,
            dhp=group,
            **self._router.asks if self._router else {},
        )
        self._check_layers(group)
        return out

    def _try_layers(self) -> None:
        """Two tokens of text on this rank alone."""
        ids = self.family.text_ids()[:2]
        encoded = [Encoded(ids, ids, np.zeros(2, np.int8))]
        task_input = TaskInput(TaskLayout.of(1, 0, encoded, [[]]), encoded, [[]], torch.empty(0))
        uploaded, positions, _, _ = self._upload(*self._shard(task_input))
        if self._rope:
            self._rope.begin(task_input.layout, self._upload)
        with torch.no_grad():
            embeds = self.model.get_input_embeddings()(uploaded[None])
            self._through_layers(embeds, positions, Group([0], "", packed_call([2], [0])))

    def prepare(self, task_input: TaskInput) -> None:
        """Makes in this thread what `loss` would make on the host, in memory that the device reads by itself."""
        task_input.made = self._make(task_input)
        [task_input.pixels] = pin(self._device, task_input.pixels)

    def _make(self, task_input: TaskInput) -> Made:
        layout = task_input.layout
        tensors = [*self._shard(task_input), *map(torch.from_numpy, (layout.visual_slots, layout.send_order))]
        *shard, slots, send, receive = pin(self._device, *tensors, torch.from_numpy(layout.receive_order))
        return Made(shard, slots, send, receive)

    @property
    def _device(self) -> torch.device:
        return next(self._text.parameters()).device

    def _upload(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        return self._uploads(self._device, *tensors)

    def _shard(self, task_input: TaskInput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """This rank's ids [T_local], positions [1, T_local] or [3, 1, T_local], next-token labels [n] and the tokens
        that have them [n], on the host.

        Positions and the shift of the labels are computed on whole sequences, then sharded: on a shard they would be
        wrong. Pads repeat position 0 and carry no label.
        """
        ids, positions, labels = [], [], []
        for encoded, media, local in zip(
            task_input.encoded, task_input.media, task_input.layout.local_tokens, strict=True
        ):
            real = torch.from_numpy(np.where(local < len(encoded.input_ids), local, 0))
            pad = torch.from_numpy(local >= len(encoded.input_ids))
            shifted = torch.cat([torch.as_tensor(encoded.labels)[1:], torch.tensor([IGNORED])])
            ids.append(torch.as_tensor(encoded.input_ids)[real])
            positions.append(self.family.positions(encoded, media)[:, real])
            labels.append(shifted[real].masked_fill(pad, IGNORED))
        all_labels = torch.cat(labels)
        [labelled] = (all_labels != IGNORED).nonzero(as_tuple=True)
        at = torch.cat(positions, dim=-1)
        return torch.cat(ids), at if len(at) == 1 else at[:, None], all_labels[labelled], labelled

    def _visual_rows(self, task_input: TaskInput, made: Made, group: Group) -> torch.Tensor:
        """[n, C * (1 + deepstack sets)]: the rows of this rank's visual tokens, in local order.

        Encodes the units dealt to this rank, and swaps rows with the other members once. A rank without a unit or
        without a visual token takes part all the same, forward and backward.
        """
        layout: TaskLayout = task_input.layout
        share = layout.shares[layout.position]
        send_order, receive_order = self._upload(made.send_order, made.receive_order)
        trains = any(p.requires_grad for p in self._vision)  # else nothing is kept of the encoder
        if share:
            with torch.set_grad_enabled(trains):
                rows = self.family.encode(share, task_input.media, task_input.pixels, self._upload)
            if trains and not rows.requires_grad:  # as on members without a share, whatever it is that trains
                rows = rows.requires_grad_()
        else:
            device = send_order.device
            rows = torch.empty(0, self._row_width, dtype=self._vision[0].dtype, device=device, requires_grad=trains)
        # What the last layer of an encoder gives under autocast, a rank that encodes nothing cannot know.
        if torch.is_autocast_enabled(rows.device.type):
            rows = rows.to(torch.get_autocast_dtype(rows.device.type))
        arrived = torch.ops.dhp.exchange_rows(
            rows.index_select(0, send_order),
            layout.send_counts,
            layout.receive_counts,
            group.ranks,
            group.traffic,
        )
        return arrived.index_select(0, receive_order)

    def _check_layers(self, group: Group) -> None:
        """Once: a layer that does not call its attention (a recurrence, a convolution) would see its shard alone."""
        layers = self._text.config.num_hidden_layers
        if not self._checked and sorted(group.called) != list(range(layers)):
            raise InputError(
                f"{type(self.model).__name__}: of {layers} layers, {len(set(group.called))} call attention: the others "
                "would see no more of a sequence than this rank's tokens; take a model whose layers all attend"
            )
        self._checked = True

    def _loss_sum(self, hidden: torch.Tensor, labels: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
        """Sum of token losses. Logits only where there is a label: the head is the widest matrix of the model."""
        loss = token_loss_sum(self.model.get_output_embeddings(), hidden.index_select(0, labelled), labels)
        # Keeps ranks without a label connected: their backward is part of their peers' backward.
        return loss if len(labels) else loss + 0.0 * hidden.sum()
