"""Writes msrvtt_caption_tokens.csv: how many of MSR-VTT's test captions have how many tokens of Qwen's tokenizer.

python tests/golden/make_msrvtt_captions.py msrvtt_caption_test.json qwen.tiktoken \\
    data/datasets/msrvtt_caption_tokens.csv

The captions (59,800 of 2,990 clips): snap-research/Panda-70M,
captioning/test_datasets/anno_downstream/msrvtt_caption_test.json. The vocabulary: dashscope 2.0.2 (PyPI, Apache-2.0),
dashscope/resources/qwen.tiktoken; Qwen2 to Qwen3 and InternVL2.5 and 3 use it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from qwen_tokenizer import load_tiktoken


def main() -> None:
    captions_file, vocabulary, out = sys.argv[1:4]
    captions: list[str] = []
    for clip in json.loads(Path(captions_file).read_text()):
        captions += clip["caption"]
    tokenizer = load_tiktoken(vocabulary)
    counts = Counter(len(encoding.ids) for encoding in tokenizer.encode_batch(captions))
    rows = [f"{tokens},{number}" for tokens, number in sorted(counts.items())]
    Path(out).write_text("tokens,captions\n" + "\n".join(rows) + "\n")
    words = [len(caption.split()) for caption in captions]
    print(f"{len(captions)} captions, {sum(words) / len(words):.3f} words", end=", ")
    print(f"{sum(t * n for t, n in counts.items()) / len(captions):.3f} tokens on average")


if __name__ == "__main__":
    main()
