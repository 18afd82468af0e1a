"""Every field that changes what is learned is followed as ms-swift and the chat template do, or refused by name; null
is absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dhp.data.errors import DataError
from dhp.data.formats.samples import parse_sample
from dhp.data.indexing.index import build_index, load_index
from dhp.data.indexing.index_command import summary
from dhp.data.text import IGNORED, Encoder
from tiny_run import make_tiny
from tool_template import TOOL_TEMPLATE

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo", "hours": [1, None]}}}


def parse(row: Any) -> Any:
    return parse_sample(json.dumps(row), "/data/train.jsonl", 7)


def user(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def answer(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def model(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its chat template knows tools and reasoning."""
    folder = Path(shutil.copytree(plain, tmp_path_factory.mktemp("tools") / "model"))
    (folder / "chat_template.jinja").write_text(TOOL_TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    return Encoder(model)


def learned(encoder: Encoder, row: Any) -> list[str]:
    """The runs of tokens with a label, as text."""
    encoded = encoder.encode(parse(row))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (encoded.labels != IGNORED).astype(int), [0]])))
    return [encoder.tokenizer.decode(encoded.input_ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


# ---- tools and reasoning: against apply_chat_template ---------------------------------------------------------------

WITH_TOOLS = [
    {
        "tools": [WEATHER],
        "messages": [
            user("Weather?"),
            answer("", tool_calls=[CALL]),
            {"role": "tool", "content": "sun"},
            answer("Sunny."),
        ],
    },
    {
        "tools": [WEATHER, {**WEATHER, "function": {"name": "tides", "parameters": {}}}],
        "messages": [
            {"role": "system", "content": "Be brief."},
            user("Weather and tides?"),
            answer("Let me see.", tool_calls=[CALL, {**CALL, "function": {"name": "tides", "arguments": '{"a": 1}'}}]),
            {"role": "tool", "content": "sun", "tool_call_id": "1", "name": "weather"},
            {"role": "tool", "content": "high"},
            answer("Sunny, high.", reasoning_content="Both are there."),
            user("Thanks."),
            answer("You are welcome.", reasoning_content="Polite."),
        ],
    },
    {"messages": [user("Two and two?"), answer("Four.", reasoning_content="2 + 2 = 4")]},
]


@pytest.mark.parametrize("row", WITH_TOOLS)
def test_tools_and_reasoning_are_what_apply_chat_template_makes_of_them(encoder: Encoder, row: dict[str, Any]) -> None:
    text = encoder.tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)
    encoded = encoder.encode(parse(row))
    assert encoded.input_ids.tolist() == encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert encoder.tokenizer.decode(encoded.input_ids) == text


def test_calls_are_learned(encoder: Encoder) -> None:
    first, second = learned(encoder, WITH_TOOLS[0])
    assert first == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "hours": [1, null]}}\n</tool_call><|im_end|>'
    )
    assert second == "Sunny.<|im_end|>"
    assert learned(encoder, WITH_TOOLS[2]) == ["<think>\n2 + 2 = 4\n</think>\n\nFour.<|im_end|>"]


def test_swift_and_sharegpt_calls_are_the_same_turns() -> None:
    call = {"name": "weather", "arguments": {"city": "Oslo"}}
    openai = parse(
        {
            "messages": [
                user("Weather?"),
                answer("Wait.", tool_calls=[{"type": "function", "function": call}, {"function": call}]),
                {"role": "tool", "content": "sun"},
                answer(None, tool_calls=[{"function": {"name": "tides"}, "id": None}]),
                {"role": "tool", "content": {"tide": "hoch ü"}},
                answer("Sunny."),
            ]
        }
    )
    swift = [
        ("user", "human", "Weather?"),
        ("assistant", "gpt", "Wait."),
        ("tool_call", "function_call", json.dumps(call)),
        ("tool_call", "function_call", call),
        ("tool_response", "observation", "sun"),
        ("tool_call", "function_call", {"name": "tides", "arguments": {}}),
        ("tool_response", "observation", '{"tide": "hoch ü"}'),
        ("assistant", "gpt", "Sunny."),
    ]
    assert parse({"messages": [{"role": r, "content": c} for r, _, c in swift]}).messages == openai.messages
    assert parse({"conversations": [{"from": r, "value": c} for _, r, c in swift]}).messages == openai.messages
    assert [m.role for m in openai.messages] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert len(openai.messages[1].tool_calls) == 2


def test_tools_come_as_lists_or_text_and_without_the_padding_of_arrow() -> None:
    padded = {**WEATHER, "function": {**WEATHER["function"], "strict": None}}  # type: ignore[dict-item]
    padded["function"]["parameters"] = {"type": "object", "x": None, "enum": ["a", None], "default": None}
    clean = {**WEATHER, "function": {**WEATHER["function"]}}  # type: ignore[dict-item]
    clean["function"]["parameters"] = {"type": "object", "enum": ["a", None], "default": None}
    talk = [user("a"), answer("b")]
    for tools in ([padded], json.dumps([padded]), [json.dumps(padded)], padded, [padded["function"]]):
        assert parse({"messages": talk, "tools": tools}).tools == (clean,)
    for nothing in (None, [], ""):
        assert parse({"messages": talk, "tools": nothing}).tools == ()


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (WITH_TOOLS[0], "tool_calls"),
        (WITH_TOOLS[2], "reasoning_content"),
        ({"messages": [user("a"), answer("b")], "tools": [WEATHER]}, "tools"),
    ],
)
def test_a_template_that_makes_nothing_of_them_is_named(plain: Path, row: Any, named: str) -> None:
    with pytest.raises(DataError, match=rf"^{named}: the checkpoint's chat template makes nothing of"):
        Encoder(plain).encode(parse(row))


def test_control_tokens_in_calls_and_tools_are_refused(encoder: Encoder) -> None:
    bad = {"type": "function", "function": {"name": "weather", "arguments": {"city": "<|im_end|>"}}}
    for row in (
        {"messages": [user("a"), answer("", tool_calls=[bad])]},
        {"messages": [user("a"), answer("b", reasoning_content="<|im_end|>")]},
        {"messages": [user("a"), answer("b")], "tools": [{"name": "<|im_end|>"}]},
    ):
        with pytest.raises(DataError, match=r"control token <\|im_end\|>"):
            encoder.encode(parse(row))


def test_the_index_keeps_what_training_encodes(model: Path, encoder: Encoder, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in WITH_TOOLS))
    built = build_index(data, model)
    loaded = load_index(built.path, data, model)
    assert loaded.samples == built.samples
    for row, sample in zip(WITH_TOOLS, loaded.samples, strict=True):
        assert encoder.encode(sample).input_ids.tolist() == encoder.encode(parse(row)).input_ids.tolist()
        assert encoder.encode(sample).label_tokens == sample.label_tokens


# ---- which turns are learned ----------------------------------------------------------------------------------------

TALK = [user("One?"), answer("First."), user("Two?"), answer("Second.")]


@pytest.mark.parametrize(
    ("row", "turns", "expected"),
    [
        ({}, {}, [True, True]),
        ({"loss_scale": "default"}, {}, [True, True]),
        ({"loss_scale": "last_round"}, {}, [False, True]),
        ({"loss_scale": "last_round"}, {1: {"loss": True}}, [True, True]),
        ({"loss_scale": "last_round"}, {1: {"loss_scale": 1.0}}, [False, True]),
        ({}, {1: {"loss": False}}, [False, True]),
        ({}, {1: {"loss": 0.0}}, [False, True]),
        ({}, {1: {"loss_scale": 0}}, [False, True]),
        ({}, {1: {"loss": False, "loss_scale": 1}}, [False, True]),
        ({}, {1: {"loss": True, "loss_scale": 0}}, [False, True]),
        ({}, {1: {"weight": 0}, 3: {"weight": 1}}, [False, True]),
        ({}, {1: {"loss": None, "loss_scale": None}}, [True, True]),
    ],
)
def test_switches_of_turns(row: dict[str, Any], turns: dict[int, dict[str, Any]], expected: list[bool]) -> None:
    sample = parse({"messages": [{**t, **turns.get(i, {})} for i, t in enumerate(TALK)], **row})
    assert [m.loss for m in sample.messages if m.role == "assistant"] == expected


def test_the_last_round_begins_after_the_last_answer_of_a_tool() -> None:
    row = {"loss_scale": "last_round", "messages": [*WITH_TOOLS[0]["messages"]]}
    assert [m.loss for m in parse(row).messages if m.role == "assistant"] == [False, True]


# ---- refused by name ------------------------------------------------------------------------------------------------

REFUSED = [
    ({"objects": {"ref": ["a"], "bbox": [[1, 2, 3, 4]]}}, "objects"),
    ({"audios": ["a.wav"]}, "audios"),
    ({"audio": "a.wav"}, "audio"),
    ({"rejected_response": "No."}, "rejected_response"),
    ({"rejected_messages": TALK}, "rejected_messages"),
    ({"rejected_images": ["a.png"]}, "rejected_images"),
    ({"positive_messages": [TALK]}, "positive_messages"),
    ({"negative_messages": [TALK]}, "negative_messages"),
    ({"label": False}, "label"),
    ({"label": 0}, "label"),
    ({"margin": 0.5}, "margin"),
    ({"weight": 0.5}, "weight"),
    ({"objects": {"ref": [None, ["a"]], "bbox": []}}, "objects"),
    ({"teacher_prompt": "x"}, "teacher_prompt"),
    ({"teacher_images": ["x"]}, "teacher_images"),
    ({"chat_template_kwargs": {"enable_thinking": False}}, "chat_template_kwargs"),
    ({"loss_scale": "all"}, "loss_scale"),
    ({"loss_scale": 0.5}, "loss_scale"),
    ({"tool_calls": [CALL]}, "tool_calls"),
    ({"reasoning_content": "x"}, "reasoning_content"),
    ({"Tools": [WEATHER]}, "Tools"),
    ({"Label": 1}, "Label"),
    ({"input_ids": [1, 2]}, "input_ids"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": 5}, "tools[0]"),
    ({"system": ["Be brief."]}, "system"),
    ({"system": "a", "system_prompt": "b"}, "system"),
    ({"image": "a.png", "images": ["b.png"]}, "image"),
    ({"conversations": [{"from": "human", "value": "x"}]}, "conversations"),
]
REFUSED_IN_TURNS = [
    ({"tools": [WEATHER]}, "messages[1].tools"),
    ({"images": ["a.png"]}, "messages[1].images"),
    ({"audio": {"id": "x"}}, "messages[1].audio"),
    ({"function_call": {"name": "x"}}, "messages[1].function_call"),
    ({"reasoning": "x"}, "messages[1].reasoning"),
    ({"thinking": "x"}, "messages[1].thinking"),
    ({"loss_scale": 0.5}, "messages[1].loss_scale"),
    ({"loss_scale": [1, 0]}, "messages[1].loss_scale"),
    ({"weight": 2}, "messages[1].weight"),
    *(({key: 0}, f"messages[1].{key}") for key in ("mask", "trainable", "train_on", "do_train", "ignore_loss")),
    ({"tool_calls": {}}, "messages[1].tool_calls"),
    ({"tool_calls": [{"function": {}}]}, "messages[1].tool_calls[0]"),
    ({"tool_calls": [{"function": {"name": "x", "arguments": 3}}]}, "messages[1].tool_calls[0].arguments"),
    ({"reasoning_content": ["x"]}, "messages[1].reasoning_content"),
    ({"name": 5}, "messages[1].name"),
]


@pytest.mark.parametrize(("field", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_a_field_of_a_sample_is_refused_by_name(field: dict[str, Any], named: str) -> None:
    row = {"messages": TALK, **field}
    with pytest.raises(DataError) as caught:
        parse(row)
    assert str(caught.value).startswith(f"/data/train.jsonl:7: {named}: found ")


@pytest.mark.parametrize(("field", "named"), REFUSED_IN_TURNS, ids=[named for _, named in REFUSED_IN_TURNS])
def test_a_field_of_a_turn_is_refused_by_name(field: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError) as caught:
        parse({"messages": [user("a"), answer("b", **field)]})
    assert str(caught.value).startswith(f"/data/train.jsonl:7: {named}: found ")


@pytest.mark.parametrize("tag", ["<audio>", "<bbox>", "<ref-object>", "<cot-process>"])
def test_tags_of_what_is_not_read_are_refused_in_plain_text(tag: str) -> None:
    with pytest.raises(DataError, match=rf"messages\[1\]\.content: holds the tag {tag}"):
        parse({"messages": [user("a"), answer(f"b {tag}")]})
    kept = parse({"messages": [user("a"), answer([{"type": "text", "text": tag}])]})
    assert kept.messages[1].parts == (tag,)


def test_a_part_of_type_text_has_no_picture() -> None:
    with pytest.raises(DataError, match=r"messages\[0\]\.content\[0\]\.image: found"):
        parse({"messages": [user([{"type": "text", "text": "x", "image": "a.png"}]), answer("b")]})


def test_two_system_prompts_are_refused_and_one_is_one() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert [m.role for m in parse({"messages": [system, *TALK[:2]], "system": "Be brief."}).messages][:2] == [
        "system",
        "user",
    ]
    assert parse({"messages": TALK, "system_prompt": "Be brief."}).messages[0].parts == ("Be brief.",)
    with pytest.raises(DataError, match="system: found"):
        parse({"messages": [system, *TALK], "system": "Be long."})


# ---- ignored, and named ---------------------------------------------------------------------------------------------


def test_other_keys_are_ignored_and_named_once(plain: Path, tmp_path: Path) -> None:
    rows = [
        {"messages": [user("a", time=3), answer("b")], "id": 1, "source": "x", "channel": "chat", "audios": []},
        {"messages": [user("a"), answer("b", id="m1")], "id": 2, "objects": {}, "label": None, "\x1b[2J": 1},
    ]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = build_index(data, plain)
    wanted = {"\x1b[2J": 1, "audios": 1, "channel": 1, "id": 2, "messages.id": 1, "messages.time": 1, "objects": 1}
    assert index.ignored == {**wanted, "source": 1}
    assert load_index(index.path).ignored == index.ignored
    assert "keys that mean nothing here, and their lines: \\x1b[2J (1), audios (1), channel (1), id (2)" in summary(
        index
    )


# ---- null is absent -------------------------------------------------------------------------------------------------


def test_what_holds_nothing_is_no_value() -> None:
    empty = {"objects": {"ref": [], "bbox": [[], None], "image_id": None}, "audios": [""]}
    assert parse({"messages": TALK, **empty}).ignored == ("audios", "objects")


def test_null_is_absent_everywhere() -> None:
    clean = {
        "messages": [
            user([{"type": "image", "image": "a.png"}, {"type": "video"}, {"type": "text", "text": "What?"}]),
            answer([{"type": "text", "text": "Red."}]),
        ],
        "videos": [{"video": "b.mp4", "fps": 2.0}],
    }
    nulls: dict[str, Any] = dict.fromkeys(
        ("images", "image", "video", "system", "tools", "objects", "label", "loss_scale", "conversations", "id")
    )
    padded = {
        **nulls,
        "messages": [
            {
                **dict.fromkeys(("loss", "tool_calls", "reasoning_content", "name", "audio", "images")),
                **user(
                    [
                        {"type": "image", "image": "a.png", "text": None, "video": None, "max_pixels": None},
                        {"type": "video", "text": None, "image": None, "video": None},
                        {"type": "text", "text": "What?", "image": None, "image_url": None},
                    ]
                ),
            },
            answer([{"type": "text", "text": "Red.", "image": None}]),
        ],
        "videos": [None, {"video": "b.mp4", "path": None, "fps": 2.0, "nframes": None, "bytes": None}],
    }
    assert parse(padded) == parse(clean)


def test_a_picture_beside_null_pictures() -> None:
    row = {"messages": [user("<image>What?"), answer("Red.")], "image": "a.png", "images": None}
    assert [m.source for m in parse(row).media] == ["/data/a.png"]


@pytest.mark.parametrize("images", ["a.png", ["a.png"]])
@pytest.mark.parametrize("image", ["a.png", ["a.png"]])
def test_the_same_picture_under_both_names_is_one(image: Any, images: Any) -> None:
    row = {"messages": [user("<image>What?"), answer("Red.")], "image": image, "images": images}
    assert [m.source for m in parse(row).media] == ["/data/a.png"]


def test_whole_numbers_may_come_with_a_point() -> None:
    """pandas writes a column of whole numbers with gaps as 65536.0."""
    row = {"messages": [user("<video>"), answer("b")], "videos": [{"video": "v", "nframes": 8.0, "max_pixels": 1e5}]}
    (medium,) = parse(row).media
    assert (medium.nframes, medium.max_pixels) == (8, 100_000)
    assert type(medium.nframes) is type(medium.max_pixels) is int
