"""What model families differ in: how units of pictures and clips are encoded, and how positions are counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dhp.data.placeholders import MediumShape
from dhp.data.text import Encoded
from dhp.task.layout import Unit
from dhp.task.made import MadeMedium

Upload = Callable[..., list[torch.Tensor]]
Media = Sequence[Sequence[MediumShape]]


class Family:
    """The defaults are those of models whose pictures are tiles of one size: pixels [tiles, 3, side, side], encoded one
    by one, and tokens counted 0, 1, 2, …"""

    # Names of parameters, as the whole model calls them: what maps vision to text, and other parts of vision.
    aligner = re.compile(r"\.(multi_modal_projector|connector)\.|\.visual\..*merger")
    vit = re.compile(r"\.(visual|vision_tower|vision_model)\.")
    deepstack = 0  # sets of rows that also enter after the first text layers
    units_apart = True  # whether text stands between the units of a clip
    mixes_kinds = True  # whether the model alone takes pictures and clips in one sample

    def __init__(self, model: Any) -> None:
        self.model = model
        self.base = model.base_model

    @property
    def text(self) -> Any:
        """The language model: what calls the layers, and has `config`."""
        return getattr(self.base, "language_model", None) or getattr(self.base, "text_model", None) or self.base

    @property
    def has_vision(self) -> bool:
        return self.text is not self.base

    @property
    def encoder_parameters(self) -> list[torch.nn.Parameter]:
        """Of all but the language model and its head."""
        head = self.model.get_output_embeddings()
        language = [*self.text.parameters(), *(head.parameters() if head is not None else ())]
        own = {id(parameter) for parameter in language}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in own]

    def prepare(self) -> None:
        """Changes to modules when the model is attached; `restore` undoes them."""

    def restore(self) -> None:
        """See `prepare`."""

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        """[rows, hidden * (1 + deepstack)] of these units, in order."""
        [pixels] = upload(pixels)
        return flat(self.base.get_image_features(pixels, return_dict=True).pooler_output)

    def positions(self, encoded: Encoded, media: Sequence[MediumShape]) -> torch.Tensor:
        """Of a whole sequence: [1 or 3, T]."""
        return torch.arange(len(encoded.input_ids))[None]

    # To make up samples, and to hand them to the model alone.

    def placeholder(self, kind: str) -> int:
        """The token that stands for a row of a picture or clip."""
        config = self.model.config
        return int(getattr(config, f"{kind}_token_id", None) or config.image_token_id)

    def text_ids(self) -> npt.NDArray[np.int64]:
        """Tokens that mean text: all but the ones that the config names."""
        of_config = {**vars(self.model.config), **vars(self.text.config)}
        named = [n for key, n in of_config.items() if re.search("_token_i(d|ndex)$", key) and isinstance(n, int)]
        return np.setdiff1d(np.arange(self.text.config.vocab_size), named)

    def marks(self, kind: str) -> tuple[list[int], list[int]]:
        """Tokens that must stand before and behind a medium, for positions to count it."""
        return [], []

    def in_one_sample(self, media: Sequence[MadeMedium]) -> list[MadeMedium]:
        """What these media are when they stand together."""
        return list(media)

    def pixels_of_unit(self, medium: MadeMedium) -> int:
        """Rows of pixels of each unit but the last; 0: as many as of the last."""
        return 0

    def shapes_to_try(self) -> list[MadeMedium]:
        """Media to try a model with; the first is the smallest."""
        side = self._side() // self._patch()
        return [MadeMedium("image", (units, side, side), self.tile_rows()) for units in (1, 3)]

    def tile_rows(self) -> int:
        """Tokens that a tile becomes."""
        return int(self.model.config.image_seq_length)

    def random_pixels(self, medium: MadeMedium, generator: np.random.Generator) -> torch.Tensor:
        """All units of a medium."""
        side = self._side()
        return self._random((medium.units, 3, side, side), generator)

    def alone(self, encoded: Encoded, media: Sequence[MadeMedium], pixels: Sequence[torch.Tensor]) -> dict[str, Any]:
        """What the model's own forward takes of a sample, but for labels."""
        given = {"input_ids": torch.from_numpy(encoded.input_ids)[None]}
        return given | ({"pixel_values": torch.cat(list(pixels))} if pixels else {})

    def _random(self, shape: tuple[int, ...], generator: np.random.Generator) -> torch.Tensor:
        dtype = next(self.base.parameters()).dtype
        return torch.from_numpy(generator.standard_normal(shape)).to(dtype)

    def _side(self) -> int:
        return _first(self.model.config.vision_config.image_size)

    def _patch(self) -> int:
        return _first(self.model.config.vision_config.patch_size)


class QwenVL(Family):
    """Of Qwen-VL and GLM-4V: pictures and clips of any size are rows of patches with a grid. A unit is a picture
    or a pair of frames; attention of the vision model, in windows too, stays inside."""

    def grids(self, units: Sequence[Unit], media: Media) -> torch.Tensor:
        """[units, 3]: each one temporal patch."""
        sides = [media[unit.sequence][unit.medium].grid[1:] for unit in units]
        return torch.tensor([[1, height, width] for height, width in sides])

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        pixels, grids = upload(pixels, self.grids(units, media))
        return flat(self.base.get_image_features(pixels, grids, return_dict=True).pooler_output)

    def positions(self, encoded: Encoded, media: Sequence[MediumShape]) -> torch.Tensor:
        given: dict[str, Any] = {}
        for kind, key in (("image", "image_grid_thw"), ("video", "video_grid_thw")):
            grids = [medium.grid for medium in media if medium.kind == kind]
            given[key] = torch.tensor(grids) if grids else None
        ids, kinds = (torch.as_tensor(array)[None] for array in (encoded.input_ids, encoded.media_type))
        found = self.base.get_rope_index(ids, kinds.to(torch.int32), **given, **self.times(media))
        return found[0][:, 0]

    def times(self, media: Sequence[MediumShape]) -> dict[str, Any]:
        """What positions need of the clips beside their grids."""
        return {}

    def shapes_to_try(self) -> list[MadeMedium]:
        merge = self.model.config.vision_config.spatial_merge_size
        shapes = [("image", 1, 2, 2), ("image", 1, 3, 5), ("video", 4, 2, 3), ("image", 1, 4, 4)]
        return [MadeMedium(kind, (t, h * merge, w * merge), h * w, unit_seconds=0.7) for kind, t, h, w in shapes]

    def random_pixels(self, medium: MadeMedium, generator: np.random.Generator) -> torch.Tensor:
        vision = self.model.config.vision_config
        width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        return self._random((medium.units * medium.unit_patches, width), generator)

    def alone(self, encoded: Encoded, media: Sequence[MadeMedium], pixels: Sequence[torch.Tensor]) -> dict[str, Any]:
        given: dict[str, Any] = {
            "input_ids": torch.from_numpy(encoded.input_ids)[None],
            "mm_token_type_ids": torch.from_numpy(encoded.media_type)[None].int(),
            **self.times(media),
        }
        for kind, key, grids in (
            ("image", "pixel_values", "image_grid_thw"),
            ("video", "pixel_values_videos", "video_grid_thw"),
        ):
            own = [i for i, medium in enumerate(media) if medium.kind == kind]
            if own:
                given |= {key: torch.cat([pixels[i] for i in own]), grids: torch.tensor([media[i].grid for i in own])}
        return given


class GLM4V(QwenVL):
    """One placeholder for pictures and clips."""

    mixes_kinds = False

    def placeholder(self, kind: str) -> int:
        return int(self.model.config.image_token_id)


class Llava(Family):
    """A picture is one tile."""

    def tile_rows(self) -> int:
        return int((self._side() // self._patch()) ** 2)


class Idefics3(Family):
    """Idefics3 and SmolVLM: a sample's tiles come with an axis in front."""

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        [pixels] = upload(pixels)
        return flat(self.base.get_image_features(pixels[None], return_dict=True).pooler_output)

    def tile_rows(self) -> int:
        return int((self._side() // self._patch() // self.model.config.scale_factor) ** 2)

    def alone(self, encoded: Encoded, media: Sequence[MadeMedium], pixels: Sequence[torch.Tensor]) -> dict[str, Any]:
        given = super().alone(encoded, media, pixels)
        return given | ({"pixel_values": given["pixel_values"][None]} if pixels else {})


class Mistral3(Family):
    """Pictures of any size, pixels [patches, 3 * patch * patch]; the model takes them padded to the largest."""

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        grids = [media[unit.sequence][unit.medium].grid for unit in units]
        [pixels] = upload(pixels)
        padded, sizes = self._pictures(grids, pixels)
        return flat(self.base.get_image_features(padded, image_sizes=sizes, return_dict=True).pooler_output)

    def _pictures(self, grids: Sequence[tuple[int, int, int]], rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[pictures, 3, height, width], and their sizes [pictures, 2] in pixels."""
        patch = self._patch()
        sizes = [(height * patch, width * patch) for _, height, width in grids]
        highest, widest = (max(side) for side in zip(*sizes, strict=True))
        pictures, begin = [], 0
        for (_, height, width), size in zip(grids, sizes, strict=True):
            own = rows[begin : begin + height * width].reshape(height, width, 3, patch, patch)
            picture = own.permute(2, 0, 3, 1, 4).reshape(3, *size)
            pictures.append(torch.nn.functional.pad(picture, (0, widest - size[1], 0, highest - size[0])))
            begin += height * width
        return torch.stack(pictures), torch.tensor(sizes)

    def shapes_to_try(self) -> list[MadeMedium]:
        merge = self.model.config.spatial_merge_size
        return [MadeMedium("image", (1, h * merge, w * merge), h * w) for h, w in ((1, 2), (2, 3), (4, 1))]

    def random_pixels(self, medium: MadeMedium, generator: np.random.Generator) -> torch.Tensor:
        return self._random((medium.unit_patches, 3 * self._patch() ** 2), generator)

    def alone(self, encoded: Encoded, media: Sequence[MadeMedium], pixels: Sequence[torch.Tensor]) -> dict[str, Any]:
        given: dict[str, Any] = {"input_ids": torch.from_numpy(encoded.input_ids)[None]}
        if pixels:
            padded, sizes = self._pictures([medium.grid for medium in media], torch.cat(list(pixels)))
            given |= {"pixel_values": padded, "image_sizes": sizes}
        return given


def _first(size: Any) -> int:
    return int(size[0] if isinstance(size, (list, tuple)) else size)


def flat(rows: Any) -> torch.Tensor:
    """[n, C] of what get_image_features gives: a tensor, or one for each picture."""
    tensor = torch.cat(list(rows)) if isinstance(rows, (list, tuple)) else rows
    return tensor.reshape(-1, tensor.shape[-1])
