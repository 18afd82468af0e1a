"""LLaMA-Factory's preprocessing of pictures, for bench/index_media.py: CPU seconds, on standard output.

    PYTHON llama_factory.py MODEL < names of pictures, a line each

PYTHON is that of an environment with llamafactory, which is installed without its dependencies where these are to leave
torch alone. Its SupervisedDatasetProcessor is called as its loader does; the processor that it is given has
Hugging Face's picture processor of the release without torchvision. What it imports for sound is not there.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import time
import types
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", DISABLE_VERSION_CHECK="1", TOKENIZERS_PARALLELISM="false")

ANSWER = "A lawn, seen from a house; hills and the sky lie behind it. " * 3


def main(model: Path) -> None:
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    try:
        import torchaudio  # noqa: F401
    except ImportError:
        missing = types.ModuleType("torchaudio")
        missing.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = missing
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor
    from llamafactory.data.template import TEMPLATES

    tokenizer = AutoTokenizer.from_pretrained(model)
    values = json.loads((model / "preprocessor_config.json").read_text())
    pictures = Qwen2VLImageProcessorPil(**{k: v for k, v in values.items() if not k.endswith(("_type", "_class"))})
    processor = types.SimpleNamespace(
        tokenizer=tokenizer,
        image_processor=pictures,
        video_processor=pictures,
        image_max_pixels=1 << 50,  # its own limit before the processor's: none
        image_min_pixels=1,
        image_do_pan_and_scan=False,
        crop_to_patches=False,
    )
    arguments = types.SimpleNamespace(mask_history=False, cutoff_len=1 << 30, train_on_prompt=False)
    work = SupervisedDatasetProcessor(TEMPLATES["qwen3_vl_nothink"], tokenizer, processor, arguments)
    question = [{"role": "user", "content": "<image>Describe what is shown."}]
    names = sys.stdin.read().split("\n")
    began = time.process_time()
    for name in names:
        done = work.preprocess_dataset(
            {
                "_prompt": [question],
                "_response": [[{"role": "assistant", "content": ANSWER}]],
                "_system": [None],
                "_tools": [None],
                "_images": [[name]],
                "_videos": [None],
                "_audios": [None],
            }
        )
        assert len(done["input_ids"]) == 1
    print(time.process_time() - began)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
