"""How a sound becomes units and tokens, as Qwen2.5-Omni's encoder cuts it (transformers, models/qwen2_5_omni).

The encoder sees frames of a mel spectrogram, 100 a second, in chunks of two seconds: convolutions and attention stay
inside a chunk. A convolution halves the frames, and of each two of what is left one token is made.
"""

from __future__ import annotations

from dhp.task.layout import MediumUnits


def sound_units(mel_frames: int, chunk: int) -> MediumUnits:
    """A unit is a chunk of so many mel frames, an even number of tokens times four; the last is shorter where the sound
    ends in it. What the planner counts as patches are the frames behind the convolution: they attend to each other, in
    an encoder as wide and deep as that of pictures.

    A rest that no token is made of, two frames at most, is no unit. Of a sound that is no longer there is none.
    """
    whole, rest = divmod(mel_frames, chunk)
    patches = (rest + 1) // 2
    rows = patches // 2
    if not rows:
        return MediumUnits(whole, chunk // 4, chunk // 2)
    if not whole:
        return MediumUnits(1, rows, patches)
    return MediumUnits(whole + 1, chunk // 4, chunk // 2, rows, patches)
