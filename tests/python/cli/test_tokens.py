"""`dhp tokens` and `dhp dataset`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import dhp, inputs
from dhp._core import read_batch
from made_index import write_made_index


def test_tokens_of_media() -> None:
    result = dhp("tokens", "--model", "qwen3-vl", "--image", "1280x720", "--video", "1280x720x30.0s@30",
                 "--output-format", "json").json()  # fmt: skip
    assert result["sampling"] == "qwen-vl-utils"
    image, video = result["media"]
    assert (image["tokens"], image["patches"], image["marker_tokens"], image["all_tokens"]) == (880, 3520, 2, 882)
    assert image["grid"] == {"frames": 1, "height": 44, "width": 80}
    assert (video["frames"], video["total_frames"], video["tokens"]) == (60, 900, 21600)
    assert (video["marker_tokens"], video["timestamp_tokens"]) == (60, 200)
    assert result["total"]["all_tokens"] == 882 + 21600 + 260
    as_hf = ["tokens", "--model", "qwen3-vl", "--sampling", "hf", "--output-format", "json"]
    assert dhp(*as_hf, "--video", "1280x720x900f").json()["media"][0]["tokens"] == 11700
    fewer = dhp(*as_hf, "--video", "1280x720x900f", "--fps", "0.5", "--max-pixels", "100000").json()["media"][0]
    assert fewer["frames"] == 15
    assert fewer["grid"]["height"] * fewer["grid"]["width"] * 256 <= 100000
    tiles = dhp("tokens", "--model", "internvl3-8b", "--image", "1280x720", "--output-format", "json").json()
    assert tiles["media"][0]["tiles"] == {"columns": 4, "rows": 2, "thumbnail": True, "count": 9}
    text = dhp("tokens", "--model", "internvl", "--image", "1280x720", "--image", "512x512").out
    assert "4x2 tiles and a thumbnail" in text
    assert "total" in text


def test_models_are_named_as_on_the_hub() -> None:
    words = ["--image", "1280x720", "--output-format", "json"]
    for hub, ours in (("Qwen/Qwen3-VL-8B-Instruct", "qwen3-vl"), ("OpenGVLab/InternVL3-8B-hf", "internvl")):
        assert dhp("tokens", "--model", hub, *words).json() == dhp("tokens", "--model", ours, *words).json()
    missing = dhp("tokens", "--model", "/nowhere/Qwen3-VL-8B-Instruct", *words)
    assert (missing.code, missing.out) == (2, "")


def test_tokens_by_a_checkpoint_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (tmp_path / "preprocessor_config.json").write_text('{"patch_size": 14, "min_pixels": 3136, "max_pixels": 200704}')
    result = dhp("tokens", "--model", tmp_path, "--image", "1280x720", "--output-format", "json").json()
    assert (result["model"], result["sampling"]) == ("qwen2.5-vl", "hf")
    assert result["media"][0]["tokens"] == 12 * 21  # 1280 x 720 over 2.143: 597.3 x 336, in whole 28


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected --image 1280x720 or --video"),
        (("--image", "12x"), '--image: found "12x", expected WIDTHxHEIGHT'),
        (("--image", "0x5"), "--image: 0x5: image: width: found 0"),
        (("--image", "10000x1"), "--image: 10000x1: image: size: found 10000 x 1 pixels (width x height), expected"),
        (("--video", "320x240"), '--video: found "320x240", expected WIDTHxHEIGHTxLENGTH[@FPS]'),
        (("--video", "320x240x30@30"), "expected WIDTHxHEIGHTxLENGTH[@FPS]"),
        (("--video", "320x240x30s@0"), "fps of the file: found 0, expected a number above 0"),
        (("--video", "320x240x0.01s@30"), "frames"),
        (("--image", "9x9", "--sampling", "internvl-chat"), "which knows no qwen3-vl"),
        (("--image", "9x9", "--fps", "2"), "--fps: is for clips, and there is no --video"),
        (("--image", "9x9", "--max-tiles", "3"), "is not for Qwen-VL"),
        (("--video", "9x9x9s", "--fps", "1", "--frames", "8"), "excludes"),
    ],
)
def test_tokens_bad_input(options: tuple[str, ...], message: str) -> None:
    result = dhp("tokens", "--model", "qwen3-vl", *options)
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_dataset_batches(tmp_path: Path) -> None:
    out = tmp_path / "batch.json"
    options = ["dataset", "--data", "msrvtt", "--model", "qwen3-vl", "--count", "64", "--output-format", "json"]
    summary = dhp(*options, "--seed", "7", "-o", out).json()
    batch = json.loads(out.read_text())
    assert batch["format"] == "dhp.batch/1"
    tokens = [sequence["tokens"] for sequence in batch["sequences"]]
    assert len(tokens) == summary["samples"] == 64
    assert summary["total"]["tokens"] == sum(tokens)
    assert (summary["tokens"]["min"], summary["tokens"]["max"]) == (min(tokens), max(tokens))
    assert summary["tokens"]["percentiles"]["p50"] == sorted(tokens)[31]
    for histogram, values in (("tokens", tokens), ("duration_s", None)):
        bins = summary[histogram]["histogram"]
        assert sum(entry["count"] for entry in bins) == 64
        if values:
            assert [e["count"] for e in bins] == [sum(e["from"] <= v < e["to"] for v in values) for e in bins]
    first = out.read_bytes()
    dhp(*options, "--seed", "7", "-o", out)
    assert out.read_bytes() == first
    dhp(*options, "--seed", "8", "-o", out)
    assert out.read_bytes() != first
    text = dhp(*options[:-2]).out
    assert "clip length" in text
    assert "█" in text


def test_dataset_of_a_file(tmp_path: Path, files: dict[str, Path]) -> None:
    index = tmp_path / "clips.csv"
    index.write_text("path,duration_s,width,height,fps,text_tokens\na.mp4,30,1280,720,30,5\nb.jpg,0,1280,720,30,7\n")
    options = ["dataset", "--data", index, "--output-format", "json"]
    result = dhp(*options, "-o", files["batch"])
    assert result.code == 2
    assert "--model: is missing" in result.err
    summary = dhp(*options, "--model", "qwen3-vl", "-o", files["batch"]).json()
    assert summary["samples"] == 2
    assert summary["duration_s"]["count"] == 1
    sequences = json.loads(files["batch"].read_text())["sequences"]
    assert [s["tokens"] for s in sequences] == [21600 + 260 + 5, 882 + 7]
    assert dhp(*options, "--model", "qwen3-vl", "--count", "5").json()["samples"] == 5
    index.write_text("tokens,patches\n500,0\n800,3200\n")
    assert dhp(*options, "-o", files["batch"]).json()["model"] is None
    assert dhp("plan", *inputs(files)).code == 0
    index.write_text("tokens,patches\n500,0\n800\n")
    assert "clips.csv: line 3: found 1 cells, expected 2" in dhp(*options).err
    assert '--data: found "msvd", expected msrvtt' in dhp("dataset", "--data", "msvd").err


def test_what_dhp_index_writes_is_a_batch(tmp_path: Path, files: dict[str, Path]) -> None:
    lengths = [{"id": 4, "tokens": 220, "patches": 24, "frame_patches": 24}, {"id": 9, "tokens": 31}]
    index = write_made_index(tmp_path / "x.idx", lengths)
    assert dhp("dataset", "--data", index, "--batch-size", "5", "--seed", "3", "-o", files["batch"]).code == 0
    sequences = json.loads(files["batch"].read_text())["sequences"]
    assert len(sequences) == 5
    assert {s["tokens"]: s.get("frame_patches", 0) for s in sequences} == {31: 0, 220: 24}
    whole = dict(files, batch=index)
    plan = tmp_path / "plan.json"
    assert dhp("plan", *inputs(whole), "-o", plan).code == 0
    assert dhp("check", *inputs(whole), "--plan", plan).out == "valid: 2 tasks, 2 sequences\n"
    assert dhp("explain", *inputs(whole), "--plan", plan).code == 0
    assert dhp("compare", *inputs(whole)).out.startswith("2 sequences on 6 ranks")
    assert [s.id for s in read_batch(str(index)).sequences] == [4, 9]
    index.write_bytes(index.read_bytes()[:-5])
    assert "x.idx: is cut off: " in dhp("plan", *inputs(whole)).err


def test_a_terminal_is_not_steered(tmp_path: Path, files: dict[str, Path]) -> None:
    plan = tmp_path / "plan.json"
    assert dhp("plan", *inputs(files), "-o", plan).code == 0
    made = json.loads(plan.read_text())
    made["hash"] = "\x1b[31m\u009b\u202e"
    plan.write_text(json.dumps(made))
    for options in ([], ["--output-format", "json"]):
        result = dhp("check", *inputs(files), "--plan", plan, *options)
        assert result.code == 1
        assert not set(result.out) & {"\x1b", "\u009b", "\u202e"}
    wrong = dhp("check", *inputs(dict(files, batch=tmp_path / "no\x1b[31m.json")), "--plan", plan)
    assert "no\\x1b[31m.json: cannot be opened" in wrong.err


def test_a_wrong_model_is_named_even_where_none_is_asked() -> None:
    result = dhp("dataset", "--data", "uniform", "--model", "qwen9-vl")
    assert (result.code, result.out) == (2, "")
    assert '--model: found "qwen9-vl"' in result.err
