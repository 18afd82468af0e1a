"""Arrow and Parquet, with media as paths and as bytes in their rows. Against the same samples as files."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from dhp.data.access import cells
from dhp.data.decoding.media import PixelReader
from dhp.data.errors import DataError, MediumError
from dhp.data.indexing.index import build_index, load_index
from dhp.data.sources import files_in
from indexed_data import row
from same_data import PLAIN, TURNS, check_same, pixels

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table_of(folder: Path, *, paths: bool, rows: list[dict[str, Any]] = PLAIN) -> Any:
    """Columns as `datasets` has them: paths, or the struct {bytes, path} of its Image and Video."""

    def medium(path: str) -> Any:
        content = (folder / path).read_bytes()
        return path if paths else {"bytes": content, "path": path}

    return pa.Table.from_pylist(
        [
            {
                "messages": one["messages"],
                "images": [medium(path) for path in one.get("images", [])] or None,
                "videos": [medium(path) for path in one.get("videos", [])] or None,
                "id": number,
            }
            for number, one in enumerate(rows)
        ]
    )


def write_arrow(file: Path, table: Any, *, stream: bool = True) -> Path:
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(file), table.schema) as out:
        for batch in table.to_batches(max_chunksize=2):
            out.write_batch(batch)
    return file


@pytest.mark.parametrize("paths", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_arrow_is_as_files(folder: Path, paths: bool, stream: bool) -> None:
    file = write_arrow(folder / "data-00000-of-00001.arrow", table_of(folder, paths=paths), stream=stream)
    index = build_index(file, folder / "model")
    check_same(index, folder, PLAIN)
    assert index.ignored == {"id": 4}
    moved = folder.rename(folder.parent / "moved")
    check_same(load_index(moved / f"{file.name}.index"), moved, PLAIN)


@pytest.mark.parametrize("paths", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"row_group_size": 1},
        {"row_group_size": 3, "compression": "zstd", "use_dictionary": False},
        {"compression": "none", "data_page_size": 100, "data_page_version": "2.0"},
    ],
)
def test_parquet_is_as_files(folder: Path, paths: bool, options: dict[str, Any]) -> None:
    file = folder / "train-00000-of-00001.parquet"
    pq.write_table(table_of(folder, paths=paths), file, **options)
    index = build_index(file, folder / "model")
    check_same(index, folder, PLAIN)
    moved = folder.rename(folder.parent / "moved")
    check_same(load_index(moved / f"{file.name}.index"), moved, PLAIN)


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_bytes_without_a_struct(folder: Path, kind: str) -> None:
    """A column `image` of one picture a row, and parts of contents that hold their bytes."""
    small, large = ((folder / "media" / name).read_bytes() for name in ("small.png", "large.png"))
    parts = [
        {"type": "image", "image": large, "text": None},
        {"type": "text", "image": None, "text": "Which?"},
        {"type": "image", "image": small, "text": None},
    ]
    answer = [{"type": "text", "image": None, "text": TURNS[1]["content"]}]
    rows = [PLAIN[0], {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]}]
    for number, one in enumerate(({"messages": TURNS, "image": small}, rows[1])):
        table = pa.Table.from_pylist([one])
        file = folder / f"{number}.{kind}"
        write_arrow(file, table) if kind == "arrow" else pq.write_table(table, file)
        index = build_index(file, folder / "model")
        check_same(index, folder, [[PLAIN[0]], [PLAIN[2]]][number])


def test_parquet_by_several_processes(folder: Path) -> None:
    rows = PLAIN * 15
    pq.write_table(table_of(folder, paths=False, rows=rows), folder / "a.parquet", row_group_size=7)
    os.utime(folder / "a.parquet", (1e9, 1e9))
    index = build_index(folder / "a.parquet", folder / "model", folder / "one", workers=1)
    build_index(folder / "a.parquet", folder / "model", folder / "two", workers=2)
    assert (folder / "one").read_bytes() == (folder / "two").read_bytes()
    assert index.samples.tokens.tolist() == [index.samples[at % 4].tokens for at in range(len(rows))]


def test_media_are_unpacked_once_to_make_an_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table_of(folder, paths=False), folder / "a.parquet")
    monkeypatch.setattr(cells, "_unpacked", lambda *_: pytest.fail("it was there already"))
    assert len(build_index(folder / "a.parquet", folder / "model", workers=1).samples) == len(PLAIN)


def test_rows_in_any_order_and_by_several_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row("<image>", images=[f"media/{name}.png"]) for name in ("small", "large")] * 10
    for name in ("a", "b"):
        pq.write_table(table_of(folder, paths=False, rows=rows), folder / f"{name}.parquet", row_group_size=6)
    indexes = [build_index(folder / f"{name}.parquet", folder / "model") for name in ("a", "b")]
    expected = [pixels(indexes[0], folder, at)[0] for at in range(2)]
    seed = 3
    random.seed(seed)
    reader, wrong = PixelReader(folder / "model"), []

    def read(order: list[int]) -> None:
        for at in order:
            found = reader.read_units(random.choice(indexes).samples[at].media[0], 0, 1)
            if not torch.equal(found, expected[at % 2]):
                wrong.append(at)

    for kept in (0, 1 << 20):
        monkeypatch.setattr(cells, "_KEPT_BYTES", kept)
        orders = [random.sample(range(20), 20) for _ in range(3)]
        threads = [threading.Thread(target=read, args=(order,)) for order in orders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == [], f"seed {seed}"


def test_what_is_kept_of_parquet_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cells._Kept()
    monkeypatch.setattr(cells, "_KEPT_BYTES", 100)
    version = ("a", 0, 0)
    for number in range(10):
        kept.put((version, number, 0), [b"x" * 30, b"y" * 10])
        kept.put((version, number, 0), [b"x" * 30, b"y" * 10])
    assert [number for number in range(10) if kept.get((version, number, 0))] == [8, 9]
    kept.put((version, 10, 0), [b"x" * 1000])
    assert kept.get((version, 10, 0)) and not kept.get((version, 9, 0)), "the newest stays, however large"


def test_a_bad_medium_is_a_problem_of_its_row(folder: Path) -> None:
    table = table_of(folder, paths=False, rows=[PLAIN[0], PLAIN[1], PLAIN[0]]).to_pylist()
    table[0]["images"][0]["bytes"] = table[0]["images"][0]["bytes"][:40]
    table[1]["videos"][0]["bytes"] = b"words"
    pq.write_table(pa.Table.from_pylist(table), folder / "a.parquet")
    index = build_index(folder / "a.parquet", folder / "model", on_error="skip")
    assert index.samples.ids.tolist() == [3]
    assert [(p.id, p.kind, p.message.split(": ")[1]) for p in index.problems] == [
        (1, "media", "images[0]"),
        (2, "media", "videos[0]"),
    ]


def test_a_parquet_file_that_has_changed(folder: Path) -> None:
    file = folder / "a.parquet"
    pq.write_table(table_of(folder, paths=False), file)
    media = [sample.media[-1] for sample in build_index(file, folder / "model").samples if sample.media]
    pq.write_table(table_of(folder, paths=False, rows=[PLAIN[1], PLAIN[0]]), file)
    reader = PixelReader(folder / "model")
    for medium, why in zip(media, ("something else", "something else", "fewer rows"), strict=True):
        with pytest.raises(MediumError, match=rf"a\.parquet: (images|videos)\[[01]\]: .*{why} since it was indexed"):
            reader.read_units(medium, 0, 1)
    file.unlink()
    with pytest.raises(MediumError, match="no such file"):
        reader.read_units(media[0], 0, 1)


def test_groups_of_rows_that_are_too_large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MOST_GROUP_BYTES", 4000)
    file = folder / "a.parquet"
    pq.write_table(table_of(folder, paths=False), file)
    with pytest.raises(DataError, match=r"a\.parquet: group 0 of its rows has .*row_group_size = 1\), or as Arrow"):
        build_index(file, folder / "model")
    pq.write_table(table_of(folder, paths=True), file)
    check_same(build_index(file, folder / "model"), folder, PLAIN)


def test_a_folder_of_parts(folder: Path) -> None:
    parts = folder / "data"
    parts.mkdir()
    (parts / "dataset_info.json").write_text("{}")
    for number in range(2):
        pq.write_table(table_of(folder, paths=False), parts / f"train-0000{number}-of-00002.parquet")
    assert [Path(file).name[:11] for file in files_in(str(parts))] == ["train-00000", "train-00001"]


def test_tables_that_are_none(folder: Path) -> None:
    table = table_of(folder, paths=False)
    for name, text in (("a.arrow", b""), ("a.arrow", b"x" * 5000), ("a.parquet", b"x" * 5000), ("a.parquet", b"")):
        (folder / name).write_bytes(text)
        with pytest.raises(DataError, match=rf"{name}: "):
            build_index(folder / name, folder / "model")
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(folder / "c.arrow"), table.schema, options=options) as out:
        out.write_table(table)
    with pytest.raises(DataError, match=r"c\.arrow: is compressed"):
        build_index(folder / "c.arrow", folder / "model")
