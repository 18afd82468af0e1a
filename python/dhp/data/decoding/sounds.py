"""Sounds through soundfile and soxr, as transformers reads them (audio_utils.py: load_audio): one channel, the mean of
all, at the rate of the checkpoint's feature extractor.

What is needed of a sound before training follows from its header: how many mel frames it has, and so its units and
tokens (sound_units.py). Training reads the whole sound, whose loudest part scales it, and keeps the frames of its own
units. Of MP3, too, libsndfile knows the exact length; of a file that was cut off it is found on reading.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dhp.base.json_file import first_line
from dhp.data.access.files import check_file
from dhp.data.access.opening import Cache, opened_medium
from dhp.data.access.remembered import remembered
from dhp.data.decoding.sound_units import sound_units
from dhp.data.errors import DataError, MediumError
from dhp.task.layout import MediumUnits

MOST_VALUES = 1 << 28  # of all channels, decoded: a gigabyte
Wave = npt.NDArray[np.float32]  # [samples]


@dataclass(frozen=True)
class SoundRules:
    """What the checkpoint's feature extractor and its encoder say."""

    rate: int = 16000  # samples a second
    hop: int = 160  # samples from a mel frame to the next
    window: int = 400  # samples that a mel frame is made of
    bins: int = 128
    longest_s: int = 300
    chunk: int = 200  # mel frames of a unit


def probe_sound(
    path: str, rules: SoundRules, roots: tuple[str, ...] = (), cache: Cache = None
) -> tuple[int, MediumUnits]:
    """Mel frames and units of a sound; only its header is read. Raises MediumError."""
    samples, rate = _probe(path, *check_file(path, roots), cache)
    resampled = samples if rate == rules.rate else math.ceil(samples * rules.rate / rate)
    if resampled > rules.longest_s * rules.rate:
        raise MediumError(
            path, f"lasts {samples / rate:.1f} s, and the checkpoint's processor hears {rules.longest_s} s; cut it"
        )
    mel_frames = -(-resampled // rules.hop)
    units = sound_units(mel_frames, rules.chunk)
    if not units.units:
        raise MediumError(path, f"has {samples:,} samples, too few for a token")
    return mel_frames, units


@remembered(1 << 16)
def _probe(path: str, _changed_ns: int, _bytes: int, cache: Cache) -> tuple[int, int]:
    """Samples, and samples a second."""
    with _opened(path, cache) as file:
        return int(file.frames), int(file.samplerate)


def read_sound(
    path: str,
    mel_frames: int,
    start: int,
    stop: int,
    rules: SoundRules,
    roots: tuple[str, ...] = (),
    cache: Cache = None,
) -> torch.Tensor:
    """Mel frames start … stop-1 of the `mel_frames` that a sound had when it was indexed: float32 [frames, bins]."""
    found, _ = probe_sound(path, rules, roots, cache)
    if found != mel_frames:
        raise MediumError(path, f"has {found:,} mel frames, but had {mel_frames:,} when it was indexed")
    wave = _wave(path, rules.rate, cache)
    if -(-len(wave) // rules.hop) != mel_frames:
        raise MediumError(path, f"holds {len(wave):,} samples, other than it says; write it anew")
    # Silence behind it, as the extractor would add up to its longest: the last frames look beyond the end.
    length = mel_frames * rules.hop + rules.window
    given = _extractor(rules)(wave, sampling_rate=rules.rate, padding="max_length", max_length=length)
    mel = np.asarray(given["input_features"][0], np.float32)  # [bins, frames]
    return torch.from_numpy(np.ascontiguousarray(mel[:, start:stop].T))


def _wave(path: str, rate: int, cache: Cache) -> Wave:
    with _opened(path, cache, entire=True) as file:
        own_rate, channels = file.samplerate, file.read(dtype="float32", always_2d=True).T
    wave: Wave = channels.mean(axis=0) if len(channels) > 1 else channels[0]
    if own_rate == rate:
        return np.ascontiguousarray(wave)
    import soxr

    samples = math.ceil(len(wave) * rate / own_rate)
    wave = soxr.resample(wave, own_rate, rate, quality="soxr_hq")
    return np.ascontiguousarray(np.pad(wave, (0, max(0, samples - len(wave))))[:samples], np.float32)


@contextlib.contextmanager
def _opened(path: str, cache: Cache, entire: bool = False) -> Iterator[Any]:
    try:
        import soundfile
        import soxr  # noqa: F401  (needed where rates differ: rather now than at the first such sound)
    except ImportError as error:
        raise DataError(f'sounds need soundfile and soxr ({first_line(error)}): pip install "dhp[audio]"') from None
    try:
        with opened_medium(path, cache, entire) as file, soundfile.SoundFile(file) as sound:
            if sound.frames <= 0 or sound.samplerate <= 0:
                raise MediumError(path, "holds no sound")
            values = sound.frames * sound.channels
            if values > MOST_VALUES:
                raise MediumError(path, f"holds {values:,} values, more than the limit of {MOST_VALUES:,}; shorten it")
            yield sound
    except DataError:  # and MediumError
        raise
    except FileNotFoundError as error:
        raise MediumError(path, "no such file") from error
    except Exception as error:  # whatever libsndfile makes of broken data
        raise MediumError(path, f"cannot be read as a sound: {first_line(error)}") from error


@functools.lru_cache(4)
def _extractor(rules: SoundRules) -> Any:
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(
        feature_size=rules.bins,
        sampling_rate=rules.rate,
        hop_length=rules.hop,
        chunk_length=rules.longest_s,
        n_fft=rules.window,
    )
