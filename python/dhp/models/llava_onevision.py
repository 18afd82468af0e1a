"""LLaVA-OneVision: tiles of a picture become rows together, and rows end with a vector that says so."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dhp.data.placeholders import MediumShape
from dhp.data.text import Encoded
from dhp.models.families import Family, Media, Upload
from dhp.task.layout import Unit
from dhp.task.made import MadeMedium


class LlavaOneVision(Family):
    """A unit is a picture with all its tiles, since cutting off what only pads the picture, and the vector behind each
    line, need the whole; or a frame of a clip, the last one with one vector more. A picture that stands alone in its
    sample has a view of the whole and then tiles; one among several is a single tile."""

    aligner = re.compile(r"\.(multi_modal_projector|image_newline)\b")
    units_apart = False

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        [pixels] = upload(pixels)
        tiles = pixels.split([self._tiles(unit.patches) for unit in units])  # of each unit
        rows: dict[int, torch.Tensor] = {}
        for encode, chosen in self._by_kind(units, media).items():
            shapes = [media[units[i].sequence][units[i].medium] for i in chosen]
            together = getattr(self, encode)(torch.cat([tiles[i] for i in chosen]), shapes, [units[i] for i in chosen])
            rows |= dict(zip(chosen, together, strict=True))
        return torch.cat([rows[i] for i in range(len(units))])

    def _by_kind(self, units: Sequence[Unit], media: Media) -> dict[str, list[int]]:
        """Positions of units by the method that encodes them."""
        kinds: dict[str, list[int]] = {}
        for i, unit in enumerate(units):
            clip = media[unit.sequence][unit.medium].kind == "video"
            kinds.setdefault("_frames" if clip else "_tiled" if self._tiles(unit.patches) > 1 else "_plain", []).append(
                i
            )
        return kinds

    def _tiled(self, tiles: torch.Tensor, shapes: Sequence[MediumShape], _: Sequence[Unit]) -> list[torch.Tensor]:
        return list(self.base.get_image_features(tiles, _sizes(shapes), return_dict=True).pooler_output)

    def _plain(self, tiles: torch.Tensor, shapes: Sequence[MediumShape], _: Sequence[Unit]) -> list[torch.Tensor]:
        several = torch.tensor([max(2, len(shapes))])  # as one of them: no picture is the only one of its sample
        found = self.base.get_image_features(tiles, _sizes(shapes), batch_num_images=several, return_dict=True)
        return list(found.pooler_output)

    def _frames(self, frames: torch.Tensor, _: Sequence[MediumShape], units: Sequence[Unit]) -> list[torch.Tensor]:
        [found] = self.base.get_video_features(frames[None], return_dict=True).pooler_output
        end = found[-1:]
        each = found[:-1].split((len(found) - 1) // len(units))
        return [
            torch.cat([rows, end]) if unit.rows > len(rows) else rows for rows, unit in zip(each, units, strict=True)
        ]

    def _tiles(self, patches: int) -> int:
        return patches // (self._side() // self._patch()) ** 2

    # To make up samples, and to hand them to the model alone.

    def shapes_to_try(self) -> list[MadeMedium]:
        side = self._side()
        pictures = [self._picture(*size, alone=True) for size in ((side, side), (2 * side, side), (side + 3, 3 * side))]
        return [pictures[0], self._clip(3), *pictures[1:]]  # of one sample each: the first and the last, with tiles

    def _picture(self, height: int, width: int, alone: bool) -> MadeMedium:
        patches = self._side() // self._patch()
        made = MadeMedium("image", (1, patches, patches), 0, height=height, width=width)
        if alone:
            from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

            tiles = image_size_to_num_patches((height, width), self.model.config.image_grid_pinpoints, self._side())
            made = dataclasses.replace(made, grid=(1, tiles * patches, patches))
        with torch.no_grad():
            blank = torch.zeros(self._tiles(made.unit_patches), 3, self._side(), self._side(), dtype=self.model.dtype)
            encode = self._tiled if alone else self._plain
            [rows] = encode(blank.to(self.model.device), [made], [])
        return dataclasses.replace(made, unit_rows=len(rows))

    def _clip(self, frames: int) -> MadeMedium:
        patches = self._side() // self._patch()
        rows = math.ceil(patches / 2) ** 2
        return MadeMedium("video", (frames, patches, patches), rows, last_rows=rows + 1)

    def in_one_sample(self, media: Sequence[MadeMedium]) -> list[MadeMedium]:
        """A picture has tiles where it is the only one."""
        if sum(medium.kind == "image" for medium in media) < 2:
            return list(media)
        return [
            self._picture(medium.height, medium.width, alone=False) if medium.kind == "image" else medium
            for medium in media
        ]

    def random_pixels(self, medium: MadeMedium, generator: np.random.Generator) -> torch.Tensor:
        side = self._side()
        tiles = self._tiles(medium.unit_sizes.all_patches)
        return self._random((tiles, 3, side, side), generator)

    def alone(self, encoded: Encoded, media: Sequence[MadeMedium], pixels: Sequence[torch.Tensor]) -> dict[str, Any]:
        given: dict[str, Any] = {"input_ids": torch.from_numpy(encoded.input_ids)[None]}
        pictures = [i for i, medium in enumerate(media) if medium.kind == "image"]
        if pictures:
            given |= {"pixel_values": torch.cat([pixels[i] for i in pictures])}
            given |= {"image_sizes": _sizes([media[i] for i in pictures])}
            given |= {"batch_num_images": torch.tensor([len(pictures)])}
        clips = [pixels[i] for i, medium in enumerate(media) if medium.kind == "video"]
        return given | ({"pixel_values_videos": torch.stack(clips)} if clips else {})


def _sizes(shapes: Sequence[MediumShape]) -> torch.Tensor:
    """[pictures, 2]: of the files. On the host, where the model reads them."""
    return torch.tensor([[shape.height, shape.width] for shape in shapes])
