"""Reading data files: the layouts users have, and what is said about a bad line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dhp._core import InputError
from dhp.data.errors import DataError, MediumError
from dhp.data.formats.samples import Message, parse_sample, read_samples


def parse(row: Any, folder: Path = Path("/data"), line: int = 7) -> Any:
    text = row if isinstance(row, str) else json.dumps(row)
    return parse_sample(text, str(folder / "train.jsonl"), line)


def turns(question: Any, answer: str = "Yes.") -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_ms_swift() -> None:
    sample = parse(
        {
            "messages": [{"role": "system", "content": "Be brief."}, *turns("<image>A<video>\nB<image>")],
            "images": ["a.png", {"image": "/abs/b.png", "max_pixels": 4096}],
            "videos": [{"video": "c.mp4", "fps": 2, "video_start": 1.5, "video_end": 3, "max_pixels": 65536}],
        }
    )
    assert sample.line == 7
    assert [m.role for m in sample.messages] == ["system", "user", "assistant"]
    assert sample.messages[1].parts == (0, "A", 1, "\nB", 2)
    assert [(m.kind, m.source) for m in sample.media] == [
        ("image", "/data/a.png"),
        ("video", "/data/c.mp4"),
        ("image", "/abs/b.png"),
    ]
    assert (sample.media[1].fps, sample.media[1].video_start, sample.media[1].video_end) == (2, 1.5, 3)
    assert (sample.media[1].max_pixels, sample.media[2].max_pixels) == (65536, 4096)


def test_a_list_of_frames_is_a_video() -> None:
    sample = parse({"messages": turns("<video>?"), "videos": [["0.png", "1.png"]]})
    assert sample.media[0].source == ("/data/0.png", "/data/1.png")
    sample = parse({"messages": turns("<video>?"), "videos": [{"video": ["0.png", "1.png"], "fps": 4.0}]})
    assert sample.media[0].source == ("/data/0.png", "/data/1.png")
    assert sample.media[0].fps == 4.0


def test_sharegpt() -> None:
    sample = parse(
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A cat."}],
            "image": "cat.png",
        }
    )
    assert [m.role for m in sample.messages] == ["system", "user", "assistant"]
    assert sample.messages[1].parts == (0, "\nWhat?")
    assert sample.media[0].source == "/data/cat.png"


def test_openai_parts() -> None:
    content = [
        {"type": "text", "text": "Look: "},
        {"type": "image_url", "image_url": {"url": "file:///p/a.png"}},
        {"type": "video", "video": "b.mp4", "nframes": 8},
        {"type": "text", "text": "<image> stays text here"},
    ]
    sample = parse({"messages": turns(content)})
    assert sample.messages[0].parts == ("Look: ", 0, 1, "<image> stays text here")
    assert [m.source for m in sample.media] == ["/p/a.png", "/data/b.mp4"]
    assert sample.media[1].nframes == 8


def test_parts_take_from_the_lists() -> None:
    sample = parse({"messages": turns([{"type": "image"}, {"type": "text", "text": "?"}]), "images": ["a.png"]})
    assert sample.messages[0].parts == (0, "?")
    assert sample.media[0].source == "/data/a.png"


def test_loss_switch_of_a_turn() -> None:
    row = {"messages": [*turns("a", "b"), {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}
    row["messages"][1]["loss"] = False
    sample = parse(row)
    assert [m.loss for m in sample.messages] == [True, False, True, True]
    assert [Message.from_json(json.loads(json.dumps(m.to_json()))) for m in sample.messages] == list(sample.messages)


def test_relative_paths_beside_the_file_then_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "data" / "both.png").touch()
    (tmp_path / "here" / "both.png").touch()
    (tmp_path / "here" / "only.png").touch()
    monkeypatch.chdir(tmp_path / "here")
    row = {"messages": turns("<image><image><image>"), "images": ["both.png", "only.png", "none.png"]}
    sources = [m.source for m in parse(row, tmp_path / "data").media]
    assert sources == [
        str(tmp_path / "data" / "both.png"),
        str(tmp_path / "here" / "only.png"),
        str(tmp_path / "data" / "none.png"),
    ]


def test_file_with_blank_lines_and_bom(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    line = json.dumps({"messages": turns("a")})
    path.write_text(f"\ufeff{line}\n\n  \n{line}", encoding="utf-8")
    assert [s.line for s in read_samples(path)] == [1, 4]


def test_tags_and_media_counts_at_random() -> None:
    seed = 20260801
    print("seed", seed)
    rng = random.Random(seed)
    good = 0
    for _ in range(300):
        tags = [rng.choice(["image", "video"]) for _ in range(rng.randrange(5))]
        listed = {"images": tags.count("image"), "videos": tags.count("video")}
        if rng.random() < 0.5:
            listed[rng.choice(["images", "videos"])] += rng.choice([-1, 1, 2])
        row: dict[str, Any] = {"messages": turns("x".join(f"<{t}>" for t in tags) or "text")}
        row.update({key: ["f"] * count for key, count in listed.items() if count > 0})
        matches = max(0, listed["images"]) == tags.count("image") and max(0, listed["videos"]) == tags.count("video")
        if matches:
            assert [m.kind for m in parse(row).media] == tags
            good += 1
        else:
            with pytest.raises(DataError, match=r"train\.jsonl:7: (images|videos): \d listed, but"):
                parse(row)
    assert 50 < good < 250


BAD = [
    ('{"messages": [', "not valid JSON at column", "one JSON object"),
    ("[1, 2]", "found [1, 2]", "one JSON object"),
    ({"text": "x"}, "neither `messages` nor `conversations`", "text"),
    ({"messages": []}, "messages: found []", "at least one turn"),
    ({"messages": "hi"}, 'messages: found "hi"', "list"),
    ({"messages": ["hi"]}, "messages[0]: found", "`role` and `content`"),
    ({"messages": [{"role": "bot", "content": "x"}]}, 'messages[0].role: found "bot"', "assistant"),
    ({"conversations": [{"from": "tool?", "value": "x"}]}, "conversations[0].from", "gpt"),
    ({"messages": turns(5)}, "messages[0].content: found 5", "text"),
    ({"messages": turns([{"type": "audio"}])}, "messages[0].content[0]", "image_url"),
    ({"messages": turns([{"type": "text", "text": 3}])}, "messages[0].content[0].text: found 3", "text"),
    ({"messages": turns([{"type": "image"}])}, "messages[0].content[0]", "`image` or `path`"),
    ({"messages": turns("a")[:1]}, "no assistant turn", "drop the sample"),
    ({"messages": [{**t, "loss": "no"} for t in turns("a")]}, 'messages[0].loss: found "no"', "true or false"),
    ({"messages": turns("<image>"), "images": {"a": 1}}, "images[0]", "`image` or `path`"),
    ({"messages": turns("<image>"), "images": 3}, "images: found 3", "list"),
    ({"messages": turns("<image>"), "images": [3]}, "images[0]: found 3", "path"),
    ({"messages": turns("<image>"), "images": [["a", "b"]]}, "images[0]", "path"),
    ({"messages": turns("<image>"), "images": [""]}, 'images[0]: found ""', "path"),
    (
        {"messages": turns("<image>"), "images": ["data:image/png;base64,AA"]},
        "images[0]",
        "base64 is read in JSON lines only",
    ),
    ({"messages": turns("<image>"), "images": [{"image": "a", "fps": 2}]}, "images[0].fps: found 2", "max_pixels"),
    ({"messages": turns("<video>"), "videos": [{"video": "a", "fsp": 2}]}, "videos[0].fsp: found 2", "fps"),
    ({"messages": turns("<video>"), "videos": [{"video": "a", "fps": 0}]}, "videos[0].fps: found 0", "positive"),
    ({"messages": turns("<video>"), "videos": [{"video": "a", "fps": True}]}, "videos[0].fps: found true", "positive"),
    ({"messages": turns("<video>"), "videos": [{"video": "a", "nframes": 2.5}]}, "nframes: found 2.5", "whole"),
    ({"messages": turns("<video>"), "videos": [{"video": "a", "max_pixels": -1}]}, "max_pixels: found -1", "whole"),
    (
        {"messages": turns("<video>"), "videos": [{"video": "a", "fps": 1, "nframes": 4}]},
        "both fps 1",
        "one of the two",
    ),
    (
        {"messages": turns("<video>"), "videos": [{"video": "a", "video_start": 3, "video_end": 2}]},
        "video_end: found 2",
        "after video_start",
    ),
    (
        {"messages": turns("<video>"), "videos": [{"video": "a", "video_start": -1}]},
        "video_start: found -1",
        "positive",
    ),
    ({"messages": turns("<video>"), "videos": [{"video": ["a", "b"], "nframes": 4}]}, "nframes: found 4", "frames"),
    ({"messages": turns("<video>"), "videos": [[]]}, "videos[0]: found []", "list of paths"),
]


@pytest.mark.parametrize(("row", "found", "hint"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_line(row: Any, found: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(row)
    message = str(caught.value)
    assert message.startswith("/data/train.jsonl:7: ")
    assert found in message
    assert hint in message.removeprefix("/data/train.jsonl:7: ")
    assert isinstance(caught.value, InputError)


def test_unreadable_data_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: No such file"):
        list(read_samples(tmp_path / "none.jsonl"))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.jsonl: is not UTF-8"):
        list(read_samples(tmp_path / "binary.jsonl"))


def test_medium_error_survives_a_process_boundary() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(MediumError("a.png", "is empty")))
    assert (error.path, error.problem, str(error)) == ("a.png", "is empty", "a.png: is empty")
