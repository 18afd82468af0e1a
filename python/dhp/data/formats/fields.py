"""Which keys of a sample mean something. One that changes what is learned is followed, or refused by its name; any
other is ignored, and named once in the summary of the index.

The names are those of ms-swift (`swift/dataset/preprocessor/core.py: standard_keys`, 4.6), OpenAI's and TRL's.
"""

from __future__ import annotations

from typing import Any

ROW = {
    "messages",
    "conversations",
    "system",
    "system_prompt",
    "images",
    "image",
    "videos",
    "video",
    "tools",
    "loss_scale",
}
SOUND = {"audios", "audio"}  # of a row too, where the model hears
TURN = {
    "role",
    "content",
    "from",
    "value",
    "loss",
    "loss_scale",
    "weight",
    "tool_calls",
    "reasoning_content",
    "name",
    "tool_call_id",
}
PART = {"type", "text"}

_PREFERENCE = "dhp trains on the messages alone, without preferences, rewards or classes"
_SILENT = "only models that hear take sounds, as `audios` beside the messages; see docs/models.md"
_REFUSED = {
    "rejected_response": _PREFERENCE,
    "rejected": _PREFERENCE,
    "chosen": _PREFERENCE,
    "positive": _PREFERENCE,
    "negative": _PREFERENCE,
    "label": _PREFERENCE,
    "margin": _PREFERENCE,
    "reward": _PREFERENCE,
    "target_probs": _PREFERENCE,
    "teacher_prompt": "dhp has no teacher",
    "audio": _SILENT,
    "audios": _SILENT,
    "audio_url": _SILENT,
    "input_audio": _SILENT,
    "ref_audios": _SILENT,
    "audio_codes": _SILENT,
    "objects": "boxes and names are not filled in; write them into the text as the model has them",
    "chat_template_kwargs": "the chat template gets no further arguments; write the text as it is to be learned",
    "documents": "the chat template gets no documents; write them into a message",
    "functions": "write them as `tools`",
    "function_call": "write it as `tool_calls`",
    "reasoning": "write it as `reasoning_content`",
    "thinking": "write it as `reasoning_content`",
    "input_ids": "dhp tokenizes the messages itself",
    "labels": "dhp makes labels of the messages itself",
    "loss_mask": "switch a turn off with its `loss`",
    **dict.fromkeys(
        ("train", "mask", "trainable", "train_on", "do_train", "ignore_loss"), "switch a turn off with its `loss`"
    ),
    "weight": "samples all count the same; leave some out, or repeat them",
}
_BEGINNINGS = {
    "rejected_": _PREFERENCE,
    "positive_": _PREFERENCE,
    "negative_": _PREFERENCE,
    "teacher_": "dhp has no teacher",
}
# What is followed in its own place only.
_MISPLACED = {
    **dict.fromkeys(("tools", "system", "messages", "conversations"), "it belongs beside the messages"),
    **dict.fromkeys(("images", "image", "videos", "video"), "it belongs beside the messages, with a tag in the text"),
    **dict.fromkeys(("image_url", "video_url"), "it belongs into a part of its own type"),
    **dict.fromkeys(("tool_calls", "reasoning_content", "loss"), "it belongs to a turn"),
}


def present(values: dict[str, Any]) -> dict[str, Any]:
    """Without the keys whose value is null: whatever passes through Arrow (parquet, pandas, datasets) gets such
    keys."""
    return {key: value for key, value in values.items() if value is not None}


def sort_out(values: dict[str, Any], allowed: set[str]) -> tuple[str, list[str]]:
    """(the first key that is refused, or empty; the keys that are ignored). An empty value asks for nothing."""
    ignored = []
    for key, value in values.items():
        if key in allowed:
            continue
        if not _is_empty(value) and why_refused(key.strip().lower(), allowed):
            return key, []
        ignored.append(key)
    return "", ignored


def _is_empty(value: Any) -> bool:
    """Null, and whatever holds nothing else: {"ref": [], "bbox": []}, as Arrow fills a column."""
    if isinstance(value, dict):
        value = list(value.values())
    return all(map(_is_empty, value)) if isinstance(value, list) else value is None or value == ""


def why_refused(name: str, allowed: set[str]) -> str:
    """What the message says of a refused key; empty for one that may be ignored."""
    if name in allowed:
        return f"keys are case-sensitive; write it as `{name}`"
    beginning = next((why for begin, why in _BEGINNINGS.items() if name.startswith(begin)), "")
    return _REFUSED.get(name) or _MISPLACED.get(name) or beginning
