"""From messages to token ids, labels and media types.

The chat template of the checkpoint is rendered with one placeholder per medium; then each placeholder grows as in
Hugging Face's processor of the family (placeholders.py). It alone is replaced: the template's markers around it stay.

Loss is on assistant turns only: their text and the <|im_end|> that closes it. Tools, calls of tools and reasoning go to
the chat template, as transformers' apply_chat_template(messages, tools=…) takes them; a template that makes nothing of
them is an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dhp.base.json_file import first_line
from dhp.data import placeholders
from dhp.data.access.files import resolved_roots
from dhp.data.access.media_cache import MediaCache
from dhp.data.errors import DataError
from dhp.data.folder import check_folder
from dhp.data.formats.samples import Message
from dhp.data.placeholders import MediumShape
from dhp.data.processor import Processor, load_processor

IGNORED = -100  # label of a token without loss, as everywhere in PyTorch
TEXT, IMAGE, VIDEO, AUDIO = 0, 1, 2, 3  # media types; Hugging Face calls them mm_token_type_ids
KINDS = {"image": IMAGE, "video": VIDEO, "audio": AUDIO}
_TURN = re.compile(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", re.DOTALL)


class Conversation(Protocol):
    @property
    def messages(self) -> tuple[Message, ...]: ...
    @property
    def media(self) -> Sequence[MediumShape]: ...
    @property
    def tools(self) -> tuple[dict[str, Any], ...]: ...


@dataclass(frozen=True)
class Encoded:
    """A sample as the model sees it. Labels are not shifted."""

    input_ids: npt.NDArray[np.int64]  # [T]
    labels: npt.NDArray[np.int64]  # [T], IGNORED outside assistant turns
    media_type: npt.NDArray[np.int8]  # [T]: TEXT, IMAGE or VIDEO

    @property
    def label_tokens(self) -> int:
        return int((self.labels != IGNORED).sum())


class Encoder:
    """Tokenizer, chat template and processor rules of one checkpoint folder. Not to be shared between threads."""

    def __init__(
        self,
        model_folder: str | os.PathLike[str],
        media_roots: Iterable[str] = (),
        media_cache: MediaCache | None = None,
    ) -> None:
        from transformers import AutoTokenizer  # 2 s to import: not before it is needed

        self.processor: Processor = replace(
            load_processor(model_folder), media_roots=resolved_roots(media_roots), media_cache=media_cache
        )
        if media_cache:
            media_cache.check()
        check_folder(model_folder)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                str(model_folder), trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # the tokenizers library raises Exception itself
            raise DataError(
                f"{model_folder}: its tokenizer cannot be loaded ({type(error).__name__}: {first_line(error)}); "
                "download its files again"
            ) from error
        self._check_tokenizer()
        if not self.tokenizer.chat_template:
            raise DataError(f"{model_folder}: the tokenizer has no chat template; add chat_template.jinja")
        self._placeholders = placeholders.of(self.processor.rules, self.processor.family)
        pads = self._placeholders.pad.values() if self._placeholders else ()
        self._pad_ids = [self._id(pad) for pad in dict.fromkeys(pads)]
        self._special = tuple(str(t) for t in self.tokenizer.added_tokens_decoder.values() if t.special)

    def encode(self, sample: Conversation) -> Encoded:
        """Raises DataError for text that holds a control token of the tokenizer, or a template that is not ChatML."""
        text, runs = self._expand(self._render(sample), sample.media)
        tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        short = np.asarray(tokens["input_ids"], dtype=np.int64)
        pads = np.flatnonzero(np.isin(short, self._pad_ids))
        if len(pads) != len(runs):
            raise DataError(f"the chat template placed {len(pads)} pads for {len(runs)} pictures and frames of clips")
        repeats, kinds = np.ones(len(short), dtype=np.int64), np.zeros(len(short), dtype=np.int8)
        repeats[pads] = [rows for rows, _ in runs]
        kinds[pads] = [kind for _, kind in runs]
        learned = self._learned(text, tokens["offset_mapping"], sample)
        labels = np.where(learned, short, IGNORED)
        return Encoded(np.repeat(short, repeats), np.repeat(labels, repeats), np.repeat(kinds, repeats))

    def _check_tokenizer(self) -> None:
        """Whatever transformers has made of the folder's files, text must survive it."""
        text = "A line of text: 12."
        try:
            back = self.tokenizer.decode(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        except Exception as error:  # a setting of the wrong type, for instance
            back = f"{type(error).__name__}: {first_line(error)}"
        if back != text:
            raise DataError(
                f"{self.processor.folder}: its tokenizer makes {back[:80]!r} of {text!r}; download its files again"
            )

    def _render(self, sample: Conversation) -> str:
        turns = [self._turn(message, sample.media) for message in sample.messages]
        self._check_text("description of the tools", json.dumps(sample.tools, ensure_ascii=False))
        text = self._template(turns, sample.tools)
        for key, what in (("tool_calls", "calls of tools"), ("reasoning_content", "reasoning")):
            if any(key in turn for turn in turns):
                without = [{k: v for k, v in turn.items() if k != key} for turn in turns]
                self._check_rendered(key, what, text, without, sample.tools)
        if sample.tools:
            self._check_rendered("tools", "tools", text, turns, ())
        return text

    def _turn(self, message: Message, media: Sequence[MediumShape]) -> dict[str, Any]:
        for part in message.parts:
            if isinstance(part, str):
                self._check_text(f"{message.role}'s text", part)
        extras = message.extras()
        if extras:
            self._check_text(f"{message.role}'s turn", json.dumps(extras, ensure_ascii=False))
        content: Any = "".join(str(part) for part in message.parts)
        if not all(isinstance(part, str) for part in message.parts):
            content = [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": media[part].kind}
                for part in message.parts
            ]
        return {"role": message.role, "content": content, **extras}

    def _check_text(self, what: str, text: str) -> None:
        for token in self._special:
            if token in text:
                raise DataError(f"the {what} holds the control token {token}; remove or escape it")

    def _check_rendered(
        self, key: str, what: str, text: str, turns: list[dict[str, Any]], tools: Sequence[dict[str, Any]]
    ) -> None:
        """`text` must not be what the template makes without them: nothing is dropped silently."""
        try:
            lost = self._template(turns, tools) == text
        except DataError:  # it refuses turns that say nothing then
            return
        if lost:
            raise DataError(
                f"{key}: the checkpoint's chat template makes nothing of {what}; remove them, write them into the "
                "content, or take a template that renders them"
            )

    def _template(self, turns: list[dict[str, Any]], tools: Sequence[dict[str, Any]], prompt: bool = False) -> str:
        """`prompt`: with what comes before the assistant's next turn."""
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    turns, tools=list(tools) or None, tokenize=False, add_generation_prompt=prompt
                )
            )
        except Exception as error:  # jinja raises its own errors and whatever a template's raise_exception() says
            raise DataError(f"the chat template refuses the conversation: {error}") from error

    def _expand(self, text: str, media: Sequence[MediumShape]) -> tuple[str, list[tuple[int, int]]]:
        """Writes timestamps and markers; pads stay single, their counts and kinds are returned in order of
        appearance."""
        family = self._placeholders
        if family is None:
            if media:
                raise DataError(f"a model of kind {self.processor.family} takes text alone; remove the {media[0].kind}")
            return text, []
        runs: list[tuple[int, int]] = []
        kinds = family.marks
        coming = {kind: iter([m for m in media if m.kind == kind]) for kind in kinds.values()}

        def grow(match: re.Match[str]) -> str:
            kind = kinds[match.group()]
            medium = next(coming[kind], None)
            if medium is None:
                raise DataError(f"the chat template placed more {match.group()} than the sample has media")
            grown, counts = family.grow(medium)
            runs.extend((rows, KINDS[kind]) for rows in counts)
            return grown

        return re.sub("|".join(map(re.escape, kinds)), grow, text), runs

    def _learned(self, text: str, offsets: list[tuple[int, int]], sample: Conversation) -> npt.NDArray[np.bool_]:
        """bool per token: belongs to an assistant turn that is learned from."""
        turns = [message for message in sample.messages if message.role == "assistant"]
        spans = [match.span(1) for match in _TURN.finditer(text)] or self._added_spans(text, sample)
        if len(spans) != len(turns):
            raise DataError(
                f"the chat template rendered {len(turns)} assistant turns as {len(spans)} blocks that begin with "
                "<|im_start|>assistant"
            )
        bounds = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
        learned = np.zeros(len(bounds), dtype=bool)
        for (start, stop), turn in zip(spans, turns, strict=True):
            if turn.loss:
                learned |= (bounds[:, 1] > start) & (bounds[:, 0] < stop)
        return learned

    def _added_spans(self, text: str, sample: Conversation) -> list[tuple[int, int]]:
        """Of templates that are not ChatML: an assistant's turn is what it adds to the conversation before it and the
        prompt for it. White space behind it is not learned. Raises DataError for a template that writes earlier turns
        in another way when later ones follow: which text is the turn's would be a guess."""
        turns = [self._turn(message, sample.media) for message in sample.messages]
        spans = []
        for i, message in enumerate(sample.messages):
            if message.role != "assistant":
                continue
            before, behind = (
                self._expand(self._template(part, sample.tools, prompt), sample.media)[0]
                for part, prompt in ((turns[:i], True), (turns[: i + 1], False))
            )
            if not (text.startswith(behind) and behind.startswith(before)):
                raise DataError(
                    "the chat template writes turns in another way when others follow, so what the assistant said "
                    "cannot be told apart; take a template that only adds"
                )
            added, words = behind[len(before) :].strip(), "".join(str(part) for part in message.parts).strip()
            if not (added.startswith(words) or message.extras()):
                raise DataError(
                    f"the chat template begins the assistant's turn with {added[:40]!r}, which its generation prompt "
                    "lacks, so that would be learned too; take a template that knows add_generation_prompt"
                )
            spans.append((len(before), len(behind.rstrip())))
        return spans

    def _id(self, token: str) -> int:
        found = self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise DataError(f"{self.processor.folder}: the tokenizer has no {token}")
        return int(found)
