"""Which addresses lie below which: what a data file may name decides what a cluster asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dhp.data.access.files import lies_below, resolved_roots, roots_of
from dhp.data.access.pieces import Piece, remote_piece, shown
from dhp.data.access.urls import Object, folder_of, is_below, is_url, joined, path_of, shown_url
from dhp.data.errors import DataError

ROOT = "https://host.example/data/"


@pytest.mark.parametrize(
    "url",
    [
        "https://host.example/data/a.jpg",
        "https://HOST.example/data/deep/er/a b.jpg",
        "HTTPS://host.example/data/a.jpg?X-Amz-Signature=1/../2",
        "https://host.example/data/%C3%A4.jpg",
        "https://host.example/data/..a/b..jpg",
        "https://host.example/data//a.jpg",
    ],
)
def test_below(url: str) -> None:
    assert is_below(url, ROOT)


@pytest.mark.parametrize(
    "url",
    [
        "http://host.example/data/a.jpg",
        "https://host.example:8443/data/a.jpg",
        "https://host.example/database/a.jpg",
        "https://host.example/data",
        "https://host.example/Data/a.jpg",
        "https://host.example.evil/data/a.jpg",
        "https://host.example@evil/data/a.jpg",
        "https://evil/https://host.example/data/a.jpg",
        "https://evil?https://host.example/data/a.jpg",
        "https://evil#@host.example/data/a.jpg",
        "https://host.example\\@evil/data/a.jpg",
        "https://host.example/data/../secret",
        "https://host.example/data/%2e%2E/secret",
        "https://host.example/data/%252e%252e/secret",
        "https://host.example/data/..%2fsecret",
        "https://host.example/data/..%5csecret",
        "https://host.example/data/.\\secret",
        "https://host.example/data/a\n.jpg",
        "simplecache::https://host.example/data/a.jpg",
        "https://host.example/data/a.zip::https://evil/",
        "s3://host.example/data/a.jpg",
    ],
)
def test_not_below(url: str) -> None:
    assert not is_below(url, ROOT)


def test_buckets_are_told_apart() -> None:
    (root,) = resolved_roots(["s3://one"])
    assert is_below("s3://one/a", root)
    assert not is_below("s3://one-more/a", root)
    assert not is_below("s3://One/a", root)


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        ("https://host/a?b", "has a query"),
        ("https:///a", "names no host"),
        ("s3://", "names no host or bucket"),
        ("https://host/a/../b", r"holds \. or \.\."),
        ("zip://a::https://host/", "chain"),
    ],
)
def test_odd_roots(root: str, problem: str) -> None:
    with pytest.raises(DataError, match=f"media_roots: .*{problem}"):
        resolved_roots([root])


def test_roots_follow_from_the_data_where_none_are_given(tmp_path: Path) -> None:
    assert roots_of(["a.jsonl"]) == ()
    assert roots_of(["s3://b/x/a.jsonl"]) == ("s3://b/x/",)
    assert roots_of(["s3://b/x/a.jsonl", "a.jsonl"]) == ("s3://b/x/", "/")
    assert roots_of(["s3://b/x/a.jsonl"], [str(tmp_path)]) == (str(tmp_path.resolve()),)


def test_roots_below_roots() -> None:
    assert lies_below("/a/b", "/a") and not lies_below("/a", "/a/b")
    assert lies_below("s3://a/b/", "s3://a/") and not lies_below("s3://a/", "s3://a/b/")
    assert not lies_below("s3://a/", "/") and not lies_below("/", "s3://a/")


def test_names() -> None:
    assert is_url("S3://a") and is_url("memory://a") and is_url("http://a")
    assert not is_url("/a") and not is_url("file:///a") and not is_url("data:image/png;base64,") and not is_url("a:b")
    assert shown_url("https://me:secret@host/a.jpg?X-Amz-Signature=secret") == "https://host/a.jpg?…"
    assert path_of("https://host/a.tar?b=c.jsonl") == "https://host/a.tar"
    assert path_of("s3://bucket/what?.tar") == "s3://bucket/what?.tar"
    assert folder_of("https://host/x/a.tar?b=/c") == "https://host/x/"
    assert joined("https://host/x/", "a/b.jpg") == "https://host/x/a/b.jpg"
    assert joined(Path("/x"), "s3://a/b") == "s3://a/b"


def test_a_source_says_what_its_file_was() -> None:
    piece = Piece("https://h/a.tar?k=s", 512, 100, "000/a,b.jpg", whole=Object(10_000, "abc"))
    assert remote_piece(piece.source()) == piece
    assert shown(piece.source()) == "https://h/a.tar?…: 000/a,b.jpg"
    alone = Piece("s3://b/a.jpg", 0, 100, "", whole=Object(100))
    assert remote_piece(alone.source()) == alone
    assert shown(alone.source()) == "s3://b/a.jpg"
    assert remote_piece("/a.jpg") is None
    assert remote_piece(Piece("/a.tar", 0, 1, "x").source()) is None
