"""Builds the demo's folder: media, crops, frame lists, train.jsonl and the tiny checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from dhp.data.decoding.clips import read_frames
from dhp.demo.checkpoint import make_tiny_checkpoint
from dhp.demo.fetch import PACKAGES, fetch
from dhp.demo.table import table

_STAMP = "demo.json"  # written last: says that the folder is whole, and what it was made from


def prepare(folder: str | os.PathLike[str], family: str = "qwen3_vl") -> bool:
    """Makes the folder; False where it was there and whole already. The same bytes every time.

    folder/media/…      pictures, clips, crops/, frames/, ATTRIBUTION.txt
    folder/train.jsonl  the samples, ms-swift layout
    folder/model        the checkpoint
    """
    root = Path(folder)
    wanted = f"{family} {_identity()}"
    stamp = root / _STAMP
    if stamp.exists() and _whole(root, json.loads(stamp.read_text()), wanted):
        return False
    media = root / "media"
    fetch(media)
    _save_crops(media)
    _save_frames(media)
    _write_samples(root)
    make_tiny_checkpoint(root / "model", family=family)
    stamp.write_text(json.dumps({"made_from": wanted, "files": _files(root)}, indent=1) + "\n")
    return True


def _identity() -> str:
    """Changes when this package's table or code does."""
    digest = hashlib.sha256()
    for entry in sorted(resources.files("dhp.demo").iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith((".py", ".toml")):
            digest.update(entry.read_bytes())
    return digest.hexdigest()


def _whole(root: Path, stamp: dict[str, Any], wanted: str) -> bool:
    return stamp.get("made_from") == wanted and all(
        (root / name).is_file() and (root / name).stat().st_size == size for name, size in stamp["files"].items()
    )


def _files(root: Path) -> dict[str, int]:
    """Sizes of what was made; what users and runs add later is none of our business."""
    made = [root / "train.jsonl", *sorted((root / "media").rglob("*")), *sorted((root / "model").rglob("*"))]
    return {str(path.relative_to(root)): path.stat().st_size for path in made if path.is_file()}


def _save_crops(media: Path) -> None:
    (media / "crops").mkdir(exist_ok=True)
    for name, (source, *box) in table()["crops"].items():
        with Image.open(media / source) as picture:
            left, top, right, bottom = box
            picture.crop((left, top, right, bottom)).save(media / "crops" / f"{name}.png")


def _save_frames(media: Path) -> None:
    for name, (source, *numbers) in table()["frames"].items():
        folder = media / "frames" / name
        folder.mkdir(parents=True, exist_ok=True)
        frames = read_frames(str(media / source), numbers)
        for place, number in enumerate(numbers):
            Image.fromarray(frames[number]).save(folder / f"{place:03}.png")


def _write_samples(root: Path) -> None:
    lines = [json.dumps(_sample(row), ensure_ascii=False) for row in table()["sample"]]
    (root / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sample(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table in ms-swift's layout."""
    messages = [{"role": "system", "content": row["system"]}] if "system" in row else []
    for question, answer in row["turns"]:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    sample: dict[str, Any] = {"messages": messages}
    if "images" in row:
        sample["images"] = [f"media/crops/{n}.png" if n in table()["crops"] else f"media/{n}" for n in row["images"]]
    if "videos" in row:
        sample["videos"] = [_video(entry) for entry in row["videos"]]
    return sample


def _video(entry: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(entry, str):
        return f"media/{entry}"
    if "frames" not in entry:
        return {**entry, "video": f"media/{entry['video']}"}
    name = entry["frames"]
    count = len(table()["frames"][name]) - 1
    paths = [f"media/frames/{name}/{place:03}.png" for place in range(count)]
    return {"video": paths, **{key: value for key, value in entry.items() if key != "frames"}}


__all__ = ["PACKAGES", "prepare"]
