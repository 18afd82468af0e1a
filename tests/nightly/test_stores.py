"""Data and media at s3:// and gs://: the stores' own packages against servers that keep objects as these stores do.

`make nightly PARTS=stores` installs s3fs with moto, and gcsfs with gcp-storage-emulator.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dhp.data.access import remote
from dhp.data.errors import MediumError, StaleIndexError
from dhp.data.indexing.index import build_index, load_index
from indexed_data import ROWS, make, row, write
from same_data import check_same, pixels

BUCKET = "bucket"


@dataclass
class Store:
    root: str  # the bucket's address
    put: Callable[[str, bytes], Any]

    def put_folder(self, folder: Path) -> None:
        for file in folder.rglob("*"):
            if file.is_file() and "model" not in file.parts:
                self.put(str(file.relative_to(folder)), file.read_bytes())


def s3(patch: pytest.MonkeyPatch) -> Iterator[Store]:
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    import boto3

    server.start()
    patch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "any")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield Store(f"s3://{BUCKET}", lambda key, body: client.put_object(Bucket=BUCKET, Key=key, Body=body))
    server.stop()


def gs(patch: pytest.MonkeyPatch) -> Iterator[Store]:
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # speaks gRPC, which the emulator does not
    pytest.importorskip("gcsfs")
    import fsspec.config

    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket=BUCKET)
    server.start()
    port = server._api._httpd.server_address[1]
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    patch.setenv("FSSPEC_GS_TOKEN", "anon")
    fsspec.config.set_conf_env(fsspec.config.conf)
    store = fsspec.filesystem("gs")
    yield Store(f"gs://{BUCKET}", lambda key, body: store.pipe_file(f"{BUCKET}/{key}", body))
    server.stop()


@pytest.fixture(scope="module", params=[s3, gs], ids=["s3", "gs"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "PAUSE_S", 0.01)
        yield from request.param(patch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    remote.forget()
    return make(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_data_and_media(store: Store, folder: Path, workers: int) -> None:
    store.put_folder(folder)
    index = build_index(f"{store.root}/data.jsonl", folder / "model", folder / "i.index", workers=workers)
    check_same(index, folder, ROWS, [store.root])
    local = write(folder / "media.jsonl", json.loads(json.dumps(ROWS).replace('"media/', f'"{store.root}/media/')))
    index = build_index(local, folder / "model", media_roots=[f"{store.root}/media"], workers=workers)
    check_same(index, folder, ROWS, [f"{store.root}/media"])


def test_members_of_a_tar_and_rows_of_parquet(store: Store, folder: Path) -> None:
    with tarfile.open(folder / "shard.tar", "w") as tar:
        turns = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A lawn."}]
        (folder / "t.json").write_text(json.dumps({"messages": turns}))
        for number in range(3):
            tar.add(folder / "t.json", f"{number:03}.json")
            tar.add(folder / "media" / "large.png", f"{number:03}.png")
    store.put_folder(folder)
    index = build_index(f"{store.root}/shard.tar", folder / "model", folder / "i.index")
    check_same(index, folder, [row("<image>What is it?", "A lawn.", images=["media/large.png"])] * 3, [store.root])

    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [row("<image>What is it?", images=["media/small.png"]), row("And this?")]
    pq.write_table(pa.Table.from_pylist(rows), folder / "data.parquet")
    store.put_folder(folder)
    index = build_index(f"{store.root}/data.parquet", folder / "model", folder / "j.index")
    check_same(index, folder, rows, [store.root])


def test_what_has_changed_or_is_not_there_is_named(store: Store, folder: Path) -> None:
    store.put_folder(folder)
    data = f"{store.root}/data.jsonl"
    index = build_index(data, folder / "model", folder / "i.index")
    store.put("media/small.png", (folder / "media" / "small.png").read_bytes()[:-1] + b"x")
    store.put("data.jsonl", (folder / "data.jsonl").read_bytes() + b"\n")
    remote.forget()
    with pytest.raises(MediumError, match=r"small\.png: has changed since it was indexed \(its ETag, or time"):
        for sample in range(len(index.samples)):
            pixels(index, folder, sample, [store.root])
    with pytest.raises(StaleIndexError, match=r"is stale: the size of .*data\.jsonl was"):
        load_index(folder / "i.index", data)
    for address in (f"{store.root}/none.jsonl", f"{store.root}-of-nobody/data.jsonl"):
        with pytest.raises(MediumError, match=r"is not there \(404\)"):
            build_index(address, folder / "model", folder / "j.index")


def test_a_store_that_does_not_answer_is_named(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    protocol = store.root.partition(":")[0]
    name = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}[protocol]
    system = fsspec.get_filesystem_class(protocol)
    before = os.environ[name]
    system.clear_instance_cache()
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(remote, "TIMEOUT_S", 5.0)
    try:
        with pytest.raises(MediumError, match=r"data\.jsonl: .*, \d times; see whether the server can be reached"):
            build_index(f"{store.root}/data.jsonl", folder / "model", folder / "i.index")
    finally:
        monkeypatch.setenv(name, before)
        system.clear_instance_cache()
