"""Writes qwen_text_tokens.json: tokens of the texts around media, by Qwen's own vocabulary.

python tests/golden/make_qwen_text_tokens.py qwen.tiktoken tests/golden/qwen_text_tokens.json

The vocabulary: dashscope 2.0.2 (PyPI, Apache-2.0), dashscope/resources/qwen.tiktoken. Special tokens (<|im_start|>,
<|vision_start|>, <img>) cut the text before it is split, so what stands between them is counted alone.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from qwen_tokenizer import load_tiktoken

ABOUT = (
    "timestamps: seconds, tokens of '<%.1f seconds>'; labels: frame number, tokens of 'Frame-%d: ' with the line's end "
    "(internvl-chat), tokens of 'Frame%d: ' with the line's end before it from the second on (transformers); "
    "prompt: texts between special tokens, tokens"
)
TIMES = [0.0, 0.05, 0.25, 0.75, 1.0, 1.5, 9.75, 9.949, 9.95, 9.951, 10.0, 99.94, 99.95, 99.96, 100.0, 123.45]
TIMES += [999.949999, 999.95, 1234.5, 59999.99, 0.15, 0.35, 2.25, 2.35]
PROMPT = ["user\n", "Describe this video.", "\n", "assistant\n", "\n"]


def main() -> None:
    tokenizer = load_tiktoken(sys.argv[1])

    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    rng = random.Random(20240611)
    times = TIMES + [rng.uniform(0, 10 ** rng.uniform(0, 4)) for _ in range(150)]
    sections: dict[str, list[Any]] = {
        "timestamps": [[t, count(f"<{t:.1f} seconds>")] for t in times],
        "labels": [
            [i, count(f"Frame-{i}: ") + count("\n"), count("\n" if i > 1 else "") + count(f"Frame{i}: ")]
            for i in [*range(1, 13), 31, 32, 99, 100, 101, 768, 1000]
        ],
        "prompt": [[text, count(text)] for text in PROMPT],
    }
    with open(sys.argv[2], "w") as file:
        file.write(f'{{"about": {json.dumps(ABOUT)}')
        for name, rows in sections.items():
            file.write(f',\n"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]")
        file.write("}\n")


if __name__ == "__main__":
    main()
