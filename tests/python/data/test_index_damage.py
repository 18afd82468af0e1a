"""Damage to an index file: whatever is not as it was written is named, with the place, and nothing is made of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhp._core import InputError
from dhp.data.errors import DataError
from dhp.data.indexing import freshness
from dhp.data.indexing.index import build_index, load_index
from indexed_data import ROWS, write
from made_index import RECORD, write_made_index


def test_damaged_index(folder: Path) -> None:
    index = build_index(folder / "data.jsonl", folder / "model")
    whole = index.path.read_bytes()
    header = whole[: whole.index(b"\n") + 1]
    for broken, message in [
        (b"", "is not an index"),
        (b"{", "is damaged"),
        (header[:-9], "is damaged"),
        (b"\0" * 5000, "is not an index"),
        ((folder / "data.jsonl").read_bytes(), "is not an index"),
        (b'{"format": "dhp.index/1", "rules": 2}\n', r"is stale: it is of an older version of dhp .*build it again"),
        (header, "is cut off: "),
        (whole[:-1], f"is cut off: {len(whole) - 1:,} of {len(whole):,} bytes; build it again"),
        (whole + b" ", "is longer than it says"),
        (whole.replace(b'"samples": 7', b'"samples": 8'), "is damaged"),
        (whole.replace(b'"samples": 7', b'"samples": -'), "is damaged"),
        (whole.replace(b'"tokens"', b'"tokns"', 1), "is damaged"),
        (whole.replace(b'"ignored": {}', b'"ignored": 55'), "is damaged"),
        (whole.replace(b'"media_roots": []', b'"media_roots": 55'), "is damaged"),
        (whole.replace(b'"problems": {}', b'"problems": 55'), "is damaged"),
    ]:
        assert broken != whole
        index.path.write_bytes(broken)
        with pytest.raises(DataError, match=message) as caught:
            load_index(index.path)
        assert str(caught.value).startswith(f"{index.path}: ")


def test_no_flipped_bit_of_a_number_or_record_goes_unseen(folder: Path) -> None:
    index = build_index(folder / "data.jsonl", folder / "model")
    whole = index.path.read_bytes()
    places = [range(index.file.records.start, len(whole))]
    body = -(-(whole.index(b"\n") + 1) // 64) * 64
    for about in index.file.header["columns"].values():
        at = body + about["at"]
        places.append(range(at, at + about["bytes"] * len(index.samples)))
    seed = 5
    generator = np.random.default_rng(seed)
    for place in places:
        for at in generator.choice(place, 6):
            broken = bytearray(whole)
            broken[at] ^= 1 << int(generator.integers(8))
            index.path.write_bytes(broken)
            with pytest.raises(DataError, match=r"data\.index: is damaged \(.*build it again with dhp index"):
                list(load_index(index.path).samples)


MEDIUM = {"kind": "image", "source": "a.png", "grid": [1, 2, 2], "height": 32, "width": 32}


@pytest.mark.parametrize(
    ("lengths", "change"),
    [
        ({"tokens": 0}, {}),
        ({"tokens": -1}, {}),
        ({"patches": -1}, {}),
        ({"id": 0}, {}),
        ({"end": 0}, {}),
        ({"end": 5}, {}),
        ({"end": 5000}, {}),
        ({"label_tokens": 1 << 60}, {}),
        ({}, {"media": [MEDIUM | {"grid": [1, 2]}]}),
        ({}, {"media": [MEDIUM | {"height": "x"}]}),
        ({}, {"media": [MEDIUM | {"height": [[1]]}]}),
        ({}, {"media": [MEDIUM | {"frame_indices": [-1]}]}),
        ({}, {"media": [MEDIUM | {"kind": "sound"}]}),
        ({}, {"media": [MEDIUM | {"source": 5}]}),
        ({}, {"media": [MEDIUM | {"colour": 5}]}),
        ({}, {"media": 5}),
        ({}, {"messages": [{"role": "user"}]}),
        ({}, {"messages": None}),
    ],
)
def test_what_no_index_of_ours_holds_is_damage(tmp_path: Path, lengths: dict[str, int], change: dict[str, Any]) -> None:
    rows = [{"tokens": 5}, {"tokens": 5} | lengths]
    data = write(tmp_path / "d.jsonl", [ROWS[0], ROWS[0]])
    header = {"data": freshness.identity(data, lambda: None) | {"path": "d.jsonl"}, "processor": "x"}
    write_made_index(tmp_path / "i", [{"tokens": 5}] * 2, header=header)
    assert load_index(tmp_path / "i").samples[1].tokens == 5
    write_made_index(tmp_path / "i", rows, [RECORD, RECORD | change], header)
    with pytest.raises(DataError, match=r"i: is (damaged \(|cut off: |longer than it says: ).*build it again"):
        list(load_index(tmp_path / "i").samples)


def test_what_a_header_says_is_not_allocated(tmp_path: Path) -> None:
    data = write(tmp_path / "d.jsonl", [ROWS[0]])
    header = {"data": freshness.identity(data, lambda: None) | {"path": "d.jsonl"}, "processor": "x"}
    for many in ({"samples": 1 << 49}, {"records": {"at": 576, "bytes": 1 << 49}}, {"samples": 1 << 60}):
        write_made_index(tmp_path / "i", [{"tokens": 5}], header=header | many)
        with pytest.raises(DataError, match=r"i: is (damaged|cut off).*build it again"):
            load_index(tmp_path / "i")


def test_a_full_disk_leaves_no_half_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = {*folder.iterdir(), folder / "data.index.unfinished"}
    with pytest.raises(InputError, match=r"data\.index cannot be written \(No space left on device\)"):
        build_index(folder / "data.jsonl", folder / "model")
    assert {*folder.iterdir()} == before
