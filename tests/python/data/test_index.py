"""The index: exact counts, round trip, staleness, limits, problems and what becomes of them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dhp._core import InputError, Sequence
from dhp.data.decoding.media import PixelReader
from dhp.data.errors import DataError, StaleIndexError
from dhp.data.indexing import freshness
from dhp.data.indexing.index import (
    Limits,
    TooLongError,
    build_index,
    default_path,
    load_index,
    load_or_build_index,
)
from dhp.data.text import Encoder
from indexed_data import ROWS, row, write
from tiny_run import make_tiny

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
        assert rows == [(t * h * w, *reader.shape) for t, h, w in grids]
        assert sample.patches == 4 * int((encoded.media_type > 0).sum())
    assert index.samples[0].media == ()
    assert index.samples[0].patches == 0
    assert [m.kind for m in index.samples[6].media] == ["image", "video", "image"]


def test_round_trip(made: Path, tmp_path: Path) -> None:
    built = build_index(made / "data.jsonl", made / "model", tmp_path / "i.jsonl")
    loaded = load_index(tmp_path / "i.jsonl", made / "data.jsonl", made / "model")
    assert loaded.samples == built.samples
    assert loaded.sample(5) == built.samples[4]
    with pytest.raises(KeyError):
        loaded.sample(8)
    assert loaded.file.header["samples"] == 7
    for name, of_sample in (
        ("ids", lambda s: s.id),
        ("tokens", lambda s: s.tokens),
        ("patches", lambda s: s.patches),
        ("frame_patches", lambda s: s.frame_patches),
        ("label_tokens", lambda s: s.label_tokens),
    ):
        assert getattr(loaded.samples, name).tolist() == [of_sample(sample) for sample in loaded.samples]
    assert loaded.samples.sequences([6, 0]) == [loaded.samples[6].as_sequence(), loaded.samples[0].as_sequence()]


def test_index_moves_with_its_data(folder: Path, tmp_path: Path) -> None:
    before = build_index(folder / "data.jsonl", folder / "model")
    assert before.path == folder / "data.index" == default_path(folder / "data.jsonl")
    assert str(folder).encode() not in before.path.read_bytes()
    moved = folder.rename(tmp_path / "elsewhere")
    after = load_index(moved / "data.index", model=moved / "model")
    assert after.samples[1].media[0].source == str(moved / "media" / "small.png")
    assert PixelReader(moved / "model").read_units(after.samples[3].media[0], 0, 1).shape[0] > 0


def test_same_bytes_from_any_number_of_workers(made: Path, tmp_path: Path) -> None:
    os.utime(made / "data.jsonl", (1e9, 1e9))
    texts = set()
    for workers in (1, 3):
        build_index(made / "data.jsonl", made / "model", tmp_path / f"{workers}" / "i.jsonl", workers=workers)
        texts.add((tmp_path / f"{workers}" / "i.jsonl").read_bytes())
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


# ---- stale --------------------------------------------------------------------------------------------------------


def test_changed_data_is_stale(folder: Path) -> None:
    data, model = folder / "data.jsonl", folder / "model"
    index = build_index(data, model)
    write(data, [*ROWS, row("One more?")])
    with pytest.raises(StaleIndexError, match=r"data\.index: is stale: the size of .*build it again"):
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
    make_tiny(folder / "model", seed=1)
    assert load_index(index.path, folder / "data.jsonl", folder / "model").samples == index.samples


def test_an_index_of_data_without_end(folder: Path) -> None:
    """Where there is an index already, its data is read to compare; and an index without end."""
    index = build_index(folder / "data.jsonl", folder / "model")
    for path, data in ((index.path, "/dev/zero"), ("/dev/zero", folder / "data.jsonl")):
        with pytest.raises(DataError, match=r"/dev/zero: cannot be read: is no regular file"):
            load_index(path, data)


def test_data_is_read_again_only_where_it_may_have_changed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = folder / "data.jsonl", folder / "model"
    hashed: list[Path] = []
    identity = freshness.identity
    monkeypatch.setattr(freshness, "identity", lambda path, advance: hashed.append(path) or identity(path, advance))
    os.utime(data)
    with monkeypatch.context() as changing:
        changing.setattr(freshness, "_COARSE_NS", 10**15)
        load_index(build_index(data, model).path, data, model)
    assert hashed == [data], "it had changed just before it was indexed"
    os.utime(data, (1e9, 1e9))
    index = build_index(data, model)
    hashed.clear()
    load_index(index.path, data, model)
    assert hashed == []
    os.utime(data, (2e9, 2e9))
    assert load_index(index.path, data, model).samples == index.samples
    assert hashed == [data]
    data.write_text(data.read_text().replace("How are", "How art"))
    os.utime(data, (2e9, 2e9))
    with pytest.raises(StaleIndexError, match="the content of"):
        load_index(index.path, data, model)


# ---- bad and too long samples ---------------------------------------------------------------------------------------


def test_limits() -> None:
    from dhp.data.indexing.index import Sample

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
    assert named.endswith(f"\nfound when {index.path} was built; after mending, run dhp index again")


def test_what_a_library_raises_is_named_with_its_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dhp.data.indexing import scan

    def broken(*_: Any) -> Any:
        raise LookupError("what is this?")

    monkeypatch.setattr(scan, "probe_medium", broken)
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
    index.path.write_bytes(re.sub(rb'"rules": \d', b'"rules": 1', index.path.read_bytes()))
    with pytest.raises(StaleIndexError, match="another version of dhp; build it again"):
        load_index(index.path)


def test_names_that_no_file_can_have(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = folder / "data.jsonl", folder / "model"
    with pytest.raises(InputError, match=r"n{300} cannot be written \(File name too long\)"):
        load_or_build_index(data, model, "n" * 300)
    monkeypatch.chdir(folder)
    for path in (".", "/"):
        with pytest.raises(DataError, match="is a folder; give the path of a JSONL file"):
            load_or_build_index(path, model)
