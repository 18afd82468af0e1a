"""Longer clips than the demo's: minutes of real video, cut into samples whose lengths differ a hundredfold."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from dhp.demo.checkpoint import make_tiny_checkpoint

SAMPLES, SEED = 240, 7
# (file in the demo's media, seconds of it); the first comes from the Debian package opencv-doc
CLIPS = (("vtest.avi", 79.5), ("bikes.mp4", 10.0), ("bigbuckbunny.mp4", 5.2), ("carphone_pristine.mp4", 4.0))
VTEST = "usr/share/doc/opencv-doc/examples/data/vtest.avi"


def prepare_long(demo: Path, folder: Path) -> tuple[Path, Path]:
    """(model, data): the demo's checkpoint with room for longer clips, and cuts of real clips: durations log-normal,
    median 6 s, up to 79 s at 2 frames a second; a tenth are pictures. `demo`: what `make demo` prepared."""
    folder.mkdir(parents=True, exist_ok=True)
    media = (demo / "media").resolve()
    vtest = folder / "vtest.avi"
    if not vtest.exists():
        _fetch_vtest(vtest)
    model = folder / "model"
    if not (model / "config.json").exists():
        make_tiny_checkpoint(model, video_max_pixels=2 * 8192 * 32 * 32, max_frames=160)
    data = folder / "train.jsonl"
    if not data.exists():
        rows = [_sample(generator_row, media, vtest) for generator_row in _cuts()]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return model, data


def _cuts() -> list[tuple[str, float, float]]:
    """(file, start, end); a picture where the end is 0."""
    random = np.random.default_rng(SEED)
    cuts: list[tuple[str, float, float]] = []
    pictures = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "china.jpg", "flower.jpg")
    for number in range(SAMPLES):
        if number % 10 == 9:
            cuts.append((str(random.choice(pictures)), 0.0, 0.0))
            continue
        wanted = float(np.clip(random.lognormal(np.log(6.0), 1.0), 2.2, 79.0))
        fits = [(name, length) for name, length in CLIPS if length >= wanted]
        name, length = fits[int(random.integers(len(fits)))]
        start = float(random.uniform(0.0, length - wanted))
        cuts.append((name, round(start, 1), round(start + wanted, 1)))
    return cuts


def _sample(cut: tuple[str, float, float], media: Path, vtest: Path) -> dict[str, object]:
    name, start, end = cut
    file = str(vtest.resolve() if name == vtest.name else media / name)
    answer = {
        "role": "assistant",
        "content": "People, animals and things, seen for some time." if end else "A picture.",
    }
    if not end:
        return {"messages": [{"role": "user", "content": "<image>What is it?"}, answer], "images": [file]}
    # 72 merged tokens a frame pair at most
    clip = {"video": file, "video_start": start, "video_end": end, "fps": 2.0, "max_pixels": 12 * 32 * 6 * 32}
    return {"messages": [{"role": "user", "content": "<video>What is to be seen?"}, answer], "videos": [clip]}


def _fetch_vtest(target: Path) -> None:
    """From the installed package opencv-doc, or out of its archive, which apt-get downloads without installing."""
    installed = Path("/") / VTEST
    if installed.exists():
        shutil.copyfile(installed, target)
        return
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["apt-get", "download", "-qq", "opencv-doc"], cwd=scratch, check=True)
        archive = next(Path(scratch).glob("opencv-doc_*.deb"))
        subprocess.run(["dpkg-deb", "-x", archive, scratch], check=True)
        shutil.move(Path(scratch) / VTEST, target)
