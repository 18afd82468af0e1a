"""The cache of decoded frames: the same bits as without it, nothing decoded twice, damage, limit, several processes."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from borrowed_checkpoints import write_checkpoint
from dhp._core import InputError
from dhp.data.decoding import frame_cache
from dhp.data.decoding.frame_cache import LOCK, FrameCache
from dhp.data.decoding.media import Medium, MediumError, PixelReader, decode
from dhp.data.formats.samples import MediumRef
from dhp.data.grid import probe_medium
from dhp.data.processor import Processor, load_processor
from ranks import context
from tiny_run import make_tiny

MOST = 1 << 30


@pytest.fixture
def refs(folder: Path) -> list[MediumRef]:
    """A picture, a clip, a cut of it, a list of frames."""
    names = {name: str(folder / "media" / name) for name in ("small.png", "large.png", "clip.mp4")}
    return [
        MediumRef("image", names["large.png"]),
        MediumRef("video", names["clip.mp4"]),
        MediumRef("video", names["clip.mp4"], video_start=1.0, video_end=2.5, fps=4.0),
        MediumRef("video", (names["small.png"],) * 4),
    ]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the parts that were decoded."""
    numbers: list[int] = []

    def counted(medium: Medium, wanted: Any, processor: Processor) -> Any:
        numbers.extend(wanted)
        return decode(medium, wanted, processor)

    monkeypatch.setattr(frame_cache, "decode", counted)
    return numbers


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.is_file())


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in entries(folder))


def read(reader: PixelReader, medium: Medium) -> torch.Tensor:
    return reader.read_units(medium, 0, medium.units)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "internvl", "idefics3"])
def test_the_same_bits_and_nothing_decoded_twice(
    folder: Path, tmp_path: Path, refs: list[MediumRef], decoded: list[int], family: str
) -> None:
    if family == "idefics3":  # whose own processor is asked, for pictures alone
        model, refs = write_checkpoint(tmp_path / "other", family)[0], refs[:1]
    else:
        model = make_tiny(tmp_path / "other", family=family)
    processor = load_processor(model)
    plain = PixelReader(processor)
    media = [probe_medium(ref, processor) for ref in refs]
    for again in (False, True):
        cache = FrameCache(tmp_path / "cache", MOST)  # as of another process
        cached = PixelReader(processor, cache.decode)
        for medium in media:
            assert torch.equal(read(cached, medium), read(plain, medium))
            for unit in range(medium.units):
                one = cached.read_units(medium, unit, unit + 1)
                assert torch.equal(one, plain.read_units(medium, unit, unit + 1))
        assert (decoded == []) == again and cache.decoded == len(decoded)
        decoded.clear()


def test_of_a_clip_only_the_frames_that_are_missing_are_decoded(
    folder: Path, tmp_path: Path, refs: list[MediumRef], decoded: list[int]
) -> None:
    processor = load_processor(folder / "model")
    medium = probe_medium(refs[1], processor)
    cached = PixelReader(processor, FrameCache(tmp_path / "cache", MOST).decode)
    cached.read_units(medium, 0, 2)
    assert decoded == list(medium.frame_indices[:4])
    decoded.clear()
    found = cached.read_units(medium, 1, 4)
    assert decoded == list(medium.frame_indices[4:8])
    assert torch.equal(found, PixelReader(processor).read_units(medium, 1, 4))


def test_what_an_entry_is_of(folder: Path, tmp_path: Path, refs: list[MediumRef], decoded: list[int]) -> None:
    """Another file, time of change or processor is another entry; a path to it written otherwise is not."""
    processor = load_processor(folder / "model")
    cache = FrameCache(tmp_path / "cache", MOST)

    def decodes(medium: Medium, processor: Processor = processor) -> bool:
        decoded.clear()
        assert torch.equal(read(PixelReader(processor, cache.decode), medium), read(PixelReader(processor), medium))
        return decoded != []

    medium = probe_medium(refs[0], processor)
    assert decodes(medium) and not decodes(medium)
    assert not decodes(replace(medium, source=str(folder / "media" / ".." / "media" / "large.png")))
    assert decodes(medium, replace(processor, fingerprint="another"))
    assert decodes(probe_medium(replace(refs[0], max_pixels=40_000), processor)), "another grid"
    os.utime(str(medium.source), (1e9, 1e9))
    assert decodes(medium) and not decodes(medium)
    levels = np.asarray(frame_cache.decode(medium, [0], processor)[0])
    from PIL import Image

    Image.fromarray(np.zeros((330, 500, 3), np.uint8)).save(str(medium.source))
    assert decodes(medium) and levels.any()
    os.unlink(str(medium.source))
    with pytest.raises(MediumError, match="no such file"):
        decodes(medium)


def test_damage_is_decoded_again(folder: Path, tmp_path: Path, refs: list[MediumRef], decoded: list[int]) -> None:
    processor = load_processor(folder / "model")
    medium = probe_medium(refs[2], processor)
    cached = PixelReader(processor, FrameCache(tmp_path / "cache", MOST).decode)
    expected = read(cached, medium)
    seed = 11
    draw = random.Random(seed)
    files = entries(tmp_path / "cache")
    whole = {file: file.read_bytes() for file in files}
    size = len(whole[files[0]])
    for at in [*range(36), *(draw.randrange(size) for _ in range(20)), -1, -2, -3]:
        victim = files[draw.randrange(len(files))]
        text = bytearray(whole[victim])
        if at >= 0:
            text[at] ^= 1 << draw.randrange(8)
        elif at == -1:
            text = text[: draw.randrange(size)]
        elif at == -2:
            text = bytearray(whole[files[0] if victim != files[0] else files[1]])  # whole, but another's
        else:
            text += b"x"
        victim.write_bytes(text)
        decoded.clear()
        assert torch.equal(read(cached, medium), expected), f"seed {seed}, byte {at}"
        assert len(decoded) == 1
        assert victim.read_bytes() == whole[victim], "and kept again"
        assert at < 0 or int((tmp_path / "cache" / LOCK).read_bytes()) == bytes_in(tmp_path / "cache")


def test_an_entry_that_cannot_be_read_is_decoded(folder: Path, tmp_path: Path, refs: list[MediumRef]) -> None:
    processor = load_processor(folder / "model")
    medium = probe_medium(refs[0], processor)
    cached = PixelReader(processor, FrameCache(tmp_path / "cache", MOST).decode)
    expected = read(cached, medium)
    (entry,) = entries(tmp_path / "cache")
    other = tmp_path / "elsewhere"
    entry.rename(other)
    entry.symlink_to(other)
    assert torch.equal(read(cached, medium), expected)
    entry.unlink()
    entry.mkdir()
    assert torch.equal(read(cached, medium), expected)


def pictures(folder: Path, count: int) -> list[MediumRef]:
    source = folder / "media" / "small.png"
    for number in range(count):
        os.link(source, folder / "media" / f"{number}.png")
    return [MediumRef("image", str(folder / "media" / f"{number}.png")) for number in range(count)]


def test_the_limit_and_what_goes_first(folder: Path, tmp_path: Path, decoded: list[int]) -> None:
    processor, place = load_processor(folder / "model"), tmp_path / "cache"
    media = [probe_medium(ref, processor) for ref in pictures(folder, 40)]

    def decodes(cached: PixelReader, *numbers: int) -> list[bool]:
        """Which of these media are decoded. Time passes: that of files is coarse."""
        found = []
        for number in numbers:
            decoded.clear()
            assert torch.equal(read(cached, media[number]), read(PixelReader(processor), media[number]))
            found.append(decoded != [])
            assert bytes_in(place) <= limit and int((place / LOCK).read_bytes()) == bytes_in(place)
            time.sleep(0.01)
        return found

    limit = MOST
    decodes(PixelReader(processor, FrameCache(place, limit).decode), 0)
    size = bytes_in(place)
    limit = 10 * size + size // 2
    first = PixelReader(processor, FrameCache(place, limit).decode)
    assert decodes(first, *range(20)) == [False] + [True] * 19
    assert decodes(first, *range(12)) == [False] * 10 + [True] * 2, "what is used stays, and there is no room for more"
    time.sleep(0.2)
    second = PixelReader(processor, FrameCache(place, limit).decode)  # of another run
    assert decodes(second, 0, 1, 30, 31, 32) == [False, False, True, True, True]
    assert decodes(second, 0, 1, 30, 31, 32) == [False] * 5
    assert decodes(second, 9, 8) == [False, False] and decodes(second, 2, 3) == [True, True], "unused for the longest"
    time.sleep(0.2)
    limit = 3 * size
    lower = PixelReader(processor, FrameCache(place, limit).decode)
    read(lower, media[35])
    decodes(lower, 35)
    time.sleep(0.2)
    limit = size - 1
    none = PixelReader(processor, FrameCache(place, limit).decode)
    read(none, media[36])
    assert decodes(none, 36, 36) == [True, True]


def test_half_a_cache_is_half_the_work(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs in random order, as the docs say."""
    processor, place = load_processor(folder / "model"), tmp_path / "cache"
    media = [probe_medium(ref, processor) for ref in pictures(folder, 20)]
    read(PixelReader(processor, FrameCache(tmp_path / "other", MOST).decode), media[0])
    cache = FrameCache(place, 10 * bytes_in(tmp_path / "other"))
    cached, draw = PixelReader(processor, cache.decode), random.Random(4)
    for epoch in range(4):
        cache.decoded = 0
        for medium in draw.sample(media, 20):
            read(cached, medium)
        assert cache.decoded == (10 if epoch else 20)


def test_entries_are_not_counted_each_time(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor, place = load_processor(folder / "model"), tmp_path / "cache"
    cached = PixelReader(processor, FrameCache(place, MOST).decode)
    monkeypatch.setattr(FrameCache, "_entries", lambda _: pytest.fail("the folder is read"))
    for ref in pictures(folder, 3):
        read(cached, probe_medium(ref, processor))
    assert int((place / LOCK).read_bytes()) == bytes_in(place)


def test_the_sum_is_counted_again_where_it_is_damaged(folder: Path, tmp_path: Path) -> None:
    processor, place = load_processor(folder / "model"), tmp_path / "cache"
    media = [probe_medium(ref, processor) for ref in pictures(folder, 3)]
    for medium, text in zip(media, (b"", b"words", b"12x"), strict=True):
        place.mkdir(exist_ok=True)
        (place / LOCK).write_bytes(text)
        read(PixelReader(processor, FrameCache(place, MOST).decode), medium)
        assert int((place / LOCK).read_bytes()) == bytes_in(place)
    half = entries(place)[0].parent / ".dhp-half"
    half.write_bytes(b"x")
    for age, is_there in ((10, True), (7200, False)):
        os.utime(half, (half.stat().st_mtime - age,) * 2)
        (place / LOCK).unlink()
        FrameCache(place, MOST)
        assert half.exists() == is_there, "what somebody else may be writing stays"
        assert int((place / LOCK).read_bytes()) == bytes_in(place), "and counts"


def test_what_is_not_ours_stays(folder: Path, tmp_path: Path) -> None:
    """In a folder that holds something else, too; also where room has to be made."""
    own = [tmp_path / "photos" / name for name in (".profile", "old.jpg")] + [tmp_path / "ab" / "notes.txt"]
    for file in own:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes(50_000))
        os.utime(file, (0, 0))
    processor = load_processor(folder / "model")
    cached = PixelReader(processor, FrameCache(tmp_path, 60_000).decode)
    for ref in pictures(folder, 12):
        read(cached, probe_medium(ref, processor))
    assert all(file.read_bytes() == bytes(50_000) for file in own)


def _reads(folder: Path, place: Path, limit: int, seed: int, answer: Any) -> None:
    torch.set_num_threads(1)
    processor = load_processor(folder / "model")
    reader = PixelReader(processor, FrameCache(place, limit).decode)
    draw = random.Random(seed)
    wrong = 0
    media = [probe_medium(MediumRef("image", str(folder / "media" / f"{n}.png")), processor) for n in range(12)]
    media.append(probe_medium(MediumRef("video", str(folder / "media" / "clip.mp4")), processor))
    expected = [read(PixelReader(processor), medium) for medium in media]
    for _ in range(60):
        at = draw.randrange(len(media))
        wrong += not torch.equal(read(reader, media[at]), expected[at])
    answer.put(wrong)


def test_processes_share_a_folder(folder: Path, tmp_path: Path) -> None:
    """Small enough that they remove what others have just written."""
    pictures(folder, 12)
    place, limit = tmp_path / "cache", 200_000
    answers = context.Queue()
    processes = [context.Process(target=_reads, args=(folder, place, limit, seed, answers)) for seed in range(3)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=120) for _ in processes] == [0, 0, 0]
    for process in processes:
        process.join(60)
    assert 0 < bytes_in(place) <= limit
    assert not list(place.glob("*/.dhp-*"))


def test_a_full_disk_is_said_once(
    folder: Path, tmp_path: Path, refs: list[MediumRef], capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    processor = load_processor(folder / "model")
    cached = PixelReader(processor, FrameCache(tmp_path / "cache", MOST).decode)
    monkeypatch.setattr(frame_cache.os, "link", full)
    for ref in refs:
        medium = probe_medium(ref, processor)
        assert torch.equal(read(cached, medium), read(PixelReader(processor), medium))
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"dhp: frame_cache: {tmp_path / 'cache'} cannot be written (No space left on device); what is not in it is "
        "decoded each time"
    ]
    assert not list((tmp_path / "cache").glob("*/.dhp-*"))
    assert int((tmp_path / "cache" / LOCK).read_bytes()) == 0


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "in", tmp_path / ("n" * 300), "a\0b"):
        with pytest.raises(InputError, match=r"frame_cache: .* cannot be written \(.*\); give another folder"):
            FrameCache(place, MOST)
