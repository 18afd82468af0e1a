"""AdamW whose sums of gradients, and whose state, are sharded over the ranks (ZeRO-1).

Trained parameters lie in buckets, one after the other, and each rank has an equal part of every bucket:

    bucket   | weight 0     | weight 1           | weight 2 |pad|
    parts    | rank 0          | rank 1          | rank 2       |

A rank gets the sums of its parts' gradients (reduce-scatter), steps AdamW on them, and gives all the new weights
(all-gather). That moves as many bytes as summing whole gradients, and holds 1/ranks of sums and state. Of weights of 16
bits, sums are fp32, and the rank that has a part keeps fp32 copies of it, which AdamW steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from dhp.run.devices import read_together
from dhp.run.runtime import Run
from dhp.step.gradients import buckets_of, used_somewhere

BUCKET_BYTES = 32 << 20
WINDOW_BYTES = 128 << 20  # of buckets on their way at once, or one: they overlap, and need memory for copies

MOMENTS = ("exp_avg", "exp_avg_sq")
MASTER = "master"  # in checkpoints: the fp32 copy of a weight of 16 bits

# torch 2.13 renamed them.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

Read: TypeAlias = Callable[[list[torch.Tensor]], list[float]]

HALF = (torch.bfloat16, torch.float16)


def sum_type(dtype: torch.dtype) -> torch.dtype:
    """Of sums of gradients, of moments, and of what AdamW steps."""
    return torch.float32 if dtype in HALF else dtype


def names_of(model: torch.nn.Module, adamw: ShardedAdamW) -> list[str]:
    """The names of the optimizer's parameters, in its own order."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return [name_of[id(p)] for p in adamw.parameters]


@dataclass(frozen=True)
class Piece:
    """What this rank's part of a bucket has of a parameter."""

    place: int  # of the parameter in `parameters`
    weight: torch.nn.Parameter  # [n]: a view of its values, or the fp32 copy; on one rank the parameter itself
    within: slice  # of the parameter, flat
    at: slice  # of the part


@dataclass(frozen=True)
class Bucket:
    """Consecutive parameters of one dtype."""

    places: list[int]
    part_size: int  # values; all parts together may be longer than the parameters
    pieces: list[Piece]


class ShardedAdamW:
    """`groups` are torch's parameter groups, `settings` those of torch.optim.AdamW. Every rank makes it alike, and
    calls reduce(), then step() or zero_grad(), after its last task of a step."""

    def __init__(self, groups: list[dict[str, Any]], run: Run, **settings: Any) -> None:
        self.parameters: list[torch.nn.Parameter] = [p for group in groups for p in group["params"]]
        self._run = run
        self._steps = [0] * len(self.parameters)  # in which each had a gradient
        self._used = [False] * len(self.parameters)  # in this step
        place = itertools.count()
        consecutive = buckets_of(self.parameters, BUCKET_BYTES)
        self._buckets = [self._bucket([next(place) for _ in bucket]) for bucket in consecutive]
        self._pieces = [piece for bucket in self._buckets for piece in bucket.pieces]
        ends = itertools.accumulate(len(group["params"]) for group in groups)
        starts = [0, *ends]
        of_pieces = [
            {**group, "params": [piece.weight for piece in self._pieces if start <= piece.place < end]}
            for group, (start, end) in zip(groups, itertools.pairwise(starts), strict=True)
        ]
        self._adamw = torch.optim.AdamW(of_pieces, **settings)

    def reduce(self, read: Read = read_together) -> tuple[bool, float]:
        """Sums gradients over all ranks. A gradient that is missing on some ranks counts as zero there; a parameter
        without one on *all* ranks is left alone, since a zero gradient would still let AdamW decay it.

        Returns whether this rank's own gradients were finite, and the norm of all sums together. With one rank they are
        not checked: the norm shows it. `read` gives the values of scalars on the device, which it is called with once.
        """
        if self._run.world_size == 1:
            self._used = [p.grad is not None for p in self.parameters]
            for piece in self._copies():
                p = self.parameters[piece.place]
                piece.weight.grad = None if p.grad is None else p.grad.float()
                p.grad = None
            return True, read([self._own_norm()])[0]
        self._used = used_somewhere(self.parameters, self._run)
        finite = []
        for window in self._windows():
            flats = [self._flat_gradients(bucket) for bucket in window]
            finite += [torch.isfinite(flat.sum()) for flat in flats]
            for part, bucket in zip(self._summed_parts(flats), window, strict=True):
                for piece in bucket.pieces:
                    piece.weight.grad = part[piece.at] if self._used[piece.place] else None
        own_norm, *own_finite = read([self._own_norm(), *finite])
        squares = self._run.sum(torch.tensor([own_norm * own_norm], dtype=torch.float64))
        return all(own_finite), math.sqrt(squares.item())

    def first_not_finite(self) -> int:
        """The place of the first parameter whose sum of gradients is not finite, or -1. Every rank calls it."""
        count = len(self.parameters)
        bad = [
            piece.place
            for piece in self._pieces
            if piece.weight.grad is not None and not bool(torch.isfinite(piece.weight.grad).all())
        ]
        first = self._run.max(torch.tensor([count - min(bad, default=count)]))
        return count - int(first) if int(first) else -1

    def clip(self, limit: float, norm: float) -> None:
        """Scales gradients of the norm `norm` down to `limit`."""
        scale = limit / (norm + 1e-6)  # as torch.nn.utils.clip_grad_norm_ has it
        if scale < 1 and (gradients := self._own_gradients()):
            torch._foreach_mul_(gradients, scale)

    def step(self, rate: float) -> None:
        """One step of AdamW with the learning rate `rate`; afterwards all ranks have all new weights."""
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        self._steps = [steps + used for steps, used in zip(self._steps, self._used, strict=True)]
        if self._run.world_size > 1:
            self._share_weights()
        else:
            for piece in self._copies():
                self.parameters[piece.place].data.copy_(piece.weight.data)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        self._adamw.zero_grad(set_to_none=True)
        for p in self.parameters:
            p.grad = None

    def gathered_state(self) -> dict[int, dict[str, torch.Tensor]]:
        """AdamW's state of whole parameters, by place, on rank 0, in the memory of the host; nothing on other ranks.
        Every rank calls it."""
        state: dict[int, dict[str, torch.Tensor]] = {}
        for bucket in self._buckets:
            stepped = [place for place in bucket.places if self._steps[place]]
            moments = (*MOMENTS, MASTER) if self.parameters[bucket.places[0]].dtype in HALF else MOMENTS
            for moment in moments if stepped else ():
                whole = self._gather(self._part_of(bucket, moment))
                for place, values in self._split(bucket, whole) if whole is not None else ():
                    if self._steps[place]:
                        steps = torch.tensor(float(self._steps[place]))
                        state.setdefault(place, {"step": steps})[moment] = values.clone()
        return state

    def load_state(self, state: dict[int, dict[str, torch.Tensor]]) -> None:
        """What gathered_state() returned on rank 0, of any number of ranks."""
        for place, values in state.items():
            self._steps[place] = int(values["step"])
            if MASTER in values and self.parameters[place].dtype not in HALF:  # weights had 16 bits then
                self.parameters[place].data.copy_(values[MASTER])
        for piece in self._pieces:
            if (whole := state.get(piece.place)) is None:
                continue
            weight = piece.weight
            own = {
                name: values.reshape(-1)[piece.within].view_as(weight)
                for name, values in whole.items()
                if name != "step"
            }
            if self.parameters[piece.place].dtype in HALF and MASTER in own:
                weight.data.copy_(own[MASTER])
            moments = {name: own[name].to(weight, copy=True) for name in MOMENTS}
            self._adamw.state[weight] = {"step": whole["step"].clone().float(), **moments}

    def _bucket(self, places: list[int]) -> Bucket:
        ranks, rank = self._run.world_size, self._run.rank
        part_size = -(-sum(self.parameters[place].numel() for place in places) // ranks)
        begin, end = rank * part_size, (rank + 1) * part_size
        pieces, offset = [], 0
        for place in places:
            p = self.parameters[place]
            p.data = p.data.contiguous()
            first, last = max(begin, offset), min(end, offset + p.numel())
            if first < last:
                within, at = slice(first - offset, last - offset), slice(first - begin, last - begin)
                pieces.append(Piece(place, self._weight_of(p, within), within, at))
            offset += p.numel()
        return Bucket(places, part_size, pieces)

    def _weight_of(self, p: torch.nn.Parameter, within: slice) -> torch.nn.Parameter:
        if self._run.world_size == 1:
            return torch.nn.Parameter(p.data.float()) if p.dtype in HALF else p
        return torch.nn.Parameter(p.data.view(-1)[within].to(sum_type(p.dtype)))

    def _copies(self) -> list[Piece]:
        """Pieces of one rank that are not the parameters themselves."""
        return [piece for piece in self._pieces if piece.weight is not self.parameters[piece.place]]

    def _own_gradients(self) -> list[torch.Tensor]:
        return [piece.weight.grad for piece in self._pieces if piece.weight.grad is not None]

    def _own_norm(self) -> torch.Tensor:
        return torch.nn.utils.get_total_norm(self._own_gradients())

    def _windows(self) -> Iterator[list[Bucket]]:
        """Buckets that this step changes, a few at a time."""
        window: list[Bucket] = []
        left = WINDOW_BYTES
        for bucket in self._buckets:
            if not any(self._used[place] for place in bucket.places):
                continue
            size = sum(self.parameters[place].nbytes for place in bucket.places)
            if window and size > left:
                yield window
                window, left = [], WINDOW_BYTES
            window.append(bucket)
            left -= size
        if window:
            yield window

    def _flat_gradients(self, bucket: Bucket) -> torch.Tensor:
        """[ranks * part_size]; the parameters' own gradients are gone."""
        first = self.parameters[bucket.places[0]]
        flat = first.new_zeros(self._run.world_size * bucket.part_size, dtype=sum_type(first.dtype))
        for place, values in self._split(bucket, flat):
            p = self.parameters[place]
            if p.grad is not None:
                values.copy_(p.grad)
                p.grad = None
        return flat

    def _summed_parts(self, flats: list[torch.Tensor]) -> list[torch.Tensor]:
        """This rank's part of each tensor's sum over all ranks. `flats` are used up."""
        run, ranks = self._run, self._run.world_size
        if run.device.type != "cpu":
            parts = [flat.new_empty(len(flat) // ranks) for flat in flats]
            self._wait_for("gradients", _reduce_scatter, parts, flats)
            return parts
        # Gloo's reduce-scatter is this with a copy of all, and its wait ends with the sum alone, not after a while.
        run.wait_for("gradients", lambda: [dist.all_reduce(flat, group=run.group, async_op=True) for flat in flats])
        return [flat.tensor_split(ranks)[run.rank].clone() for flat in flats]

    def _split(self, bucket: Bucket, flat: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """The parameters of a bucket in a flat tensor of it: place and view."""
        offset = 0
        for place in bucket.places:
            p = self.parameters[place]
            yield place, flat[offset : offset + p.numel()].view(p.shape)
            offset += p.numel()

    def _share_weights(self) -> None:
        for window in self._windows():
            parts = []
            for bucket in window:
                part = self.parameters[bucket.places[0]].new_zeros(bucket.part_size)
                for piece in bucket.pieces:
                    part[piece.at] = piece.weight.data
                parts.append(part)
            wholes = [part.new_empty(self._run.world_size * len(part)) for part in parts]
            self._wait_for("optimizer", _all_gather, wholes, parts)
            for bucket, whole in zip(window, wholes, strict=True):
                for place, values in self._split(bucket, whole):
                    self.parameters[place].data.copy_(values)

    def _wait_for(self, name: str, collective: Any, to: list[torch.Tensor], of: list[torch.Tensor]) -> None:
        """All are on their way before the first is waited for."""
        run = self._run
        pairs = list(zip(to, of, strict=True))
        on_device = run.device.type != "cpu"
        run.wait_for(
            name, lambda: [collective(a, b, group=run.group, async_op=True) for a, b in pairs], on_device=on_device
        )

    def _part_of(self, bucket: Bucket, moment: str) -> torch.Tensor:
        part = torch.zeros(bucket.part_size, dtype=sum_type(self.parameters[bucket.places[0]].dtype))
        for piece in bucket.pieces:
            if moment == MASTER:
                part[piece.at] = piece.weight.data.reshape(-1).cpu()
            elif piece.weight in self._adamw.state:
                part[piece.at] = self._adamw.state[piece.weight][moment].reshape(-1).cpu()
        return part

    def _gather(self, part: torch.Tensor) -> torch.Tensor | None:
        """All ranks' parts, on rank 0."""
        run = self._run
        if run.world_size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(run.world_size)] if run.rank == 0 else None
        run.wait_for(
            "state of the optimizer", lambda: [dist.gather(part, parts, run.members[0], run.group, async_op=True)]
        )
        return torch.cat(parts) if parts else None
