"""The thinker of Qwen2.5-Omni: Qwen2.5-VL that hears."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dhp._core import InputError
from dhp.data.decoding.sound_units import sound_units
from dhp.data.placeholders import MediumShape
from dhp.data.text import Encoded
from dhp.models.families import Media, Upload
from dhp.models.qwen_vl import Qwen25VL
from dhp.task.layout import Unit
from dhp.task.made import MadeMedium


class Qwen25Omni(Qwen25VL):
    """A unit is a picture, a pair of frames, or a chunk of a sound (sound_units.py). What is read of them are numbers
    in a row, one unit behind the other: patches of pictures, and of sounds mel frames, as wide as the encoder has
    bins."""

    aligner = re.compile(r"\.visual\..*merger|\.audio_tower\.(ln_post|proj)\b")
    vit = re.compile(r"\.(visual|audio_tower)\.")

    def __init__(self, model: Any) -> None:
        if not hasattr(model.base_model, "audio_tower") or not hasattr(model.base_model, "language_model"):
            raise InputError("model: Qwen2.5-Omni's thinker needs transformers >= 5.23; take a newer release")
        super().__init__(model)
        hears = model.config.audio_config
        if hears.n_window % 2:
            raise InputError(f"audio_config.n_window: found {hears.n_window}, expected an even number")
        self.chunk, self.bins = 2 * hears.n_window, hears.num_mel_bins
        sees = model.config.vision_config
        self.patch_width = sees.in_channels * sees.temporal_patch_size * sees.patch_size**2

    def encode(self, units: Sequence[Unit], media: Media, pixels: torch.Tensor, upload: Upload) -> torch.Tensor:
        heard = [media[unit.sequence][unit.medium].kind == "audio" for unit in units]
        frames = [self._mel_frames(unit, media) if sound else 0 for unit, sound in zip(units, heard, strict=True)]
        sizes = [n * self.bins or unit.patches * self.patch_width for n, unit in zip(frames, units, strict=True)]
        [pixels] = upload(pixels)  # whole, as the reading thread has left it: what is sorted is sorted on the device
        numbers = pixels.split(sizes)
        rows: dict[int, torch.Tensor] = {}
        for sound in set(heard):
            chosen = [i for i, kind in enumerate(heard) if kind == sound]
            own = torch.cat([numbers[i] for i in chosen]) if len(chosen) < len(units) else pixels
            if sound:
                found = self._hear(own.view(-1, self.bins), [frames[i] for i in chosen], upload)
            else:
                found = super().encode([units[i] for i in chosen], media, own.view(-1, self.patch_width), upload)
            rows |= dict(zip(chosen, found.split([units[i].rows for i in chosen]), strict=True))
        return torch.cat([rows[i] for i in range(len(units))])

    def _hear(self, mel: torch.Tensor, frames: list[int], upload: Upload) -> torch.Tensor:
        """[rows, hidden] of mel frames [n, bins], the chunks one behind the other. Each is a sound of its own: the
        model would cut them so, too."""
        mel, lengths = upload(mel, torch.tensor(frames))
        rows: torch.Tensor = self.base.audio_tower(mel.T, feature_lens=lengths, return_dict=True).last_hidden_state
        return rows

    def _mel_frames(self, unit: Unit, media: Media) -> int:
        """Of a chunk."""
        return min(self.chunk, media[unit.sequence][unit.medium].mel_frames - unit.part * self.chunk)

    def positions(self, encoded: Encoded, media: Sequence[MediumShape]) -> torch.Tensor:
        ids = torch.as_tensor(encoded.input_ids)[None]
        given: dict[str, Any] = {}
        for kind, key in (("image", "image_grid_thw"), ("video", "video_grid_thw")):
            grids = [medium.grid for medium in media if medium.kind == kind]
            given[key] = torch.tensor(grids) if grids else None
        frames = [medium.mel_frames for medium in media if medium.kind == "audio"]
        seconds = [medium.unit_seconds for medium in media if medium.kind == "video"]
        found = self.base.get_rope_index(
            ids,
            attention_mask=torch.ones_like(ids),
            audio_seqlens=torch.tensor(frames) if frames else None,
            second_per_grids=torch.tensor(seconds) if seconds else None,
            **given,
        )
        return found[0][:, 0].long()

    # To make up samples, and to hand them to the model alone.

    def marks(self, kind: str) -> tuple[list[int], list[int]]:
        """get_rope_index looks for them."""
        config = self.model.config
        what = "audio" if kind == "audio" else "vision"
        begin, end = (getattr(config, f"{what}_{side}_token_id") for side in ("start", "end"))
        return [begin], [end]

    def shapes_to_try(self) -> list[MadeMedium]:
        frames = (self.chunk // 2, 2 * self.chunk, 2 * self.chunk + 2, self.chunk + 5)
        return [*super().shapes_to_try(), *map(self._sound, frames)]

    def _sound(self, frames: int) -> MadeMedium:
        units = sound_units(frames, self.chunk)
        return MadeMedium(
            "audio",
            (units.units, 1, units.patches),
            units.rows,
            last_rows=units.last_rows,
            last_patches=units.last_patches,
            mel_frames=frames,
        )

    def pixels_of_unit(self, medium: MadeMedium) -> int:
        return self.chunk * self.bins if medium.kind == "audio" else 0

    def random_pixels(self, medium: MadeMedium, generator: np.random.Generator) -> torch.Tensor:
        if medium.kind == "audio":
            return self._random((medium.mel_frames * self.bins,), generator)
        return super().random_pixels(medium, generator).flatten()

    def alone(self, encoded: Encoded, media: Sequence[MadeMedium], pixels: Sequence[torch.Tensor]) -> dict[str, Any]:
        seen = [i for i, medium in enumerate(media) if medium.kind != "audio"]
        patches = [pixels[i].view(-1, self.patch_width) for i in seen]
        given = super().alone(encoded, [media[i] for i in seen], patches)
        given.pop("mm_token_type_ids")
        if "second_per_grid_ts" in given:
            given["video_second_per_grid"] = given.pop("second_per_grid_ts")
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        sounds = [pixels[i].view(-1, self.bins) for i, medium in enumerate(media) if medium.kind == "audio"]
        if sounds:
            padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
            lengths = torch.tensor([len(sound) for sound in sounds])[:, None]
            given["input_features"] = padded.transpose(1, 2)
            given["feature_attention_mask"] = (torch.arange(padded.shape[1]) < lengths).long()
        return given
