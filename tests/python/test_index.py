"""`dhp index`: exact counts, round trip, staleness, limits, and what the command says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dhp._core import InputError, Sequence
from dhp.data.errors import DataError, StaleIndexError
from dhp.data.index import (
    Limits,
    TooLongError,
    build_index,
    default_path,
    load_index,
    load_or_build_index,
)
from dhp.data.index_command import main, summary
from dhp.data.media import PixelReader
from dhp.data.text import Encoder
from dhp.demo.checkpoint import make_tiny_checkpoint
from made_media import write_clip

SMALL = {"layers": 1, "hidden": 16, "heads": 1, "kv_heads": 1, "head_dim": 16, "vision_layers": 1, "vision_hidden": 16}


def row(question: str, answer: str = "Yes, all of it.", **media: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        **media,
    }


ROWS = [
    row("How are you?"),
    row("<image>What is it?", images=["media/small.png"]),
    row("<image><image>Compare.", images=["media/small.png", {"image": "media/large.png", "max_pixels": 65536}]),
    row("<video>What moves?", videos=["media/clip.mp4"]),
    row("<video>And here?", videos=[{"video": "media/clip.mp4", "video_start": 1.0, "video_end": 2.5, "fps": 4.0}]),
    row("<video>A list.", videos=[["media/small.png"] * 3]),
    row("<image>then<video>then<image>", images=["media/large.png"] * 2, videos=["media/clip.mp4"]),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl, media/ and model/; not to be changed."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "media").mkdir()
    for name, size in (("small", (70, 50)), ("large", (500, 330))):
        levels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / "media" / f"{name}.png")
    write_clip(folder / "media" / "clip.mp4", 100)
    make_tiny_checkpoint(folder / "model", deepstack=(0,), **SMALL)
    write(folder / "data.jsonl", ROWS)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


# ---- counts and files -----------------------------------------------------------------------------------------------


def test_counts_are_what_encoding_and_reading_give(made: Path, tmp_path: Path) -> None:
    index = build_index(made / "data.jsonl", made / "model", tmp_path / "i.jsonl")
    encoder, reader = Encoder(made / "model"), PixelReader(made / "model")
    assert [sample.id for sample in index.samples] == [1, 2, 3, 4, 5, 6, 7]
    for sample in index.samples:
        encoded = encoder.encode(sample)
        assert sample.tokens == len(encoded.input_ids)
        assert sample.label_tokens == encoded.label_tokens > 0
        grids = [medium.grid for medium in sample.media]
        assert sample.patches == sum(t * h * w for t, h, w in grids)
        assert sample.frame_patches == max([h * w for _, h, w in grids], default=0)
        assert sample.as_sequence() == Sequence(sample.id, sample.tokens, sample.patches, sample.frame_patches)
        rows = [reader.read_units(medium, 0, medium.units).shape for medium in sample.media]
        assert rows == [(t * h * w, reader.patch_width) for t, h, w in grids]
        assert sample.patches == 4 * int((encoded.media_type > 0).sum())
    assert index.samples[0].media == ()
    assert index.samples[0].patches == 0
    assert [m.kind for m in index.samples[6].media] == ["image", "video", "image"]


def test_round_trip(made: Path, tmp_path: Path) -> None:
    built = build_index(made / "data.jsonl", made / "model", tmp_path / "i.jsonl")
    loaded = load_index(tmp_path / "i.jsonl", made / "data.jsonl", made / "model")
    assert loaded.samples == built.samples
    assert loaded.by_id[5] == built.samples[4]
    header = json.loads((tmp_path / "i.jsonl").read_text().splitlines()[0])
    assert header["format"] == "dhp.index/1"
    assert header["samples"] == 7


def test_index_moves_with_its_data(folder: Path, tmp_path: Path) -> None:
    before = build_index(folder / "data.jsonl", folder / "model")
    assert before.path == folder / "data.index.jsonl" == default_path(folder / "data.jsonl")
    assert str(folder) not in before.path.read_text()
    moved = folder.rename(tmp_path / "elsewhere")
    after = load_index(moved / "data.index.jsonl", model=moved / "model")
    assert after.samples[1].media[0].source == str(moved / "media" / "small.png")
    assert PixelReader(moved / "model").read_units(after.samples[3].media[0], 0, 1).shape[0] > 0


def test_same_bytes_from_any_number_of_workers(made: Path, tmp_path: Path) -> None:
    texts = set()
    for workers in (1, 3):
        build_index(made / "data.jsonl", made / "model", tmp_path / "i.jsonl", workers=workers)
        texts.add((tmp_path / "i.jsonl").read_text())
    assert len(texts) == 1


def test_load_or_build(folder: Path) -> None:
    data, model = folder / "data.jsonl", folder / "model"
    first = load_or_build_index(data, model)
    stamp = first.path.stat().st_mtime_ns
    assert load_or_build_index(data, model).samples == first.samples
    assert first.path.stat().st_mtime_ns == stamp
    elsewhere = load_or_build_index(data, model, folder / "sub" / "other.jsonl")
    assert elsewhere.path.exists()
    assert elsewhere.samples == first.samples


# ---- stale and damaged ----------------------------------------------------------------------------------------------


def test_changed_data_is_stale(folder: Path) -> None:
    data, model = folder / "data.jsonl", folder / "model"
    index = build_index(data, model)
    write(data, [*ROWS, row("One more?")])
    with pytest.raises(StaleIndexError, match=r"data\.index\.jsonl: is stale: the size of .*build it again"):
        load_index(index.path, data, model)
    write(data, [row("How art you?"), *ROWS[1:]])  # same size
    with pytest.raises(StaleIndexError, match=r"the content of .*data\.jsonl"):
        load_or_build_index(data, model)
    data.unlink()
    with pytest.raises(DataError, match=r"data\.jsonl: cannot be read"):
        load_index(index.path)


@pytest.mark.parametrize(
    "name", ["preprocessor_config.json", "video_preprocessor_config.json", "tokenizer_config.json"]
)
def test_changed_processor_is_stale(folder: Path, name: str) -> None:
    index = build_index(folder / "data.jsonl", folder / "model")
    path = folder / "model" / name
    path.write_text(path.read_text() + "\n")
    with pytest.raises(StaleIndexError, match="another tokenizer or processor"):
        load_index(index.path, folder / "data.jsonl", folder / "model")
    assert len(load_index(index.path).samples) == 7  # without a model to compare with


def test_other_weights_are_not_stale(folder: Path) -> None:
    index = build_index(folder / "data.jsonl", folder / "model")
    make_tiny_checkpoint(folder / "model", seed=1, deepstack=(0,), **SMALL)
    assert load_index(index.path, folder / "data.jsonl", folder / "model").samples == index.samples


def test_damaged_index(folder: Path) -> None:
    index = build_index(folder / "data.jsonl", folder / "model")
    text = index.path.read_text()
    lines = text.splitlines(keepends=True)
    for broken, message in [
        ("", "is not an index"),
        ("{", "is damaged"),
        (lines[1], "is not an index"),
        ("".join(lines[:-1]), "is cut off: 6 of 7 samples"),
        (text[:-40], "is damaged"),
        (text.replace('"tokens"', '"tokns"'), "is damaged"),
    ]:
        index.path.write_text(broken)
        with pytest.raises(DataError, match=message):
            load_index(index.path)


# ---- bad and too long samples ---------------------------------------------------------------------------------------


def test_limits() -> None:
    from dhp.data.index import Sample

    def sample(tokens: int) -> Sample:
        return Sample(3, tokens, 0, 1, (), ())

    assert Limits().check(sample(10**9)) is None
    assert Limits(max_tokens=100).check(sample(100)) is None
    problem = Limits(max_tokens=100, capacity_tokens_per_rank=40).check(sample(101))
    assert problem is not None
    assert problem.too_long
    assert (problem.id, problem.tokens, problem.degree) == (3, 101, 3)
    assert problem.message == "101 tokens, more than 100; fits at degree >= 3 (40 tokens a rank)"
    by_degree = Limits(max_degree=4, capacity_tokens_per_rank=100)
    assert by_degree.check(sample(400)) is None
    problem = by_degree.check(sample(401))
    assert problem is not None
    assert problem.degree == 5
    assert "more than 4 ranks hold; fits at degree >= 5" in problem.message


def test_too_long_samples(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.jsonl"
    whole = build_index(made / "data.jsonl", made / "model", out)
    out.unlink()
    longest = max(sample.tokens for sample in whole.samples)
    limits = Limits(max_tokens=longest - 1, capacity_tokens_per_rank=100)
    with pytest.raises(TooLongError, match=f"{longest} tokens, more than {longest - 1}; fits at degree"):
        build_index(made / "data.jsonl", made / "model", out, limits=limits)
    assert not out.exists()
    index = build_index(made / "data.jsonl", made / "model", out, limits=limits, on_error="skip")
    (problem,) = index.problems
    assert problem.degree == -(-longest // 100)
    assert {s.id for s in index.samples} | {problem.id} == set(range(1, 8))
    assert load_index(out).problems == index.problems


def test_every_bad_sample_is_named(folder: Path) -> None:
    (folder / "media" / "empty.png").touch()
    (folder / "media" / "words.mp4").write_text("words")
    data = write(
        folder / "bad.jsonl",
        [
            ROWS[0],
            row("<image>", images=["media/none.png"]),
            row("<image>", images=["media/empty.png"]),
            '{"messages": [',
            row("<video>", videos=["media/words.mp4"]),
            row("<image>"),
            row("a<|im_end|>"),
            row("<video>", videos=[{"video": "media/clip.mp4", "video_start": 99}]),
            ROWS[1],
        ],
    )
    with pytest.raises(DataError) as caught:
        build_index(data, folder / "model")
    lines = str(caught.value).splitlines()
    wanted = [
        (2, "media/none.png: no such file"),
        (3, "media/empty.png: is empty (0 bytes)"),
        (4, "not valid JSON at column"),
        (5, "media/words.mp4: cannot be decoded"),
        (6, "images: 0 listed"),
        (7, "control token <|im_end|>"),
        (8, "no frame from video_start 99"),
    ]
    assert len(lines) == len(wanted)
    for line, (number, text) in zip(lines, wanted, strict=True):
        assert line.startswith(f"{data}:{number}: ")
        assert text in line
    index = build_index(data, folder / "model", on_error="skip")
    assert [s.id for s in index.samples] == [1, 9]
    assert [p.id for p in index.problems] == [n for n, _ in wanted]


def test_verify_decodes_everything(folder: Path) -> None:
    path = folder / "media" / "cut.jpg"
    Image.open(folder / "media" / "large.png").save(path)
    path.write_bytes(path.read_bytes()[:6000])
    data = write(folder / "cut.jsonl", [ROWS[0], row("<image>", images=["media/cut.jpg"])])
    assert len(build_index(data, folder / "model").samples) == 2
    with pytest.raises(DataError, match=r"cut\.jsonl:2: .*cut\.jpg: cannot be decoded"):
        build_index(data, folder / "model", verify=True)


def test_nothing_to_index(folder: Path) -> None:
    for rows in ([], ["{"]):
        with pytest.raises(DataError, match="no sample can be used"):
            build_index(write(folder / "none.jsonl", rows), folder / "model", on_error="skip")


# ---- the command ----------------------------------------------------------------------------------------------------


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(folder / "data.jsonl")
    assert main([data, "--model", str(folder / "model")]) == 0
    out, err = capsys.readouterr()
    index = load_index(folder / "data.index.jsonl")
    assert out == f"{summary(index)}\nwrote {index.path}\n"
    assert "7 samples, 5 pictures, 4 clips" in out
    assert err == ""


def test_command_in_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(folder / "bad.jsonl", [*ROWS, "{"])
    options = ["--model", str(folder / "model"), "--on-error", "skip", "--output-format", "json", "-o"]
    assert main([str(data), *options, str(folder / "i.jsonl")]) == 0
    result = json.loads(capsys.readouterr().out)
    index = load_index(folder / "i.jsonl")
    assert result["index"] == str(folder / "i.jsonl")
    assert result["samples"] == 7
    assert result["tokens"]["total"] == sum(s.tokens for s in index.samples)
    assert result["patches"] == sum(s.patches for s in index.samples)
    assert [p["id"] for p in result["skipped"]] == [8]


def test_histogram_counts_every_sample(made: Path, tmp_path: Path) -> None:
    index = build_index(made / "data.jsonl", made / "model", tmp_path / "i.jsonl")
    counted = [line.split() for line in summary(index).splitlines() if line.startswith("   ")]
    assert sum(int(words[3]) for words in counted) == len(index.samples)
    for low, _, high, count, *_ in counted:
        inside = [s for s in index.samples if int(low.replace(",", "")) <= s.tokens <= int(high.replace(",", ""))]
        assert len(inside) == int(count)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data.jsonl", "--model", "model", "--max-tokens", "50"], 1, "fits"),
        (["data.jsonl", "--model", "model", "--max-degree", "2", "--capacity-tokens-per-rank", "40"], 1, "degree >= "),
        (["data.jsonl", "--model", "model", "--max-tokens", "50", "--on-error", "skip"], 0, "skipped"),
        (["data.jsonl", "--model", "media"], 2, "no config.json"),
        (["data.jsonl", "--model", "llava"], 2, 'model_type "llava" is not supported; supported: qwen3_vl'),
        (["none.jsonl", "--model", "model"], 2, "none.jsonl: cannot be read"),
        (["lost.jsonl", "--model", "model"], 2, "lost.jsonl:1: "),
    ],
)
def test_exit_codes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    (folder / "llava").mkdir()
    (folder / "llava" / "config.json").write_text('{"model_type": "llava"}')
    write(folder / "lost.jsonl", [row("<image>", images=["lost.png"])])
    if code == 1 and "--max-tokens" in arguments:
        message = "tokens, more than 50"
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert message in err
    assert (folder / "data.index.jsonl").exists() == (code == 0)
    assert bool(out) == (code == 0)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["d.jsonl"],
        ["d.jsonl", "--model", "m", "--max-tokens", "0"],
        ["d.jsonl", "--model", "m", "--max-tokens", "many"],
        ["d.jsonl", "--model", "m", "--max-degree", "4"],
        ["d.jsonl", "--model", "m", "--workers", "257"],
        ["d.jsonl", "--model", "m", "--on-error", "hope"],
    ],
)
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "dhp index: error:" in capsys.readouterr().err


# ---- kinds of problems, and what becomes of them --------------------------------------------------------------------

ODD = [
    '{"messages": [',  # 2
    '{"messages": NaN}',
    '{"messages": [{"role": "user", "content": "a \\ud83d"}, {"role": "assistant", "content": "b"}]}',
    json.dumps(row("a") | {"tools": r'[{"name": "\ud800"}]'}),
    json.dumps(row("a") | {"tools": [r'{"name": "\ud800"}']}),
    json.dumps(
        {"messages": [*row("a")["messages"], {"role": "tool_call", "content": r'{"id": "\ud800", "name": "f"}'}]}
    ),
    "[" * 100_000,
    '{"messages": ' + "9" * 5000 + "}",
    json.dumps(row("<image>", images=[{"image": "media/small.png", "max_pixels": 10**30}])),
    json.dumps(row("<video>", videos=[{"video": "media/clip.mp4", "nframes": 200}])),
    json.dumps({**row("a"), "rejected_response": "b"}),
    json.dumps(row("a<|im_end|>")),
]


def test_one_odd_line_ends_no_index(folder: Path) -> None:
    (folder / "media" / "empty.png").touch()
    media = [row("<image>", images=[name]) for name in ("media/none.png", "media/empty.png", "n" * 5000, "media")]
    data = write(folder / "odd.jsonl", [ROWS[0], *ODD, *media, ROWS[1]])
    with open(data, "ab") as file:
        file.write(b'{"messages": "\xff"}\n')
    index = build_index(data, folder / "model", on_error="skip")
    assert [s.id for s in index.samples] == [1, 2 + len(ODD) + len(media)]
    kinds = {p.id: p.kind for p in index.problems}
    assert list(kinds.values()) == ["malformed"] * len(ODD) + ["media"] * len(media) + ["malformed"]
    assert all(len(p.message) < 500 and "\n" not in p.message for p in index.problems)
    assert load_index(index.path).problems == index.problems
    named = index.left_out()
    assert named.startswith(f"{data}: 17 left out (13 malformed, 4 media):\n{data}:2: not valid JSON")
    assert len(named.splitlines()) == 19
    assert named.endswith(f"\nfound when {index.path} was built; after mending, remove it to look again")


def test_what_a_library_raises_is_named_with_its_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dhp.data import scan

    def broken(*_: Any) -> Any:
        raise LookupError("what is this?")

    monkeypatch.setattr(scan, "place_medium", broken)
    index = build_index(folder / "data.jsonl", folder / "model", on_error="skip")
    assert [s.id for s in index.samples] == [1]
    assert {(p.kind, p.message) for p in index.problems} == {("unexpected", "unexpected LookupError: what is this?")}
    with pytest.raises(DataError, match="unexpected LookupError"):
        build_index(folder / "data.jsonl", folder / "model", on_error="skip", on_malformed="fail")


@pytest.mark.parametrize(
    ("on_error", "on_malformed", "refused"),
    [
        ("fail", "", [2, 3]),
        ("skip", "", []),
        ("skip", "fail", [2]),
        ("fail", "skip", [3]),
        ("skip", "skip", []),
        ("fail", "fail", [2, 3]),
    ],
)
def test_malformed_lines_are_no_bad_media(folder: Path, on_error: str, on_malformed: str, refused: list[int]) -> None:
    data = write(folder / "d.jsonl", [ROWS[0], "{", row("<image>", images=["none.png"]), ROWS[1]])
    how = {"on_error": on_error, "on_malformed": on_malformed}
    build_index(data, folder / "model", folder / "there.jsonl", on_error="skip")
    for index in ("made.jsonl", "there.jsonl"):  # the same is said of an index that is there
        if not refused:
            assert [p.id for p in load_or_build_index(data, folder / "model", folder / index, **how).problems] == [2, 3]
            continue
        with pytest.raises(DataError) as caught:
            load_or_build_index(data, folder / "model", folder / index, **how)
        assert [int(line.split(":")[1]) for line in str(caught.value).splitlines()] == refused
        assert ("on_bad_media" in str(caught.value), "on_malformed" in str(caught.value)) == (
            3 in refused,
            2 in refused,
        )
    assert (folder / "made.jsonl").exists() == (not refused)


def test_the_first_twenty_problems_are_named_and_the_rest_counted(folder: Path) -> None:
    index = build_index(write(folder / "d.jsonl", [ROWS[0], *["{"] * 1030]), folder / "model", on_error="skip")
    lines = index.left_out().splitlines()
    assert len(lines) == 23
    assert lines[0].endswith("1,030 left out (1,030 malformed):")
    assert lines[-2] == "... and 1,010 more"


def test_names_forge_no_lines(folder: Path) -> None:
    name = "a\nskipped 1:\tb\r\u2028.png"
    rows = [
        ROWS[0],
        row("<image>", images=[name]),
        row("<image>", images=[f"{name}{'n' * 300}"]),
        {**row("a"), "audio\n": "x"},
        {**row("a"), "key\nforged": 1},
    ]
    index = build_index(write(folder / "d.jsonl", rows), folder / "model", on_error="skip")
    assert len(index.left_out().splitlines()) == 1 + 3 + 1
    assert index.problems[0].message.endswith(r"a\nskipped 1:\tb\r\u2028.png: no such file")
    assert index.ignored_keys().endswith(r"key\nforged (1)")


def test_wider_settings_make_an_index_stale_that_left_lines_out(folder: Path) -> None:
    data, model = write(folder / "d.jsonl", [ROWS[0], ROWS[1], row("a" * 5000)]), folder / "model"
    (folder / "media/sub").mkdir()

    def load(roots: tuple[str, ...], longest: int) -> list[int]:
        roots = tuple(str(folder / name) for name in roots)
        index = load_or_build_index(data, model, on_error="skip", media_roots=roots, max_line_bytes=longest)
        return [sample.id for sample in index.samples]

    assert load(("media/sub",), 1000) == [1]
    assert load(("media/sub",), 1000) == load(("media/sub",), 900) == [1]
    for roots in (("media",), ("media/sub", "model"), ()):
        with pytest.raises(StaleIndexError, match=r"stale: media_roots was \['.*/media/sub'\], is .*; remove it, or"):
            load(roots, 1000)
    with pytest.raises(StaleIndexError, match=r"max_line_bytes was 1,000, is 10,000"):
        load(("media/sub",), 10_000)
    default_path(data).unlink()
    assert load((), 10_000) == [1, 2, 3]
    assert load(("media",), 10_000) == [1, 2, 3]
    assert load(("media/sub",), 10_000) == [1, 3]


def test_an_index_of_an_older_version_is_stale(folder: Path) -> None:
    index = build_index(folder / "data.jsonl", folder / "model")
    header, *rest = index.path.read_text().splitlines(keepends=True)
    values = json.loads(header)
    del values["rules"]
    index.path.write_text(json.dumps(values) + "\n" + "".join(rest))
    with pytest.raises(StaleIndexError, match="another version of dhp; build it again"):
        load_index(index.path)


def test_a_long_line_is_malformed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(folder / "d.jsonl", [ROWS[0], row("x" * 2000), ROWS[1]])
    options = ["--model", str(folder / "model"), "--max-line-bytes", "1000"]
    assert main([str(data), *options]) == 2
    assert f"{data}:2: is longer than 1,000 bytes; shorten it, or raise max_line_bytes" in capsys.readouterr().err
    assert main([str(data), *options, "--on-malformed", "skip"]) == 0
    assert len(load_index(folder / "d.index.jsonl").samples) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(tokens="12"),
        lambda s: s.update(patches=-1),
        lambda s: s.update(id=None),
        lambda s: s.update(label_tokens=1.5),
        lambda s: s["media"][0].update(grid=[1, 2]),
        lambda s: s["media"][0].update(height="x"),
        lambda s: s["media"][0].update(kind="sound"),
        lambda s: s["media"][0].update(source=5),
        lambda s: s["media"][0].update(colour=5),
        lambda s: s.update(media=5),
        lambda s: s.update(messages=[{"role": "user"}]),
    ],
)
def test_what_no_index_of_ours_holds_is_damage(folder: Path, change: Any) -> None:
    index = build_index(folder / "data.jsonl", folder / "model")
    lines = index.path.read_text().splitlines()
    sample = json.loads(lines[2])
    change(sample)
    index.path.write_text("\n".join([*lines[:2], json.dumps(sample), *lines[3:]]) + "\n")
    with pytest.raises(DataError, match=r"is damaged \((TypeError|KeyError): .*build it again"):
        load_index(index.path)


# ---- writing --------------------------------------------------------------------------------------------------------


def test_an_index_that_cannot_be_written_is_refused_before_the_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dhp.data import index

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("the data was read")

    monkeypatch.setattr(index, "scan", never)
    (folder / "file").touch()
    for output in (folder / "media", folder / "file" / "i.jsonl"):
        assert main([str(folder / "data.jsonl"), "--model", str(folder / "model"), "-o", str(output)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"dhp index: error: the index (-o of dhp index, `index` of dhp train): {output} cannot")
        assert said.count("\n") == 1
    data = str(folder / "data.jsonl")
    assert main([data, "--model", str(folder / "model"), "-o", data]) == 2
    assert "is the data itself; give another path" in capsys.readouterr().err
    assert main([str(folder / "typo" / "data.jsonl"), "--model", str(folder / "model")]) == 2
    assert not (folder / "typo").exists()


def test_names_that_no_file_can_have(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = folder / "data.jsonl", folder / "model"
    with pytest.raises(InputError, match=r"n{300} cannot be written \(File name too long\)"):
        load_or_build_index(data, model, "n" * 300)
    monkeypatch.chdir(folder)
    for path in (".", "/"):
        with pytest.raises(DataError, match="is a folder; give the path of a JSONL file"):
            load_or_build_index(path, model)


def test_a_full_disk_leaves_no_half_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = sorted(folder.iterdir())
    with pytest.raises(InputError, match=r"data\.index\.jsonl cannot be written \(No space left on device\)"):
        build_index(folder / "data.jsonl", folder / "model")
    assert sorted(folder.iterdir()) == before


WHILE_READING = """
from dhp.data import scan
def place(*_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.5)
scan.place_medium = place
"""
WHILE_IMPORTING = """
class Finder:
    def find_spec(self, name, *_):
        if name == "torch":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)
sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("when", [WHILE_READING, WHILE_IMPORTING], ids=["reading", "importing"])
def test_interrupt(folder: Path, when: str) -> None:
    """Ctrl-C ends the command with 130, one line, and no index."""
    code = f"import os, signal, sys, time\n{when}\nfrom dhp.commands import index\nsys.exit(index())"
    command = [sys.executable, "-c", code, str(folder / "data.jsonl"), "--model", str(folder / "model")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == "dhp index: interrupted; nothing was written\n"
    assert done.returncode == 130
    assert not (folder / "data.index.jsonl").exists()
