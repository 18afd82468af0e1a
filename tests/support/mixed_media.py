"""Small pictures and clips made on the spot: moving gradients, so that every frame differs."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
from PIL import Image


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3]: smooth colours with some noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / (5 + 3 * c) + y / (9 - 2 * c) + seed) for c in range(3)]
    noise = generator.normal(0, 0.1, (height, width, 3))
    return np.clip((np.stack(waves, -1) + noise + 1.2) * 100, 0, 255).astype(np.uint8)


def write_picture(file: Path, width: int, height: int, seed: int) -> None:
    Image.fromarray(picture(width, height, seed)).save(file)


def write_clip(file: Path, width: int, height: int, frames: int, fps: int, seed: int) -> None:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture(width, height, seed), 7 * i, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_sound(file: Path, samples: int, rate: int, channels: int = 1, seed: int = 0) -> None:
    """A chirp with some noise, in the format that the name says."""
    import soundfile

    generator = np.random.default_rng(seed)
    time = np.arange(samples)[:, None] / rate
    wave = 0.4 * np.sin(2 * np.pi * (200 + 300 * time) * time * (1 + np.arange(channels)))
    soundfile.write(file, wave + generator.normal(0, 0.05, (samples, channels)), rate)


def write_mixed_data(folder: Path, media: str = "image video", mixed: bool = True) -> None:
    """train.jsonl with pictures, several pictures, clips, clip and picture together (if `mixed`), and text; or less of
    it; or, where `media` says audio, sounds as well."""
    for i, (width, height) in enumerate([(64, 64), (320, 192), (448, 256), (96, 352)]):
        write_picture(folder / f"picture{i}.png", width, height, i)
    for i, (width, height, frames, fps) in enumerate([(96, 64, 20, 10), (160, 128, 33, 10), (128, 96, 50, 10)]):
        write_clip(folder / f"clip{i}.mp4", width, height, frames, fps, i)

    def sample(question: str, answer: str, **media: list[object]) -> dict[str, object]:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": messages, **media}

    samples = [
        sample("<image>What is it?", "Stripes of colour.", images=["picture0.png"]),
        sample("<image>Describe.", "Waves, wide and blurred.", images=["picture1.png"]),
        sample("<image>Describe it well.", "A large field of soft waves.", images=["picture2.png"]),
        sample("<image><image>Which is taller?", "The second.", images=["picture0.png", "picture3.png"]),
        sample("<video>What moves?", "Everything, to the right.", videos=["clip0.mp4"]),
        sample("<video>And here?", "The same, longer.", videos=["clip1.mp4"]),
        sample("<video>Tell me more.", "The pattern drifts.", videos=[{"video": "clip2.mp4", "fps": 3.0}]),
        sample(
            "<video>Is this<image>in it?",
            "Hard to say.",
            videos=[{"video": "clip2.mp4", "video_start": 1.0, "video_end": 3.0}],
            images=["picture1.png"],
        ),
        sample("Two and two?", "Four."),
        sample("Name a colour, and then another one, please. " * 6, "Red. Blue. " * 12),
    ]
    if "audio" in media:
        write_sound(folder / "short.wav", 3_000, 16000)
        write_sound(folder / "long.flac", 50_000, 22050, channels=2, seed=1)
        samples[:0] = [
            sample("<audio>What is heard?", "A tone that rises.", audios=["long.flac"]),
            sample("<audio>Is it<image>or this?<audio>", "Both.", audios=["short.wav", "long.flac"],
                   images=["picture1.png"]),
        ]  # fmt: skip
    samples[-2]["messages"] += [  # type: ignore[operator]
        {"role": "user", "content": "And three?"},
        {"role": "assistant", "content": "Seven."},
    ]
    if not mixed:
        samples = [one for one in samples if not {"images", "videos"} <= one.keys()]
    if "video" not in media:
        samples = [one for one in samples if "videos" not in one]
    if not media:
        samples = [sample("Say it. " * n, "So be it. " * n) for n in (1, 2, 3, 5, 8, 13)] + samples[-2:]
    (folder / "train.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples * 2))
