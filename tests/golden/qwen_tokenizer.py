"""Qwen's tokenizer from the vocabulary file that PyPI's dashscope brings (dashscope/resources/qwen.tiktoken)."""

from __future__ import annotations

import base64
import itertools
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

# As in transformers: models/qwen2/tokenization_qwen2.py.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_letters() -> dict[int, str]:
    """The visible letter that byte-level BPE writes for each byte: itself where it is visible, else from 256 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def _halves(piece: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """What merges of lower rank make of a piece of the vocabulary: the pair whose merge it is."""
    parts = [bytes([byte]) for byte in piece]
    limit = ranks[piece]
    while True:
        found = [(ranks.get(a + b, limit), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        rank, i = min(found, default=(limit, 0))
        if rank >= limit:
            return parts
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def load_tiktoken(path: str | Path) -> Tokenizer:
    lines = [line.split() for line in Path(path).read_bytes().splitlines() if line]
    ranks = {base64.b64decode(piece): int(rank) for piece, rank in lines}
    letters = _byte_letters()

    def text(piece: bytes) -> str:
        return "".join(letters[byte] for byte in piece)

    pairs = [_halves(piece, ranks) for piece, _ in sorted(ranks.items(), key=lambda item: item[1]) if len(piece) > 1]
    merges = [(text(pair[0]), text(pair[1])) for pair in pairs if len(pair) == 2]
    tokenizer = Tokenizer(models.BPE(vocab={text(piece): rank for piece, rank in ranks.items()}, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer
