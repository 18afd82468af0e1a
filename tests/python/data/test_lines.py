"""Lines of data files: one odd line is that line's problem, a file of another kind is refused in one line, and no line
is read further than the limit."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dhp.data.errors import DataError
from dhp.data.formats.lines import parse_json, read_lines

GOOD = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})


def lines(path: Path, content: bytes, *limit: int) -> list[tuple[int, str | None]]:
    """(number, text) of each line; None where it is a problem."""
    path.write_bytes(content)
    return [(n, None if isinstance(t, DataError) else t.strip()) for n, t in read_lines(path, *limit)]


def test_numbers_count_all_lines(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf{}\r\n\r\n  \n{ }\n\x0b\n{}"
    assert lines(tmp_path / "d", content) == [(1, "{}"), (4, "{ }"), (6, "{}")]
    assert lines(tmp_path / "d", b"") == []


def test_invalid_text_is_the_problem_of_its_line(tmp_path: Path) -> None:
    assert lines(tmp_path / "d", b"{}\n{\xff}\n\xed\xa0\xbd\n{}\n") == [(1, "{}"), (2, None), (3, None), (4, "{}")]
    (_, error) = list(read_lines(tmp_path / "d"))[1]
    assert str(error) == "is not UTF-8 text (byte 2 of the line is 0xff)"


@pytest.mark.parametrize(("length", "fits"), [(99, True), (100, True), (101, False), (5000, False)])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_limit_of_a_line(tmp_path: Path, length: int, fits: bool, end: bytes) -> None:
    content = b"{}\n" + b"x" * length + end
    found = lines(tmp_path / "d", content + (b"{}" if end else b""), 100)
    assert found[:2] == [(1, "{}"), (2, "x" * length if fits else None)]
    assert found[2:] == ([(3, "{}")] if end else [])


def test_a_long_line_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "d"
    with open(path, "wb") as file:
        file.write(b"{}\n")
        file.seek(2 << 30)  # 2 GiB of zeros, on disk a hole
        file.write(b"\n{}\n")
    code = f"from dhp.data.formats.lines import read_lines; print([n for n, _ in read_lines({str(path)!r})])"
    limit = 1 << 30

    def cap() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run([sys.executable, "-c", code], preexec_fn=cap, capture_output=True, text=True)
    assert done.stdout == "[1, 2, 3]\n", done.stderr


PRETTY = json.dumps([json.loads(GOOD)] * 2, indent=1).encode()
OTHER_KINDS = [
    (PRETTY, "is a JSON array"),
    (b"[" + GOOD.encode() + b"]\n", "is a JSON array"),
    (b"[" + GOOD.encode() + b",\n" + GOOD.encode() + b"]\n", "is a JSON array"),
    (json.dumps(json.loads(GOOD), indent=2).encode(), "one JSON object over several lines"),
    (b"id,text\n1,a\n2,b\n", "no JSON lines"),
    (b"\x1f\x8b\x08\x00", "is a gzip file"),
    (b"PAR1\x15\x04", "is a Parquet file"),
    (b"PK\x03\x04", "is a zip file"),
    (b"\xff\xfe{\x00}\x00", "is not UTF-8 text but UTF-16"),
    (b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS"),
]


@pytest.mark.parametrize(("content", "said"), OTHER_KINDS, ids=[said for _, said in OTHER_KINDS])
def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        lines(tmp_path / "d", content)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'd'}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("odd", [b"[1, 2]", b"[INFO] started", b"", b"null", b'{"messages": [', b"hello", b"[", b"{"])
def test_one_odd_first_line_is_no_other_kind(tmp_path: Path, odd: bytes) -> None:
    found = lines(tmp_path / "d", odd + b"\n" + GOOD.encode() + b"\n") if odd != b"[" else [(2, GOOD)]
    assert found[-1] == (2, GOOD)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for path, said in (
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (tmp_path / "none", "No such file"),
        (tmp_path / ("n" * 5000), "File name too long"),
    ):
        with pytest.raises(DataError, match=f"cannot be read: .*{said}"):
            next(read_lines(path))
    with pytest.raises(DataError, match="embedded null"):
        next(read_lines("a\0b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "b": 2, "a": 3}', 'the key "a" stands twice'),
        ('{"x": {"a": 1, "a": 1}}', 'the key "a" stands twice'),
        ("[NaN]", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("[1e999]", "1e999 is too large"),
        ("9" * 5000, "4300"),
        ("[" * 100_000, "nested more than 100 levels"),
        ('{"a":' * 100_000, "nested more than 100 levels"),
        ("[" * 101 + "]" * 101, "nested more than 100 levels"),
        ('{"a":[' * 50 + "{}" + "]}" * 50, "nested more than 100 levels"),
        ("{'a': 1}", "column 2"),
        ('"\x00"', "Invalid control character"),
        ("", "column 1"),
        (r'"\ud800"', r"\ud800 is half of a character"),
        (r'{"\uDFFF": 1}', r"\udfff is half of a character"),
        (r'[["a \ud83d b"]]', r"\ud83d is half of a character"),
    ],
)
def test_json_is_strict(text: str, said: str) -> None:
    with pytest.raises(DataError, match=r"^not valid JSON") as caught:
        parse_json(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_key_that_stands_twice_among_many_is_found_at_once() -> None:
    keys = [f'"{number}": 0' for number in range(200_000)]
    with pytest.raises(DataError, match='the key "199999" stands twice'):
        parse_json("{" + ", ".join([*keys, keys[-1]]) + "}")


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        json.loads("[" * 100 + "]" * 100),
        [[]] * 1000,
        {"a": [1.5, None, True, "\u2028"]},
        10**4000,
        "\U0001f600",
    ],
)
def test_json_is_json(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
