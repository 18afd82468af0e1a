"""Files at addresses as file objects: any reads of any files, stores of other kinds, and what is slow."""

from __future__ import annotations

import collections
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dhp.data.access import remote, remote_file
from dhp.data.access.media_cache import MediaCache
from dhp.data.access.remote_file import RemoteFile
from dhp.data.access.urls import Object
from dhp.data.errors import MediumError
from file_server import FileServer

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    remote.forget()


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.Random(0).randbytes(400_000)


@pytest.fixture
def served(tmp_path: Path, content: bytes) -> Iterator[FileServer]:
    (tmp_path / "a.bin").write_bytes(content)
    with FileServer(tmp_path) as server:
        yield server


@pytest.mark.parametrize("ranges", [True, False])
def test_any_reads(served: FileServer, content: bytes, monkeypatch: pytest.MonkeyPatch, ranges: bool) -> None:
    """Of the whole file and of parts of it, where windows are small."""
    monkeypatch.setattr(remote_file, "FIRST", 1000)
    monkeypatch.setattr(remote_file, "_MOST", 8000)
    served.ranges = ranges
    url = f"{served.url}a.bin"
    seed = int(os.environ.get("DHP_TEST_SEED", "1"))
    print(f"seed {seed}")
    draw = random.Random(seed)
    whole = remote_file.look(url)
    assert whole.size == len(content)
    parts = [(0, len(content)), *((draw.randrange(200_000), draw.randrange(1, 200_000)) for _ in range(3 * ranges))]
    for begin, size in parts:
        expected = content[begin : begin + size]
        with RemoteFile(url, whole, begin, size) as file:
            for _ in range(15):
                at = draw.randrange(size + 10)
                assert file.seek(at) == file.tell() == at
                for _ in range(draw.randrange(4)):
                    count = draw.choice([0, 1, 100, 3000, 50_000])
                    text = b""
                    while len(text) < count and (more := file.read(count - len(text))):
                        text += more
                    assert text == expected[at : at + count]
                    at += len(text)
            file.seek(-5, os.SEEK_END)
            assert file.read() == expected[-5:]


def test_hollow_bytes_are_zeros_and_others_are_not(served: FileServer, content: bytes) -> None:
    url = f"{served.url}a.bin"
    with RemoteFile(url, remote.look(url)) as file:
        file.hollow = range(100_000, 300_000)
        text = file.readall()
    assert len(text) == len(content)
    assert text[:100_000] == content[:100_000] and text[300_000:] == content[300_000:]
    assert served.sent["a.bin"] < 300_000
    assert all(text[i] in (0, content[i]) for i in range(100_000, 300_000))
    assert text[200_000:290_000] == bytes(90_000)


def test_a_server_without_ranges_that_is_cut_begins_anew(served: FileServer, content: bytes, tmp_path: Path) -> None:
    served.ranges = False
    url = f"{served.url}a.bin"
    cache = MediaCache(str(tmp_path / "cache"), 10**8)
    cache.check()
    whole = remote.look(url)
    served.faults["a.bin"] = ["cut", 503]
    with RemoteFile(url, whole, cache=cache) as file:
        assert file.readall() == content
    served.clear()
    with RemoteFile(url, whole, cache=cache) as file:
        assert file.readall() == content
    assert [last for _, _, last in served.asked] == [32_767], "asked for a range, and then there was the cache"


def test_what_fsspec_is_configured_to_send(served: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.config import conf

    monkeypatch.setitem(conf, "http", {"headers": {"Authorization": "Bearer hush"}})
    fsspec.filesystem("http").clear_instance_cache()
    remote.look(f"{served.url}a.bin")
    assert served.headers["Authorization"] == "Bearer hush" and served.headers["Range"] == "bytes=0-0"
    monkeypatch.undo()
    fsspec.filesystem("http").clear_instance_cache()


# ---- stores of other kinds ------------------------------------------------------------------------------------------


def test_a_store_whose_calls_are_coroutines(content: bytes) -> None:
    """As s3fs and gcsfs are."""
    from fsspec.asyn import AsyncFileSystem

    asked: collections.Counter[str] = collections.Counter()

    class Store(AsyncFileSystem):
        protocol = "dhp-async"

        async def _info(self, path: str, **_: Any) -> dict[str, Any]:
            asked["info"] += 1
            if path != "bucket/a.bin":
                raise FileNotFoundError(path)
            return {"name": path, "size": len(content), "type": "file", "ETag": "1"}

        async def _cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
            asked["cat"] += 1
            return content[start:end]

    fsspec.register_implementation("dhp-async", Store, clobber=True)
    remote.forget()
    asked.clear()
    whole = remote.look("dhp-async://bucket/a.bin")
    assert whole.size == len(content) and whole.tag
    with RemoteFile("dhp-async://bucket/a.bin", whole) as file:
        assert file.readall() == content
    assert asked == {"info": 1, "cat": asked["cat"]} and asked["cat"] > 1, "not before every window"
    with pytest.raises(MediumError, match="has changed since it was indexed"):
        remote.read("dhp-async://bucket/a.bin", 0, 9, Object(len(content), "another"))
    with pytest.raises(MediumError, match=r"dhp-async://bucket/b\.bin: is not there"):
        remote.look("dhp-async://bucket/b.bin")


def test_all_attempts_together_have_the_time_for_the_bytes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.4 s for four answers to begin, 1 s for 1,000 bytes; each of four attempts could take 1.1 s."""
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(remote, "LEAST_BYTES_PER_S", 1000)
    now = 0.0
    limits: list[float] = []

    def pass_s(seconds: float) -> None:
        nonlocal now
        now += seconds

    def slow(limit: float) -> None:
        limits.append(limit)
        pass_s(limit)
        raise TimeoutError

    monkeypatch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: now, sleep=pass_s))

    with pytest.raises(MediumError, match="gave no answer within 1 s, 2 times; see whether"):
        remote._tried("memory://a", slow, 1000)
    assert limits[0] == pytest.approx(1.1) and limits[1] < 0.4


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("slow", r"gave no answer within 0 s, \d times"),
        ("denied", r"the server refuses it; give fsspec credentials .* \(PermissionError: no entry\)"),
        ("short", r"was cut after 5 of 1,000 bytes, 4 times"),
        ("broken", r"cannot be read \(OSError: the disk is on fire\), 4 times"),
        ("folder", r"is a folder, not a file"),
        ("endless", r"is of no known size"),
    ],
)
def test_faults_of_a_store(content: bytes, monkeypatch: pytest.MonkeyPatch, fault: str, message: str) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    class Store(MemoryFileSystem):
        protocol = f"dhp-{fault}"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.partition("://")[2]

        def info(self, path: str, **_: Any) -> dict[str, Any]:
            kind = "directory" if fault == "folder" else "file"
            return {"name": path, "size": None if fault == "endless" else len(content), "type": kind, "ETag": "1"}

        def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
            if fault == "slow":
                time.sleep(1)
            if fault == "denied":
                raise PermissionError("no entry")
            if fault == "broken":
                raise OSError("the disk is on fire")
            return content[start : start + 5]

    fsspec.register_implementation(f"dhp-{fault}", Store, clobber=True)
    if fault == "slow":
        monkeypatch.setattr(remote, "TIMEOUT_S", 0.1)
    began = time.monotonic()
    with pytest.raises(MediumError, match=message) as caught:
        remote.head(f"dhp-{fault}://bucket/a.bin", 1000)
    assert str(caught.value).startswith(f"dhp-{fault}://bucket/a.bin: ") and "\n" not in str(caught.value)
    assert time.monotonic() - began < 30
