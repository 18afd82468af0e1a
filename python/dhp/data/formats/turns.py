"""The turns of a sample, of either layout: roles, what is learned, calls of tools and their answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from dhp.data.errors import DataError, Location, Verbatim
from dhp.data.formats import fields
from dhp.data.formats.lines import parse_json

ROLES = ("system", "user", "assistant", "tool")
_SWIFT_ROLES = {**{role: role for role in ROLES}, "tool_call": "tool_call", "tool_response": "tool"}
_SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "function_call": "tool_call",
    "observation": "tool",
}
# Of a tool's description, null means something only here; elsewhere Arrow has put it.
_NULL_VALUES = {"default", "const"}
_NULL_ITEMS = {"enum", "examples"}


@dataclass(frozen=True)
class Message:
    """One turn. `parts` are texts and, in between, positions in the sample's list of media."""

    role: str
    parts: tuple[str | int, ...]
    loss: bool = True  # ms-swift's per-message switch; means something for assistant turns only
    tool_calls: tuple[dict[str, Any], ...] = ()  # as the chat template takes them
    reasoning: str = ""
    name: str = ""
    tool_call_id: str = ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"role": self.role, "content": list(self.parts)}
        if not self.loss:
            out["loss"] = False
        return out | self.extras()

    def extras(self) -> dict[str, Any]:
        """What the chat template gets beside role and content."""
        values = {
            "tool_calls": list(self.tool_calls),
            "reasoning_content": self.reasoning,
            "name": self.name,
            "tool_call_id": self.tool_call_id,
        }
        return {key: value for key, value in values.items() if value}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Message:
        return cls(
            value["role"],
            tuple(value["content"]),
            value.get("loss", True),
            tuple(value.get("tool_calls", ())),
            value.get("reasoning_content", ""),
            value.get("name", ""),
            value.get("tool_call_id", ""),
        )


@dataclass(frozen=True)
class Turn:
    """A turn whose content is not yet read."""

    field: str  # of the content, for messages
    role: str
    content: Any
    loss: bool
    tool_calls: tuple[dict[str, Any], ...] = ()
    reasoning: str = ""
    name: str = ""
    tool_call_id: str = ""


def read_turns(row: dict[str, Any], location: Location) -> tuple[list[Turn], list[str]]:
    """The turns, and the keys of turns that are ignored. Raises DataError."""
    key, role_key, text_key, roles = _layout(row, location)
    turns = row[key]
    if not isinstance(turns, list) or not turns:
        raise location.error(key, turns, "must be a list of at least one turn")
    out: list[Turn] = []
    switches: list[bool | None] = []
    ignored: list[str] = []
    for i, turn in enumerate(turns):
        field = f"{key}[{i}]"
        if not isinstance(turn, dict):
            raise location.error(field, turn, f"must be an object with `{role_key}` and `{text_key}`")
        turn = fields.present(turn)
        role = turn.get(role_key)
        if not isinstance(role, str) or role not in roles:
            raise location.error(f"{field}.{role_key}", role, f"must be one of {', '.join(roles)}")
        refused, unknown = fields.sort_out(turn, fields.TURN)
        if refused:
            why = fields.why_refused(refused.strip().lower(), fields.TURN)
            hint = f"not supported: {why}; remove the key if it means nothing here"
            raise location.error(f"{field}.{refused}", turn[refused], hint)
        ignored += [f"{key}.{name}" for name in unknown]
        switches.append(_switch(turn, field, location))
        out.append(_turn(turn, field, text_key, roles[role], location))
    out = _with_loss(out, switches, row.get("loss_scale"), location)
    return _with_system(_joined_calls(out, location), row, location), ignored


def _layout(row: dict[str, Any], location: Location) -> tuple[str, str, str, dict[str, str]]:
    if "messages" in row and "conversations" in row:
        raise location.error("conversations", row["conversations"], "`messages` are given too; give one of the two")
    if "messages" in row:
        return "messages", "role", "content", _SWIFT_ROLES
    if "conversations" in row:
        return "conversations", "from", "value", _SHAREGPT_ROLES
    found = ", ".join(sorted(row))
    raise location.error(
        "",
        Verbatim("neither `messages` nor `conversations`"),
        f"found the fields {found[:200] + ' ...' if len(found) > 200 else found or '-'}",
    )


def _turn(turn: dict[str, Any], at: str, text_key: str, role: str, location: Location) -> Turn:
    field, content = f"{at}.{text_key}", turn.get(text_key)
    calls = tuple(_call(c, f"{at}.tool_calls[{i}]", location) for i, c in enumerate(_calls_of(turn, at, location)))
    texts = {}
    for key in ("reasoning_content", "name", "tool_call_id"):
        texts[key] = turn.get(key, "")
        if not isinstance(texts[key], str):
            raise location.error(f"{at}.{key}", texts[key], "must be text")
    for key, found in (("tool_calls", calls), ("reasoning_content", texts["reasoning_content"])):
        if found and role != "assistant":
            raise location.error(f"{at}.{key}", turn[key], "only an assistant's turn may have it")
    if role == "tool_call":
        return Turn(field, role, "", True, (_call(content, field, location),))
    if role == "tool" and isinstance(content, dict):
        content = json.dumps(content, ensure_ascii=False)  # as ms-swift writes it
    if content is None and (calls or texts["reasoning_content"]):
        content = ""
    return Turn(field, role, content, True, calls, *texts.values())


def _calls_of(turn: dict[str, Any], at: str, location: Location) -> list[Any]:
    calls = turn.get("tool_calls", [])
    if not isinstance(calls, list):
        raise location.error(f"{at}.tool_calls", calls, "must be a list of calls")
    return [call for call in calls if call is not None]


def _call(call: Any, field: str, location: Location) -> dict[str, Any]:
    """{"type": "function", "function": {"name", "arguments"}}; ms-swift's roles have the inner object, or its JSON."""
    if isinstance(call, str):
        try:
            call = parse_json(call)
        except DataError as error:
            raise location.error(field, Verbatim(str(error)), "must be a call as JSON: name and arguments") from None
    inner = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        raise location.error(field, call, "must be a call of a function, with its name and arguments")
    arguments = inner.get("arguments")
    if arguments is not None and not isinstance(arguments, (dict, str)):
        raise location.error(f"{field}.arguments", arguments, "must be an object, or its JSON as text")
    function = {"name": inner["name"], "arguments": {} if arguments is None else arguments}
    identity = call.get("id")
    return {**({"id": identity} if isinstance(identity, str) else {}), "type": "function", "function": function}


def _switch(turn: dict[str, Any], field: str, location: Location) -> bool | None:
    """Whether a turn is learned from, where it says so itself. Weights between 0 and 1 are refused."""
    says: bool | None = None
    for key, hint in (
        ("loss", "must be true or false"),
        ("loss_scale", "must be 0 or 1: turns are learned whole or not at all"),
        ("weight", "must be 0 or 1: turns are learned whole or not at all"),
    ):
        value = turn.get(key)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise location.error(f"{field}.{key}", value, hint)
        if key == "loss":
            says = bool(value)
        elif not value:
            says = False
    return says


def _with_loss(turns: list[Turn], switches: list[bool | None], scale: Any, location: Location) -> list[Turn]:
    """`loss_scale` of a row is ms-swift's option of that name: which turns are learned that do not say so
    themselves."""
    if scale not in (None, "default", "last_round"):
        raise location.error(
            "loss_scale", scale, "must be default or last_round; switch single turns with their own loss or loss_scale"
        )
    asked = [i for i, turn in enumerate(turns) if turn.role in ("user", "tool")]
    first = asked[-1] if scale == "last_round" and asked else 0
    return [
        replace(turn, loss=(i >= first or turn.role in ("system", "user", "tool")) if says is None else says)
        for i, (turn, says) in enumerate(zip(turns, switches, strict=True))
    ]


def _joined_calls(turns: list[Turn], location: Location) -> list[Turn]:
    """ms-swift's turns of role tool_call become calls of the assistant's turn before them, or a turn of their own."""
    out: list[Turn] = []
    for i, turn in enumerate(turns):
        if turn.role != "tool_call":
            out.append(turn)
        elif i and turns[i - 1].role in ("assistant", "tool_call"):
            if turn.loss != out[-1].loss:
                raise location.error(
                    turn.field,
                    Verbatim("is learned otherwise than the turn before it"),
                    "both are one turn of the model",
                )
            out[-1] = replace(out[-1], tool_calls=(*out[-1].tool_calls, *turn.tool_calls))
        else:
            out.append(replace(turn, role="assistant"))
    return out


def _with_system(turns: list[Turn], row: dict[str, Any], location: Location) -> list[Turn]:
    given = {key: row[key] for key in ("system", "system_prompt") if row.get(key)}
    for key, text in given.items():
        if not isinstance(text, str):
            raise location.error(key, text, "must be text")
        if len(given) > 1 or (turns[0].role == "system" and turns[0].content != text):
            raise location.error(key, text, "there is another system prompt; give one")
    if not given or turns[0].role == "system":
        return turns
    return [*(Turn(key, "system", text, True) for key, text in given.items()), *turns]


def read_tools(row: dict[str, Any], location: Location) -> tuple[dict[str, Any], ...]:
    """Descriptions of tools, as the chat template takes them: a list of objects, or its JSON as text."""
    tools = row.get("tools") or []
    if isinstance(tools, str):
        try:
            tools = parse_json(tools)
        except DataError as error:
            raise location.error(
                "tools", Verbatim(str(error)), "must be a list of tools, or its JSON as text"
            ) from None
    out = []
    for i, tool in enumerate([tools] if isinstance(tools, dict) else tools if isinstance(tools, list) else [tools]):
        if isinstance(tool, str):
            tool = _described(tool, f"tools[{i}]", location)
        if not isinstance(tool, dict):
            raise location.error(f"tools[{i}]", tool, "must be an object that describes a tool")
        tool = _without_padding(tool)
        out.append(tool if "function" in tool or "type" in tool else {"type": "function", "function": tool})
    return tuple(out)


def _described(tool: str, field: str, location: Location) -> Any:
    try:
        return parse_json(tool)
    except DataError as error:
        raise location.error(field, Verbatim(str(error)), "must be an object that describes a tool") from None


def _without_padding(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_padding(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inner if key in _NULL_VALUES or key in _NULL_ITEMS else _without_padding(inner)
        for key, inner in value.items()
        if inner is not None or key in _NULL_VALUES
    }
