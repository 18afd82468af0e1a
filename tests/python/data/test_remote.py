"""Data and media at addresses, from a server that the test starts: what is read, what is asked for, what goes wrong."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dhp.data.access import remote
from dhp.data.access.media_cache import MediaCache
from dhp.data.access.opening import pinned
from dhp.data.dataset import Dataset
from dhp.data.decoding import clips
from dhp.data.decoding.media import PixelReader
from dhp.data.errors import DataError, MediumError, StaleIndexError
from dhp.data.formats.tables import read_table
from dhp.data.indexing.index import build_index, default_path, load_index, load_or_build_index
from dhp.data.indexing.index_command import main
from dhp.data.text import Encoder
from file_server import FileServer
from indexed_data import ROWS, row, write
from made_media import write_clip
from same_data import check_same, pixels

pytest.importorskip("aiohttp")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts without pauses, and nothing remembered of another test's server."""
    monkeypatch.setattr(remote, "PAUSE_S", 0.01)
    remote.forget()


@pytest.fixture
def served(folder: Path) -> Iterator[FileServer]:
    """Serves `folder`, with a picture and a clip that are larger than their heads."""
    levels = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / "media" / "noise.jpg", quality=95)
    with FileServer(folder) as server:
        yield server


def at(server: FileServer, rows: Any) -> Any:
    """The rows, with addresses for paths."""
    return json.loads(json.dumps(rows).replace('"media/', f'"{server.url}media/'))


# ---- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_media_at_addresses(folder: Path, ranges: bool) -> None:
    with FileServer(folder, ranges=ranges) as server:
        data = write(folder / "remote.jsonl", at(server, ROWS))
        index = build_index(data, folder / "model", media_roots=[server.url])
        check_same(index, folder, ROWS, [server.url])
        assert load_or_build_index(data, folder / "model", media_roots=[server.url]).problem_counts == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_data_file_at_an_address(folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies beside it may be read, and its index is in the working folder."""
    monkeypatch.chdir(folder)
    with FileServer(folder) as server:
        data = f"{server.url}data.jsonl"
        index = build_index(data, folder / "model", workers=workers)
        check_same(index, folder, ROWS, [server.url])
        assert index.path == default_path(data) and index.path.parent == Path()
        remote.forget()
        server.clear()
        loaded = load_index(index.path, None, folder / "model")
        assert server.paths == {"data.jsonl"} and loaded.data == data
        assert loaded.samples[1].media == index.samples[1].media
        (folder / "data.jsonl").write_text((folder / "data.jsonl").read_text() + "\n")
        remote.forget()
        with pytest.raises(StaleIndexError, match=r"is stale: the size of http://127\.0\.0\.1:\d+/data\.jsonl was"):
            load_index(index.path, data, folder / "model")


def test_an_index_over_a_server_without_tags(folder: Path) -> None:
    with FileServer(folder, tags=False) as server:
        data, path = f"{server.url}data.jsonl", folder / "i.index"
        build_index(data, folder / "model", path)
        load_index(path, data)
        text = (folder / "data.jsonl").read_bytes()
        (folder / "data.jsonl").write_bytes(text.replace(b"moves", b"mooes"))
        with pytest.raises(StaleIndexError, match="the content of"):
            load_index(path, data)


def test_a_tar_at_an_address(folder: Path) -> None:
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number in range(3):
            turns = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A lawn."}]
            (folder / "t.json").write_text(json.dumps({"messages": turns}))
            tar.add(folder / "t.json", f"{number:03}.json")
            tar.add(folder / "media" / "large.png", f"{number:03}.png")
    same = [row("<image>What is it?", "A lawn.", images=["media/large.png"])] * 3
    with FileServer(folder) as server:
        index = build_index(f"{server.url}shard.tar?signed=yes", folder / "model", folder / "i.index")
        check_same(index, folder, same, [server.url])
        server.clear()
        pixels(index, folder, 1, [server.url])
        size = (folder / "media" / "large.png").stat().st_size
        assert server.sent == {"shard.tar": size}, "the bytes of one member, and no others"


def test_parquet_at_an_address(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [row("<image>What is it?", images=["media/small.png"]), row("And this?")]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")
    with FileServer(folder) as server:
        told: list[int] = []
        assert len(list(read_table(f"{server.url}data.parquet", 1 << 20, told.append))) == 2
        assert told[-1] == (folder / "data.parquet").stat().st_size, "bytes of the file, whatever they unpack to"
        index = build_index(f"{server.url}data.parquet", folder / "model", folder / "i.index")
        check_same(index, folder, rows, [server.url])
        with pytest.raises(DataError, match=r"data\.arrow: Arrow files are read on a disk only"):
            shutil.copy(folder / "data.parquet", folder / "data.arrow")
            build_index(f"{server.url}data.arrow", folder / "model", folder / "j.index")


def test_any_protocol_that_fsspec_knows(folder: Path) -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for file in ["data.jsonl", *(f"media/{f.name}" for f in (folder / "media").iterdir())]:
        store.pipe_file(f"/bucket/{file}", (folder / file).read_bytes())
    index = build_index("memory://bucket/data.jsonl", folder / "model", folder / "i.index")
    check_same(index, folder, ROWS, ["memory://bucket"])
    store.pipe_file("/bucket/media/small.png", (folder / "media" / "large.png").read_bytes())
    remote.forget()
    with pytest.raises(MediumError, match=r"memory://bucket/media/small\.png: has changed since it was indexed"):
        pixels(index, folder, 1, ["memory://bucket"])


CLIPS: list[dict[str, Any]] = [
    {"codec": "libx264", "options": {"g": "24", "bf": "3"}},
    {"codec": "libx264", "options": {"g": "24", "bf": "2"}, "muxer": {"movflags": "faststart"}},
    {"codec": "libx264", "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    {"codec": "libx264", "times": [0, 40, 100, 110, 300, 310, 450, 700]},
    {"codec": "mpeg4", "options": {"bf": "2"}},
    {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
]


@pytest.mark.parametrize("options", CLIPS, ids=[f"{c['codec']}-{n}" for n, c in enumerate(CLIPS)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_clips_are_counted_as_on_a_disk(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    if name.endswith("mkv"):
        options = {key: value for key, value in options.items() if key != "muxer"}
    try:
        path = write_clip(tmp_path / name, len(options.get("times", range(60))), size=(96, 64), **options)
    except ValueError as error:  # this build of FFmpeg has no such encoder
        pytest.skip(str(error))
    with FileServer(tmp_path) as server:
        source = pinned(server.url + name)
        assert isinstance(source, str)
        assert clips.probe_clip(source, (server.url,)) == clips.probe_clip(str(path))


def test_a_clip_that_is_cut_off(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 60, size=(320, 240), muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-2000])
    cut = pytest.raises(MediumError, match=r"a\.mp4: is damaged or cut off after \d+ frames")
    with FileServer(tmp_path) as server, cut:
        clips.probe_clip(f"{server.url}a.mp4", (server.url,))


# ---- what is asked for ----------------------------------------------------------------------------------------------


def test_indexing_asks_for_heads_alone(served: FileServer, folder: Path) -> None:
    noise = lambda n, width, height: np.random.default_rng(n).integers(0, 256, (height, width, 3), dtype=np.uint8)  # noqa: E731
    write_clip(folder / "media" / "noise.mp4", 50, size=(320, 240), draw=noise, options={"crf": "10"})
    rows = [row("<image>", images=["media/noise.jpg"]), row("<video>", videos=["media/noise.mp4"])]
    data = write(folder / "remote.jsonl", at(served, rows))
    index = build_index(data, folder / "model", media_roots=[served.url])
    for name, most in (("noise.jpg", 0.05), ("noise.mp4", 0.2)):
        size = (folder / "media" / name).stat().st_size
        assert size > 1_000_000 and served.sent[f"media/{name}"] < most * size
    assert len([path for path, _, _ in served.asked if path.endswith("jpg")]) == 1, "one request a picture"
    check_same(index, folder, rows, [served.url])


def test_a_rank_asks_for_its_own_share_alone(served: FileServer, folder: Path) -> None:
    """The objects, and of pictures every byte once; what planning needs, the index says."""
    from dhp import read_cluster  # noqa: F401
    from dhp.cost.local import local_cluster, local_cost
    from dhp.run.planning import plan as make_plan

    names = [f"media/{number}.png" for number in range(8)]
    for name in names:
        shutil.copy(folder / "media" / "small.png", folder / name)
    rows = [row("<image>What is it?", images=[name]) for name in names]
    data = write(folder / "remote.jsonl", at(served, rows))
    build_index(data, folder / "model", media_roots=[served.url])
    served.clear()
    remote.forget()
    dataset = Dataset(data, folder / "model", media_roots=[served.url])
    batch = dataset.batch(0, len(rows))
    plan = make_plan(batch, local_cluster(2), local_cost(folder / "model", 2))
    assert not served.asked, "no medium is asked for to draw and plan"
    every: set[str] = set()
    for rank in (0, 1):
        served.clear()
        share = dataset.read_share(plan, rank)
        assert not share.failed
        own = [s for task in plan.tasks if rank in task.ranks for s in task.sequences]
        if all(len(task.ranks) == 1 for task in plan.tasks):
            assert sorted(path for path, _, _ in served.asked) == sorted(names[s - 1] for s in own)
        assert served.paths <= {names[s - 1] for s in own}
        every |= served.paths
    assert every == set(names)


def test_no_address_is_asked_for_unless_it_is_allowed(served: FileServer, folder: Path) -> None:
    data = write(folder / "remote.jsonl", [*at(served, ROWS[1:4]), ROWS[0]])
    for roots in ([], [str(folder)], [f"{served.url}medi"], [f"http://127.0.0.1:{served.port + 1}/"]):
        index = build_index(data, folder / "model", folder / "i.index", on_error="skip", media_roots=roots)
        assert [p.kind for p in index.problems] == ["media"] * 3
        assert all("at an address that media_roots does not allow" in p.message for p in index.problems)
    assert not served.asked
    allowed = build_index(data, folder / "model", media_roots=[served.url])
    served.clear()
    narrower = load_or_build_index(data, folder / "model", on_error="skip")
    assert narrower.problem_counts == {"media": 3} and allowed.problem_counts == {}
    with pytest.raises(MediumError, match="does not allow"):
        pixels(allowed, folder, 0, [])
    assert not served.asked


def test_data_at_an_address_names_nothing_elsewhere(served: FileServer, folder: Path) -> None:
    """Neither files of this machine nor other hosts and folders."""
    with FileServer(folder) as other:
        rows = [
            ROWS[0],
            row("<image>", images=["media/small.png"]),
            row("<image>", images=[str(folder / "media" / "small.png")]),
            row("<image>", images=[f"{other.url}media/small.png"]),
            row("<image>", images=["../media/small.png"]),
            row("<image>", images=["%2e%2e/media/small.png"]),
        ]
        (folder / "sub" / "media").mkdir(parents=True)
        shutil.copy(folder / "media" / "small.png", folder / "sub" / "media")
        write(folder / "sub" / "data.jsonl", rows)
        index = build_index(f"{served.url}sub/data.jsonl", folder / "model", folder / "i.index", on_error="skip")
        assert [p.id for p in index.problems] == [3, 4, 5, 6]
        assert not other.asked
        assert served.paths == {"sub/data.jsonl", "sub/media/small.png"}


def test_redirects_stay_on_the_host(served: FileServer, folder: Path) -> None:
    with FileServer(folder) as other:
        served.redirects["there.png"] = "/media/small.png"
        served.redirects["away.png"] = f"{other.url}media/small.png"
        served.redirects["round.png"] = "round.png"
        found = Image.open(folder / "media" / "small.png").size
        from dhp.data.decoding.media import probe_image

        assert probe_image(f"{served.url}there.png", (served.url,)) == found[::-1]
        with pytest.raises(MediumError, match=rf"away\.png: leads to another host, http://127\.0\.0\.1:{other.port}"):
            probe_image(f"{served.url}away.png", (served.url, other.url))
        with pytest.raises(MediumError, match=r"round\.png: leads from one address to the next"):
            probe_image(f"{served.url}round.png", (served.url,))
        assert not other.asked


# ---- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "message", "requests"),
    [
        ([404], r"is not there \(404\); mend the address", 1),
        ([403], r"the server refuses it; give fsspec credentials .* \(403\)", 1),
        ([400], "the server answers 400", 1),
        ([503] * 9, "the server answers 503, 4 times; see whether", 4),
        (["cut"] * 9, r"was cut after [\d,]+ of 10,618 bytes, 4 times", 4),
        (["silent"] * 9, "gave no answer within 1 s, [234] times", 0),
        (["trickle"] * 9, r"of 10,618 bytes, [234] times|gave no answer within 1 s, [234] times", 0),
        ([503, "cut", 429], "", 4),
    ],
)
def test_faults(
    served: FileServer, monkeypatch: pytest.MonkeyPatch, faults: list[Any], message: str, requests: int
) -> None:
    """A server that is slow all the time is left before its last attempt."""
    if not requests:
        monkeypatch.setattr(remote, "TIMEOUT_S", 0.5)
    url = f"{served.url}media/small.png"
    served.faults["media/small.png"] = faults
    if message:
        with pytest.raises(MediumError, match=message) as caught:
            remote.head(url, 1 << 15)
        assert str(caught.value).startswith(f"{url}: ") and "\n" not in str(caught.value)
    else:
        assert len(remote.head(url, 1 << 15)[1]) == 10_618
    assert len(served.asked) == requests or (not requests and len(served.asked) in (2, 3, 4))


def test_nobody_is_there(folder: Path) -> None:
    with FileServer(folder) as server:
        url = f"{server.url}a.png"
    with pytest.raises(MediumError, match=r"a\.png: cannot be read \(ClientConnectorError: .*\), 4 times; see whether"):
        remote.look(url)


def test_an_object_that_has_changed(served: FileServer, folder: Path) -> None:
    """Of another size, or of the same with other contents; in an index, training drops the sample."""
    rows = at(served, [ROWS[1], row("<image>", images=["media/large.png"]), ROWS[3]])
    data = write(folder / "remote.jsonl", rows)
    build_index(data, folder / "model", media_roots=[served.url])
    dataset = Dataset(data, folder / "model", media_roots=[served.url])
    for name in ("small.png", "clip.mp4"):
        text = (folder / "media" / name).read_bytes()
        (folder / "media" / name).write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    shutil.copy(folder / "media" / "noise.jpg", folder / "media" / "large.png")
    for number, what in ((1, "its ETag, or time of change, is another"), (2, "its size was 496"), (3, "its ETag")):
        with pytest.raises(MediumError, match=rf"has changed since it was indexed \({what}.*; build the index again"):
            dataset.read_pixels(dataset.sample(number).media[0], 0, 1)


def test_an_index_is_made_again_of_what_has_changed(served: FileServer, folder: Path) -> None:
    rows = at(served, [ROWS[1], row("<image>", images=["media/noise.jpg"])])
    data = write(folder / "remote.jsonl", rows)
    build_index(data, folder / "model", media_roots=[served.url])
    levels = np.zeros((300, 500, 3), np.uint8)
    Image.fromarray(levels).save(folder / "media" / "noise.jpg")
    remote.forget()
    served.clear()
    again = build_index(data, folder / "model", media_roots=[served.url])
    assert (again.samples[1].media[0].height, again.samples[1].media[0].width) == (300, 500)
    assert [(path, last) for path, _, last in served.asked if "small" in path] == [("media/small.png", 0)]
    with pytest.raises(DataError, match=r"remote\.jsonl:2: .*noise\.jpg: is not there"):
        (folder / "media" / "noise.jpg").unlink()
        remote.forget()
        build_index(data, folder / "model", media_roots=[served.url])


def test_an_empty_object(served: FileServer, folder: Path) -> None:
    (folder / "media" / "empty.png").touch()
    data = write(folder / "remote.jsonl", [ROWS[0], row("<image>", images=[f"{served.url}media/empty.png"])])
    (problem,) = build_index(data, folder / "model", on_error="skip", media_roots=[served.url]).problems
    assert problem.message == f"{served.url}media/empty.png: is empty (0 bytes)"


def test_a_part_of_a_tar_whose_server_sends_whole_files_only(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(folder / "shard.tar", "w") as tar:
        (folder / "t.txt").write_text("A lawn.")
        tar.add(folder / "t.txt", "0.txt")
        tar.add(folder / "media" / "small.png", "0.png")
    with FileServer(folder, ranges=False) as server:
        url = f"{server.url}shard.tar"
        with pytest.raises(DataError, match=r"0\.png: its server sends whole files only|whole files only, and a part"):
            build_index(url, folder / "model", folder / "i.index")
        cache = MediaCache(str(tmp_path / "cache"), 10**9)
        index = build_index(url, folder / "model", folder / "i.index", media_cache=cache)
        server.clear()
        reader = PixelReader(Encoder(folder / "model", [server.url], cache).processor)
        reader.read_units(index.samples[0].media[0], 0, 1)
        assert len(server.asked) <= 1, "the shard is in the cache"


def test_packages_that_are_missing(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    data = write(folder / "remote.jsonl", [row("<image>", images=["s3://bucket/a.png"])])
    options = [str(data), "--model", str(folder / "model"), "--media-root", "s3://bucket", "--workers", "1"]
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert main(options) == 2
    assert "s3://bucket/a.png: reading s3:// needs s3fs: pip install s3fs" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert main(options) == 2
    assert 's3://bucket/a.png: reading it needs fsspec: pip install "dhp[remote]"' in capsys.readouterr().err
    assert main(["nope://a/b.jsonl", "--model", str(folder / "model")]) == 2


def test_secrets_of_an_address_are_not_said(served: FileServer, folder: Path) -> None:
    data = write(folder / "remote.jsonl", [row("<image>", images=[f"{served.url}lost.png?X-Amz-Signature=secret"])])
    with pytest.raises(DataError, match=r"lost\.png\?…: is not there") as caught:
        build_index(data, folder / "model", media_roots=[served.url])
    assert "hush" not in str(caught.value)
