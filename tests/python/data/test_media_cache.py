"""The folder that keeps media from elsewhere: bounded, whole files alone, shared by processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dhp.data.access import remote
from dhp.data.access.media_cache import MediaCache
from dhp.data.decoding.media import PixelReader
from dhp.data.errors import DataError, MediumError
from dhp.data.indexing.index import build_index
from dhp.data.text import Encoder
from file_server import FileServer
from indexed_data import row, write


def put(text: bytes, calls: list[bytes] | None = None) -> Callable[[Callable[[bytes], Any]], None]:
    def fetch(write: Callable[[bytes], Any]) -> None:
        if calls is not None:
            calls.append(text)
        for at in range(0, len(text), 7):
            write(text[at : at + 7])

    return fetch


def never(_: Any) -> None:
    raise AssertionError("it was fetched again")


def held(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.name != "total")


def test_a_file_is_fetched_once(tmp_path: Path) -> None:
    cache = MediaCache(str(tmp_path / "c"), 1000)
    cache.check()
    path = cache.path("a", 100, put(b"a" * 100))
    assert path and Path(path).read_bytes() == b"a" * 100
    assert cache.path("a", 100, never) == path
    assert MediaCache(cache.folder, 1000).path("a", 100, never) == path


def test_what_is_not_whole_is_fetched_again(tmp_path: Path) -> None:
    cache = MediaCache(str(tmp_path), 1000)
    path = cache.path("a", 100, put(b"a" * 100))
    assert path
    Path(path).write_bytes(b"a" * 50)
    assert cache.path("a", 100, put(b"b" * 100)) == path
    assert Path(path).read_bytes() == b"b" * 100


def test_the_least_recently_read_go_first(tmp_path: Path) -> None:
    cache = MediaCache(str(tmp_path), 1000)
    for number in range(8):
        path = cache.path(str(number), 120, put(bytes(120)))
        assert path
        os.utime(path, (number, number))
    cache.path("0", 120, never)  # reads it
    cache.path("8", 120, put(bytes(120)))
    cache.path("0", 120, never)
    again: list[bytes] = []
    cache.path("1", 120, put(bytes(120), again))
    assert again, "it was the oldest"
    assert held(tmp_path) <= 1000


def test_it_never_holds_more_than_it_may(tmp_path: Path) -> None:
    seed = int(os.environ.get("DHP_TEST_SEED", "1"))
    print(f"seed {seed}")
    draw = random.Random(seed)
    cache = MediaCache(str(tmp_path), 2000)
    for _ in range(300):
        size = draw.choice([1, 50, 200, 249])
        key = str(draw.randrange(40))
        path = cache.path(f"{key} {size}", size, put(key.encode()[:1] * size))
        assert path and Path(path).read_bytes() == key.encode()[:1] * size
        assert held(tmp_path) <= 2000
    assert cache.path("large", 251, never) is None, "one that would take the room of too many others is not kept"


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = MediaCache(str(tmp_path), 1000)

    def fetch(write: Callable[[bytes], Any]) -> None:
        write(b"half")
        raise MediumError("a", "was cut")

    with pytest.raises(MediumError):
        cache.path("a", 100, fetch)
    assert held(tmp_path) == 0
    anew: list[bytes] = [b"x" * 30, b"", b"a" * 100]  # an empty piece takes back what came before
    path = cache.path("a", 100, lambda write: [write(piece) for piece in anew] and None)
    assert path and Path(path).read_bytes() == b"a" * 100


def test_what_a_dead_process_left_is_written_over(tmp_path: Path) -> None:
    cache = MediaCache(str(tmp_path), 1000)
    path = cache.path("a", 100, put(bytes(100)))
    assert path
    os.rename(path, f"{path}.part")
    Path(f"{path}.part").write_bytes(b"x" * 600)
    assert cache.path("a", 100, put(b"a" * 100)) == path
    assert Path(path).read_bytes() == b"a" * 100 and not Path(f"{path}.part").exists()
    Path(path).with_name(f"{0:040}.part").write_bytes(b"x" * 900)
    Path(tmp_path / "total").unlink()
    for number in range(9):
        cache.path(str(number), 100, put(bytes(100)))
    assert held(tmp_path) <= 1000, "abandoned parts go, too"


def test_threads_that_want_the_same_fetch_it_once(tmp_path: Path) -> None:
    cache = MediaCache(str(tmp_path), 10_000)
    calls: list[bytes] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for number in range(5):
            text = bytes([number]) * 200
            path = cache.path(str(number), 200, put(text, calls))
            assert path and Path(path).read_bytes() == text

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(calls) == [bytes([number]) * 200 for number in range(5)]


PROCESS = """
import sys, time
from dhp.data.access.media_cache import MediaCache
def fetch(write):
    print("fetched", flush=True)
    for _ in range(10):
        write(bytes(10)); time.sleep(0.02)
cache = MediaCache(sys.argv[1], 10_000)
assert cache.path("a", 100, fetch)
"""


def test_processes_that_want_the_same_fetch_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate()[0] for process in running]
    assert all(process.returncode == 0 for process in running)
    assert sorted(said) == ["", "", "fetched\n"]


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """A folder that holds something else, too."""
    own = [tmp_path / name for name in ("a.jpg", ".profile", "b.part")]
    for file in own:
        file.write_bytes(bytes(900))
        os.utime(file, (0, 0))
    cache = MediaCache(str(tmp_path), 1000)
    for number in range(20):
        assert cache.path(str(number), 100, put(bytes(100)))
    assert all(file.read_bytes() == bytes(900) for file in own)


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"media_cache: .*file/c cannot be used \(Not a directory\); give another folder"
    ):
        MediaCache(str(tmp_path / "file" / "c"), 1000).check()
    assert MediaCache(str(tmp_path / "gone"), 1000).path("a", 100, put(bytes(100))) is None, "who reads goes on without"


def test_a_second_epoch_asks_for_nothing(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    remote.forget()
    cache = MediaCache(str(tmp_path / "cache"), 10**9)
    with FileServer(folder) as server:
        rows = [
            row("<image>", images=[f"{server.url}media/large.png"]),
            row("<video>", videos=[f"{server.url}media/clip.mp4"]),
        ]
        data = write(folder / "remote.jsonl", rows)
        index = build_index(data, folder / "model", media_roots=[server.url])
        reader = PixelReader(Encoder(folder / "model", [server.url], cache).processor)
        without = PixelReader(Encoder(folder / "model", [server.url]).processor)
        media = [sample.media[0] for sample in index.samples]
        first = [reader.read_units(medium, 0, medium.units) for medium in media]
        sizes = [(folder / "media" / name).stat().st_size for name in ("large.png", "clip.mp4")]
        assert held(tmp_path / "cache") == sum(sizes)
        server.clear()
        for medium, before in zip(media, first, strict=True):
            assert reader.read_units(medium, 0, medium.units).equal(before)
        assert not server.asked
        for medium, before in zip(media, first, strict=True):
            assert without.read_units(medium, 0, medium.units).equal(before)
