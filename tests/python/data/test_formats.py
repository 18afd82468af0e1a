"""Data files other than JSON lines of paths: base64, WebDataset. Against the same samples as files."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from dhp.data.errors import DataError
from dhp.data.formats.tars import key_of
from dhp.data.indexing.index import Index, build_index, load_index, load_or_build_index
from indexed_data import row, write
from same_data import CLIP_TURNS, PLAIN, TURNS, check_same

# ---- base64 ---------------------------------------------------------------------------------------------------------


def url_of(file: Path) -> str:
    kind = "video/mp4" if file.suffix == ".mp4" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def as_base64(folder: Path, one: dict[str, Any]) -> dict[str, Any]:
    media = {key: [url_of(folder / path) for path in one[key]] for key in ("images", "videos") if key in one}
    return one | media


def test_base64_stands_in_the_line(folder: Path) -> None:
    rows = [as_base64(folder, one) for one in PLAIN]
    rows[2] = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": rows[2]["images"][0]}},
                    {"type": "text", "text": "Which?"},
                    {"type": "image", "image": rows[2]["images"][1]},
                ],
            },
            TURNS[1],
        ]
    }
    lines = [json.dumps(one) for one in rows]
    lines[0] = "\u00e4".join(['{"source": "', f'", {lines[0][1:]}'])  # two bytes of one character come before it
    lines[1] = lines[1].replace("/", "\\/")
    data = folder / "data.jsonl"
    data.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(lines).encode() + b"\n")
    index = build_index(data, folder / "model")
    check_same(index, folder, PLAIN)
    assert "base64" not in str(index.samples[0].messages)
    assert max(index.file.columns["end"][1:] - index.file.columns["end"][:-1]) < 2000, "no picture is in the index"
    moved = folder.rename(folder.parent / "moved")
    check_same(load_index(moved / "data.index"), moved, PLAIN)


def test_base64_moves_with_its_line(folder: Path) -> None:
    rows = [as_base64(folder, PLAIN[0])] * 2
    data = write(folder / "data.jsonl", rows)
    first = build_index(data, folder / "model")
    write(data, [row("A line before."), *rows])
    again = build_index(data, folder / "model")
    assert again.samples[1].media[0].source != first.samples[0].media[0].source
    check_same(again, folder, [row("A line before."), PLAIN[0], PLAIN[0]])


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("data:image/png;base64,", "malformed", "a data URL must be data:TYPE;base64"),
        ("data:image/png,abc", "malformed", "a data URL must be data:TYPE;base64"),
        ("data:image/png;base64,ab$c", "media", "is not base64"),
        ("data:image/png;base64,abc", "media", "is not base64"),
        ("data:image/png;base64,AAAA", "media", "is not a picture in a known format"),
        ("https://example.org/a.png", "media", "at an address that media_roots does not allow"),
    ],
)
def test_odd_urls(folder: Path, url: str, kind: str, message: str) -> None:
    data = write(folder / "data.jsonl", [row("<image>", images=[url]), PLAIN[3]])
    (problem,) = build_index(data, folder / "model", on_error="skip").problems
    assert problem.kind == kind
    assert message in problem.message and len(problem.message) < 300


# ---- tar ------------------------------------------------------------------------------------------------------------


def write_tar(file: Path, members: list[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(file, "w", format=kind) as tar:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return file


def shard(folder: Path) -> list[tuple[str, bytes]]:
    """The rows PLAIN as members."""
    small, large, clip = ((folder / "media" / name).read_bytes() for name in ("small.png", "large.png", "clip.mp4"))
    return [
        ("a/000.json", json.dumps({"messages": TURNS}).encode()),
        ("a/000.png", small),
        ("a/001.mp4", clip),
        ("a/001.json", json.dumps({"messages": CLIP_TURNS, "videos": ["mp4"]}).encode()),
        ("b/000.0.png", small),
        ("b/000.1.png", large),
        ("b/000.json", json.dumps(PLAIN[2] | {"images": ["b/000.1.png", "0.png"]}).encode()),
        ("b/001.json", json.dumps(PLAIN[3]).encode()),
    ]


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_is_as_files(folder: Path, kind: int) -> None:
    index = build_index(write_tar(folder / "shard.tar", shard(folder), kind), folder / "model")
    assert index.path == folder / "shard.tar.index"
    check_same(index, folder, PLAIN)
    assert load_or_build_index(folder / "shard.tar", folder / "model").samples == index.samples
    moved = folder.rename(folder.parent / "moved")
    check_same(load_index(moved / "shard.tar.index", model=moved / "model"), moved, PLAIN)


def test_a_relative_path_of_the_data(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named so when the index is built, and read from elsewhere."""
    write_tar(folder / "shard.tar", shard(folder))
    write(folder / "base64.jsonl", [as_base64(folder, one) for one in PLAIN])
    write(folder / "paths.jsonl", PLAIN)
    (tmp_path / "link").symlink_to(folder)
    for place in (folder, tmp_path / "link", folder / "media"):
        monkeypatch.chdir(place)
        for name in ("shard.tar", "base64.jsonl", "paths.jsonl"):
            data = name if place.name != "media" else f"../{name}"
            index = build_index(data, folder / "model", tmp_path / "built" / "i")
            monkeypatch.chdir(tmp_path)
            assert str(index.samples[0].media[0].source).startswith(f"{folder.resolve()}/")
            check_same(load_index(tmp_path / "built" / "i"), folder, PLAIN)
            assert str(folder.resolve()).encode() not in b"".join(records_of(index))
            monkeypatch.chdir(place)


def records_of(index: Index) -> list[bytes]:
    return [index.file.record_bytes(row) for row in range(len(index.samples))]


def test_captions(folder: Path) -> None:
    small = (folder / "media" / "small.png").read_bytes()
    tar = write_tar(folder / "c.tar", [("1.png", small), ("1.txt", b" A lawn.\n"), ("2.txt", b"No picture.")])
    index = build_index(tar, folder / "model", on_error="skip")
    plain = {"role": "user", "content": "<image>"}, {"role": "assistant", "content": "A lawn."}
    check_same(index, folder, [{"messages": list(plain), "images": ["media/small.png"]}])
    assert [p.message for p in index.problems] == [
        "2.txt: a sample with a caption has one picture or clip, found 0; write a .json"
    ]


def test_what_belongs_together() -> None:
    assert [key_of(name) for name in ("a/b.c.d", "a.x/b.c", "./a.b", "a")] == ["a/b", "a.x/b", "./a", "a"]


def test_a_tar_with_a_bad_tail_gives_what_comes_before(folder: Path) -> None:
    members = shard(folder)
    tar = write_tar(folder / "shard.tar", members)
    whole = tar.read_bytes()
    with tarfile.open(tar) as opened:
        third, last = opened.getmembers()[4], opened.getmembers()[-1]
    for cut, text in (
        (2, whole[: third.offset_data + 100]),  # within a picture
        (1, whole[: third.offset + 200]),  # within a header: whether the sample before goes on is lost
        (1, whole[: third.offset] + b"x" * 512 + whole[third.offset + 512 :]),
        (3, whole[: last.offset + 1024]),  # no end is marked
    ):
        tar.write_bytes(text)
        index = build_index(tar, folder / "model", on_error="skip")
        assert index.samples.ids.tolist() == list(range(1, cut + 1)), cut
        (problem,) = index.problems
        assert problem.kind == "malformed" and "the tar is damaged behind sample" in problem.message
        with pytest.raises(DataError, match="the tar is damaged behind sample"):
            build_index(tar, folder / "model")
    for nothing in (b"", b"no tar", whole[:200]):
        tar.write_bytes(nothing)
        with pytest.raises(DataError, match=r"shard\.tar: (is no tar file, or damaged|no sample can be used)"):
            build_index(tar, folder / "model", on_error="skip")


def test_odd_members_are_problems_of_their_sample(folder: Path) -> None:
    small = (folder / "media" / "small.png").read_bytes()
    tar = write_tar(
        folder / "odd.tar",
        [
            ("1.json", b"{"),
            ("2.json", b"\xff"),
            ("3.png", small),
            ("4.json", json.dumps({"messages": TURNS, "images": ["none.png"]}).encode()),
            ("5.json", json.dumps({"messages": TURNS}).encode()),
            ("5.png", small[:50]),
            ("6.json", json.dumps({"messages": TURNS}).encode()),
            ("6.png", small),
        ],
    )
    index = build_index(tar, folder / "model", on_error="skip")
    assert index.samples.ids.tolist() == [6]
    said = {problem.id: problem.message for problem in index.problems}
    assert "1.json: not valid JSON" in said[1] and "2.json is not UTF-8" in said[2]
    assert "a sample has a member .json" in said[3] and "none.png: no such file" in said[4]
    assert said[5].startswith(f"{tar}: 5.png: cannot be decoded") or "5.png" in said[5]


def test_media_roots_hold_for_the_file_that_media_are_in(folder: Path) -> None:
    tar = write_tar(folder / "shard.tar", shard(folder)[:2])
    with pytest.raises(DataError, match=r"shard\.tar: a/000\.png: lies outside media_roots"):
        build_index(tar, folder / "model", media_roots=[str(folder / "media")])
    assert len(build_index(tar, folder / "model", media_roots=[str(folder)]).samples) == 1
