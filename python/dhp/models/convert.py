"""`dhp convert`: OpenGVLab's InternVL checkpoints, which bring code of their own, as transformers' InternVL.

    dhp convert FOLDER OUT

Reads config.json, safetensors and the tokenizer's files of FOLDER (`model_type` internvl_chat: InternVL2.5, 3 and 3.5
with a language model of Qwen2 or Qwen3), runs none of its code, and writes a folder OUT that `dhp train` and
transformers load. A file of weights after the other is read and written, so that memory holds no more than one; OUT
appears when it is whole.

Exit codes: 0 done; 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dhp._core import InputError
from dhp.base.json_file import first_line, read_object
from dhp.base.output import complain, say
from dhp.data.folder import tokens_of
from dhp.data.made_folder import INTERNVL_NAMED, PROCESSING, chatml, internvl_processor
from dhp.models.internvl_chat import converted_config, new_weights
from dhp.models.model_folder import INDEX, WEIGHTS, check_model_folder, quiet, weight_files

CONTEXT = "<IMG_CONTEXT>"
TOKENIZER = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "generation_config.json",
)
# ChatML, as these models learned it, without the system prompt that names their makers.
CHAT_TEMPLATE = chatml(f"{CONTEXT}\\n", "<video>\\n")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # ImageNet's, of all InternViT


def convert(folder: str | Path, out: str | Path) -> int:
    """Writes `out`, which must not exist; returns the number of weights. Raises InputError."""
    source, target = Path(folder), Path(out)
    config = _config_of(source)
    if os.path.lexists(target):
        raise InputError(f"{target}: is there already; give the path of a folder that is not")
    settings = converted_config(config, str(source / "config.json"), tokens_of(source).get(CONTEXT))
    files = weight_files(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target}: cannot be made ({error.strerror})") from None
    try:
        weights = _write_weights(files, partial, tied=bool(settings.tie_word_embeddings))
        _write_rest(source, partial, config, settings)
        _check(partial, source)
        os.chmod(partial, 0o755)
        os.rename(partial, target)
    except (OSError, SafetensorError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise InputError(f"{target}: cannot be written ({why}); make room, or give another path") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return weights


def _config_of(source: Path) -> dict[str, Any]:
    file = source / "config.json"
    if not os.path.exists(file):
        raise InputError(f"{source}: no config.json; give a local checkpoint folder")
    config = read_object(file)
    if config.get("model_type") != "internvl_chat":
        raise InputError(
            f'{file}: model_type: found {json.dumps(config.get("model_type"))[:80]}, expected "internvl_chat"; others '
            "need no conversion, or have none"
        )
    return config


def _write_weights(files: list[Path], partial: Path, tied: bool) -> int:
    places: dict[str, str] = {}
    size = 0
    for file in files:
        held: dict[str, Any] = {}
        try:
            with safe_open(file, framework="pt") as content:
                for name in content.keys():  # noqa: SIM118 (no mapping)
                    held |= new_weights(name, content.get_tensor(name), str(file), tied)
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror or error})") from None
        except SafetensorError as error:
            raise InputError(f"{file}: is damaged or cut off ({first_line(error)}); download it again") from None
        if held:
            save_file(held, partial / file.name, metadata={"format": "pt"})
        places |= dict.fromkeys(held, file.name)
        size += sum(tensor.nbytes for tensor in held.values())
    if [file.name for file in files] != [WEIGHTS]:  # one of another name is found by the index alone
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (partial / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    return len(places)


def _write_rest(source: Path, partial: Path, config: dict[str, Any], settings: Any) -> None:
    with quiet():
        settings.save_pretrained(partial)
    for name in TOKENIZER:
        if os.path.exists(source / name):
            shutil.copyfile(source / name, partial / name)
    tokenizer = partial / "tokenizer_config.json"
    if tokenizer.exists():
        kept = {k: v for k, v in read_object(tokenizer).items() if k not in ("auto_map", "chat_template")}
        _write_json(tokenizer, kept | {"extra_special_tokens": INTERNVL_NAMED})
    (partial / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    processor = source / "preprocessor_config.json"
    given = read_object(processor) if os.path.exists(processor) else {}
    side = settings.vision_config.image_size[0]
    common = {
        "processor_class": "InternVLProcessor",
        "size": {"height": side, "width": side},
        "image_mean": given.get("image_mean", MEAN),
        "image_std": given.get("image_std", STD),
        **PROCESSING,
    }
    tiles = {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "crop_to_patches": True,
        "min_patches": config.get("min_dynamic_patch", 1),
        "max_patches": config.get("max_dynamic_patch", 12),
    }
    _write_json(partial / "preprocessor_config.json", tiles | common)
    clips = {"video_processor_type": "InternVLVideoProcessor", "do_sample_frames": True}
    _write_json(partial / "video_preprocessor_config.json", clips | common)
    _write_json(partial / "processor_config.json", internvl_processor(settings.image_seq_length))


def _check(partial: Path, source: Path) -> None:
    """All weights of the model are there, and fit."""
    try:
        check_model_folder(partial)
    except InputError as error:
        raise InputError(str(error).replace(str(partial), str(source))) from None


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dhp convert",
        description="Make a Hugging Face checkpoint of one of OpenGVLab's InternVL (model_type internvl_chat) with a "
        "language model of Qwen2 or Qwen3. None of its code is run. Exit code 0: done; 2: bad input.",
    )
    parser.add_argument("folder", metavar="FOLDER", help="OpenGVLab's checkpoint folder")
    parser.add_argument("out", metavar="OUT", help="folder to write, which must not exist")
    options = parser.parse_args(arguments)
    try:
        weights = convert(options.folder, options.out)
    except InputError as error:
        complain(f"dhp convert: error: {error}")
        return 2
    say(f"{options.out}: {weights:,} weights, as transformers' InternVL")
    return 0


if __name__ == "__main__":
    sys.exit(main())
