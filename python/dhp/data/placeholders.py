"""How chat templates mark pictures and clips, and what stands there in the end: text, and for every run of visual
tokens one pad token and a count.

    Qwen3-VL     clip: per temporal patch `<%.1f seconds><|vision_start|><|video_pad|> x rows<|vision_end|>`
    Qwen2-VL     clip: <|video_pad|> x rows of all temporal patches (Qwen2.5-VL too)
    Qwen2.5-Omni likewise, of a sound too: <|IMAGE|>, <|VIDEO|>, <|AUDIO|> x rows
    GLM-4V       clip: per temporal patch `<|begin_of_image|><|image|> x rows<|end_of_image|>%d`, whole seconds
    InternVL     picture: <img><IMG_CONTEXT> x rows of all tiles</img>; clip: `Frame1: <img>…</img>`, a line a frame

As in transformers 5: replace_image_token and replace_video_token of models/*/processing_*.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dhp.data.decoding import borrowed
from dhp.data.decoding.borrowed import Borrowed
from dhp.task.layout import MediumUnits


class MediumShape(Protocol):
    """What text and positions need to know of a medium."""

    @property
    def kind(self) -> str: ...
    @property
    def grid(self) -> tuple[int, int, int]: ...  # units, rows, columns of patches
    @property
    def units(self) -> int: ...
    @property
    def unit_rows(self) -> int: ...  # tokens of each unit
    @property
    def timestamps(self) -> tuple[float, ...]: ...  # seconds, one per temporal patch of a video
    @property
    def unit_seconds(self) -> float: ...  # from one unit of a clip to the next
    @property
    def height(self) -> int: ...  # of the file, in pixels
    @property
    def width(self) -> int: ...
    @property
    def seconds(self) -> float: ...  # that a clip lasts
    @property
    def mel_frames(self) -> int: ...  # of a sound
    @property
    def unit_sizes(self) -> MediumUnits: ...


Grown = tuple[str, Sequence[int]]  # text with single pads, and the tokens that each stands for


@dataclass(frozen=True)
class Placeholders:
    """`image`, `video`, `audio`: what the template writes for a medium. `pad`: by kind, the token that is repeated.
    `grow`: what stands there in the end."""

    image: str
    video: str
    pad: dict[str, str]
    grow: Callable[[MediumShape], Grown]
    audio: str = ""

    @property
    def marks(self) -> dict[str, str]:
        """Kinds by mark."""
        return {mark: kind for kind in ("image", "video", "audio") if (mark := getattr(self, kind))}


def _qwen3(medium: MediumShape) -> Grown:
    if medium.kind == "image":
        return "<|image_pad|>", [medium.unit_rows]
    frames = (f"<{seconds:.1f} seconds><|vision_start|><|video_pad|><|vision_end|>" for seconds in medium.timestamps)
    return "".join(frames), [medium.unit_rows] * medium.units


def _qwen2(medium: MediumShape) -> Grown:
    return f"<|{medium.kind}_pad|>", [medium.unit_rows * medium.units]


def _omni(medium: MediumShape) -> Grown:
    return _OMNI_MARKS[medium.kind], [medium.unit_sizes.all_rows]


def _glm4v(medium: MediumShape) -> Grown:
    if medium.kind == "image":
        return "<|image|>", [medium.unit_rows]
    frames = (f"<|begin_of_image|><|image|><|end_of_image|>{int(seconds)}" for seconds in medium.timestamps)
    return "".join(frames), [medium.unit_rows] * medium.units


def _internvl(medium: MediumShape) -> Grown:
    marked = "<img><IMG_CONTEXT></img>"
    if medium.kind == "image":
        return marked, [medium.unit_rows * medium.units]
    frames = "\n".join(f"Frame{number}: {marked}" for number in range(1, medium.units + 1))
    return frames, [medium.unit_rows] * medium.units


_OMNI_MARKS = {"image": "<|IMAGE|>", "video": "<|VIDEO|>", "audio": "<|AUDIO|>"}
_OMNI = Placeholders(_OMNI_MARKS["image"], _OMNI_MARKS["video"], _OMNI_MARKS, _omni, _OMNI_MARKS["audio"])
_QWEN = ("<|image_pad|>", "<|video_pad|>", {"image": "<|image_pad|>", "video": "<|video_pad|>"})
_GLM = Placeholders("<|image|>", "<|video|>", {"image": "<|image|>", "video": "<|image|>"}, _glm4v)
_QWEN3 = Placeholders(*_QWEN, _qwen3)
_QWEN2 = Placeholders(*_QWEN, _qwen2)


def of(rules: Any, family: str) -> Placeholders | None:
    """Of a model; nothing where it takes text alone."""
    if not isinstance(rules, Borrowed):
        return PLACEHOLDERS.get(family)

    mark, clip = borrowed.image_token(rules), borrowed.video_token(rules)

    def grow(medium: MediumShape) -> Grown:
        if medium.kind == "video" and rules.family == "smolvlm":
            return borrowed.clip_text(rules, medium.timestamps, medium.seconds)
        if medium.kind == "video":
            return clip, [medium.unit_sizes.all_rows]
        found = borrowed.facts(rules, medium.height, medium.width, borrowed.is_alone(rules, medium.grid))
        return found.text, found.runs

    return Placeholders(
        mark, clip, {"image": mark} | ({"video": clip} if clip and rules.family != "smolvlm" else {}), grow
    )


# model_type -> what its template writes; models that are not here take text alone
PLACEHOLDERS = {
    "glm4v": _GLM,
    "glm4v_moe": _GLM,
    "internvl": Placeholders(
        "<IMG_CONTEXT>", "<video>", {"image": "<IMG_CONTEXT>", "video": "<IMG_CONTEXT>"}, _internvl
    ),
    "qwen2_5_omni": _OMNI,
    "qwen2_5_omni_thinker": _OMNI,
    "qwen2_5_vl": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
}
