"""bench/index_media.py: its samples, and that both sides count the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

from bench_script import load_bench
from dhp.data.indexing.index import build_index


def test_its_samples_are_indexed_as_hugging_face_counts_them(tmp_path: Path) -> None:
    bench = load_bench("index_media")
    bench.FPS = 2
    model = bench.make_tiny_checkpoint(tmp_path / "model")
    folder = tmp_path / "data"
    folder.mkdir()
    lines = bench.write_data(folder, 10, 2)
    data = folder / "data.jsonl"
    data.write_text("\n".join(lines) + "\n")
    index = build_index(data, model)
    assert len(lines) == len(index.samples) == 12
    assert index.samples.column("pictures").sum() == 10 and index.samples.column("clips").sum() == 2
    peer = bench.HuggingFace(model)
    rows = [json.loads(line) for line in lines]
    texts = set()
    for row, sample in zip(rows, index.samples, strict=True):
        if "images" in row:
            ours = sum(medium.units * medium.unit_rows for medium in sample.media)
            theirs = peer.tokens(folder / row["images"][0])
            texts.add(sample.tokens - theirs)  # the answers differ in length
            assert 0 < ours < theirs
    assert len(texts) == 1
