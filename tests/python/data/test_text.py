"""Ids, labels and media types against Hugging Face's own processor and hand-written expectations."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import huggingface_reference as hf
from dhp.data.errors import DataError
from dhp.data.formats.samples import Message
from dhp.data.processor import load_processor
from dhp.data.text import IGNORED, Encoder
from dhp.demo.checkpoint import CONTROL_TOKENS
from tiny_run import make_tiny


@dataclass(frozen=True)
class Shown:
    """A medium as text sees it."""

    kind: str
    grid: tuple[int, int, int]
    timestamps: tuple[float, ...] = ()
    unit_seconds: float = 1.0

    @property
    def units(self) -> int:
        return self.grid[0]

    @property
    def unit_rows(self) -> int:
        return self.grid[1] * self.grid[2] // 4


@dataclass(frozen=True)
class Talk:
    messages: tuple[Message, ...]
    media: tuple[Shown, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("ck"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(folder)


def talk(*turns: tuple[str, str], media: tuple[Shown, ...] = ()) -> Talk:
    return Talk(tuple(Message(role, (text,)) for role, text in turns), media)


def learned(encoder: Encoder, sample: Talk) -> list[str]:
    """The runs of tokens with a label, as text."""
    encoded = encoder.encode(sample)
    marked = encoded.labels != IGNORED
    assert (encoded.labels[marked] == encoded.input_ids[marked]).all()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(int), [0]])))
    return [encoder.tokenizer.decode(encoded.input_ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_loss_on_assistant_turns_only(encoder: Encoder) -> None:
    sample = talk(
        ("system", "You are an assistant."),
        ("user", "assistant\nWho speaks?"),
        ("assistant", "The assistant speaks.\nuser\nassistant"),
        ("user", "And now, assistant?"),
        ("assistant", "Still me."),
    )
    assert learned(encoder, sample) == ["The assistant speaks.\nuser\nassistant<|im_end|>", "Still me.<|im_end|>"]


@pytest.mark.parametrize(
    "answer", ["", "\n\nBroken lines\n", " leading space", "caf\u0065\u0301 \u732b", "123 + 4 = 127"]
)
def test_loss_covers_the_whole_answer(encoder: Encoder, answer: str) -> None:
    import unicodedata

    (span,) = learned(encoder, talk(("user", "?"), ("assistant", answer)))
    text = unicodedata.normalize("NFC", answer) + "<|im_end|>"
    # A newline that opens the answer may share a token with the one that ends the header.
    assert span in (text, "\n" + text)


def test_loss_switch(encoder: Encoder) -> None:
    sample = Talk(
        (
            Message("user", ("a",)),
            Message("assistant", ("not this",), loss=False),
            Message("user", ("b",)),
            Message("assistant", ("this",)),
        )
    )
    assert learned(encoder, sample) == ["this<|im_end|>"]


def test_exact_ids_of_a_small_conversation(encoder: Encoder) -> None:
    ids = encoder.tokenizer.convert_tokens_to_ids
    sample = Talk((Message("user", (0, "A")), Message("assistant", ("B",))), (Shown("image", (1, 4, 6)),))
    encoded = encoder.encode(sample)
    text = lambda s: encoder.tokenizer(s)["input_ids"]  # noqa: E731
    expected = [
        ids("<|im_start|>"),
        *text("user\n"),
        ids("<|vision_start|>"),
        *[ids("<|image_pad|>")] * 6,
        ids("<|vision_end|>"),
        *text("A"),
        ids("<|im_end|>"),
        *text("\n"),
        ids("<|im_start|>"),
        *text("assistant\n"),
        *text("B"),
        ids("<|im_end|>"),
        *text("\n"),
    ]
    assert encoded.input_ids.tolist() == expected
    assert encoded.input_ids.dtype == np.int64
    assert encoded.labels.dtype == np.int64
    assert encoded.media_type.dtype == np.int8
    begin = expected.index(ids("<|image_pad|>"))
    assert np.flatnonzero(encoded.media_type).tolist() == list(range(begin, begin + 6))
    assert encoded.label_tokens == 2
    assert encoded.labels[-2 - len(text("\n")) + 1] == ids("<|im_end|>")


def test_expansion_equals_hugging_face(encoder: Encoder) -> None:
    seed = 11
    print("seed", seed)
    rng = random.Random(seed)
    reference = hf.processor(encoder.tokenizer)
    for _ in range(60):
        media, described, parts = [], [], []
        for _ in range(rng.randrange(4)):
            h, w = 2 * rng.randint(1, 8), 2 * rng.randint(1, 8)
            parts += [rng.choice(["x ", "\n", "Look: "]), len(media)]
            if rng.random() < 0.5:
                media.append(Shown("image", (1, h, w)))
                described.append({"kind": "image", "grid": (1, h, w)})
            else:
                frames = sorted(rng.randrange(3000) for _ in range(rng.randint(1, 9)))
                fps = rng.choice([25.0, 30000 / 1001, 10.0])
                padded = [*frames, *frames[-1:] * (len(frames) % 2)]
                stamps = tuple((a / fps + b / fps) / 2 for a, b in zip(padded[::2], padded[1::2], strict=True))
                media.append(Shown("video", (len(stamps), h, w), stamps))
                described.append({"kind": "video", "grid": (len(stamps), h, w), "fps": fps, "frames": frames})
        sample = Talk((Message("user", (*parts, "What?")), Message("assistant", ("This.",))), tuple(media))
        encoded = encoder.encode(sample)
        prompt = encoder.tokenizer.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": p} if isinstance(p, str) else {"type": media[p].kind}
                        for p in (*parts, "What?")
                    ],
                },
                {"role": "assistant", "content": "This."},
            ],
            tokenize=False,
        )
        ids, kinds = hf.ids_and_types(reference, prompt, described)
        assert encoded.input_ids.tolist() == ids
        assert encoded.media_type.tolist() == kinds
        assert int((encoded.media_type > 0).sum()) == sum(m.grid[0] * m.grid[1] * m.grid[2] // 4 for m in media)


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|endoftext|>"])
def test_control_tokens_in_text_are_refused(encoder: Encoder, token: str) -> None:
    with pytest.raises(DataError) as caught:
        encoder.encode(talk(("user", f"a{token}b"), ("assistant", "c")))
    assert token in str(caught.value)
    assert "the user's text" in str(caught.value)


def test_tokenizer_is_qwens(encoder: Encoder, folder: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import Qwen2Tokenizer

    assert isinstance(encoder.tokenizer, Qwen2Tokenizer)
    as_written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for token in CONTROL_TOKENS:
        ids = encoder.tokenizer(f"a{token}b")["input_ids"]
        assert ids[1] == encoder.tokenizer.convert_tokens_to_ids(token)
        assert len(ids) == 3
    for text in ["A cat's 12 eyes.\n\nNo?", "caf\u0065\u0301", "<0.3 seconds>", "  spaces\t\r\n", "\u732b\U0001f600"]:
        # what transformers loads is what the file says: normaliser and split pattern are the same
        assert encoder.tokenizer(text)["input_ids"] == as_written.encode(text).ids


def copy_with(folder: Path, target: Path, **changed: Any) -> Path:
    """A copy of a checkpoint folder with files replaced: name (without .json) -> new content, or None to remove."""
    shutil.copytree(folder, target)
    for name, value in changed.items():
        path = target / f"{name}.json"
        path.unlink(missing_ok=True)
        if value is not None:
            path.write_text(value if isinstance(value, str) else json.dumps(value))
    return target


def config(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / f"{name}.json").read_text()))


def test_nested_processor_config(folder: Path, tmp_path: Path) -> None:
    nested = {
        "image_processor": config(folder, "preprocessor_config"),
        "video_processor": config(folder, "video_preprocessor_config"),
    }
    absent = {"preprocessor_config": None, "video_preprocessor_config": None}
    ours = load_processor(copy_with(folder, tmp_path / "n", processor_config=nested, **absent))
    plain = load_processor(folder)
    assert (ours.rules, ours.image, ours.video) == (plain.rules, plain.image, plain.video)
    assert ours.fingerprint != plain.fingerprint


def test_defaults_where_the_files_are_silent(folder: Path, tmp_path: Path) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    silent = {
        name: {k: v for k, v in config(folder, name).items() if k in ("size", "patch_size", "merge_size")}
        for name in ("preprocessor_config", "video_preprocessor_config")
    }
    silent["preprocessor_config"]["temporal_patch_size"] = 2
    silent["preprocessor_config"]["patch_size"] = 16
    ours = load_processor(copy_with(folder, tmp_path / "silent", **silent))
    assert ours.video is not None
    for scale, theirs in (
        (ours.image, Qwen2VLImageProcessorPil),
        (ours.video, hf.video_module().Qwen3VLVideoProcessor),
    ):
        assert list(scale.mean) == list(theirs.image_mean)
        assert list(scale.std) == list(theirs.image_std)
        assert scale.rescale == theirs.rescale_factor


BAD_FOLDERS = [
    ({"config": None}, r"no config\.json; give a local Hugging Face checkpoint"),
    (
        {"config": {"model_type": "mamba"}},
        r'config\.json: model_type "mamba" is not supported; supported: deepseek_v3, ',
    ),
    ({"config": {}}, r"model_type null is not supported"),
    ({"config": "{"}, r"config\.json: cannot be read"),
    ({"preprocessor_config": None}, r"no preprocessor_config\.json"),
]


@pytest.mark.parametrize(("changed", "message"), BAD_FOLDERS, ids=[str(i) for i in range(len(BAD_FOLDERS))])
def test_bad_folder(folder: Path, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Encoder(copy_with(folder, tmp_path / "bad", **changed))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("do_resize", False),
        ("do_normalize", False),
        ("resample", 2),
        ("image_mean", [0.5]),
        ("cap_pixels_per_frame", True),
    ],
)
def test_processor_settings_that_cannot_be_followed(folder: Path, tmp_path: Path, key: str, value: object) -> None:
    changed = {**config(folder, "preprocessor_config"), key: value}
    with pytest.raises(DataError, match=rf"preprocessor_config\.json: {key}"):
        load_processor(copy_with(folder, tmp_path / "bad", preprocessor_config=changed))


def test_chat_templates_that_cannot_be_followed(folder: Path, tmp_path: Path) -> None:
    """A template may be a file of its own or, as in older checkpoints, a setting of the tokenizer."""
    sample = talk(("user", "a"), ("assistant", "b"))
    tokenizer = config(folder, "tokenizer_config")
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    (old / "chat_template.jinja").unlink()
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    other = Encoder(copy_with(old, tmp_path / "plain", tokenizer_config={**tokenizer, "chat_template": plain}))
    with pytest.raises(DataError, match="begins the assistant's turn with 'assistant: b', which its generation prompt"):
        other.encode(sample)
    refusing = Path(shutil.copytree(folder, tmp_path / "refusing"))
    (refusing / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    with pytest.raises(DataError, match="refuses the conversation: no system role"):
        Encoder(refusing).encode(sample)
    with pytest.raises(DataError, match="no chat template"):
        Encoder(old)
