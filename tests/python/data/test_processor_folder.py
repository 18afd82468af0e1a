"""Checkpoint folders whose tokenizer or processor is missing, cut off, or another model's, are refused with file, value
and remedy."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dhp import train
from dhp.data.errors import DataError
from dhp.data.folder import check_folder
from dhp.data.indexing import index_command
from dhp.data.text import Encoder
from tiny_run import make_tiny

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def put_pipe(file: Path) -> None:
    """Whoever opens it waits for ever."""
    file.unlink()
    os.mkfifo(file)


Edit = Callable[[Path], object]
BAD: list[tuple[Edit, str]] = [
    (lambda f: put_pipe(f / "tokenizer.json"), r"tokenizer\.json: is no regular file"),
    (lambda f: put_pipe(f / "preprocessor_config.json"), r"preprocessor_config\.json: is no regular file"),
    (lambda f: ((f / "tokenizer.json").unlink(), (f / "tokenizer.json").mkdir()), r"tokenizer\.json: is no regular"),
    (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json .* would become nothing; download"),
    (lambda f: (f / "tokenizer.json").write_text(POINTER), r"tokenizer\.json: is a pointer of Git LFS"),
    (lambda f: (f / "tokenizer_config.json").write_text(POINTER), r"tokenizer_config\.json: is a pointer of Git LFS"),
    (lambda f: (f / "preprocessor_config.json").write_text(POINTER), r"preprocessor_config\.json: is a pointer"),
    (lambda f: (f / "chat_template.jinja").write_text(POINTER), r"chat_template\.jinja: is a pointer of Git LFS"),
    (lambda f: cut(f / "tokenizer.json"), r"tokenizer\.json: cannot be read: it is cut off or no JSON"),
    (lambda f: cut(f / "tokenizer_config.json"), r"tokenizer_config\.json: cannot be read: it is cut off"),
    (
        lambda f: cut(f / "video_preprocessor_config.json"),
        r"video_preprocessor_config\.json: cannot be read: it is cut",
    ),
    (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json: holds no byte-pair vocabulary"),
    (
        lambda f: edit(f / "tokenizer.json", lambda t: t["model"]["vocab"].update(a="x")),
        "damaged .*download them again",
    ),
    (lambda f: edit(f / "tokenizer.json", lambda t: t.update(added_tokens=[{"content": "x"}])), "damaged"),
    (
        lambda f: edit(f / "config.json", lambda c: c["vision_config"].update(patch_size=14)),
        "patch_size of the processor is 16, but patch_size in config.json is 14; take all files from one checkpoint",
    ),
    (
        lambda f: edit(f / "config.json", lambda c: c["vision_config"].update(spatial_merge_size=4)),
        "merge_size of the processor is 2, but spatial_merge_size in config.json is 4",
    ),
    (
        lambda f: edit(f / "config.json", lambda c: c["vision_config"].update(temporal_patch_size=1)),
        "temporal_patch_size of the processor is 2, but temporal_patch_size in config.json is 1",
    ),
    (
        lambda f: edit(f / "config.json", lambda c: c["text_config"].update(vocab_size=512)),
        r"vocab_size: found 512, but the tokenizer's ids go up to \d+",
    ),
    (
        lambda f: edit(f / "preprocessor_config.json", lambda c: c.update(image_processor_type="SiglipImageProcessor")),
        'image_processor_type: found "SiglipImageProcessor", which is of another model',
    ),
    (
        lambda f: edit(
            f / "video_preprocessor_config.json", lambda c: c.update(video_processor_type="Qwen2VLVideoProcessor")
        ),
        'video_processor_type: found "Qwen2VLVideoProcessor", which is of another model',
    ),
    (
        lambda f: edit(f / "preprocessor_config.json", lambda c: c.update(rescale_factor=[1])),
        r"rescale_factor: found \[1\]; must be a number above 0",
    ),
    (
        lambda f: edit(f / "video_preprocessor_config.json", lambda c: c.update(image_std=[0, 1, 1])),
        r"image_std: found \[0.0, 1.0, 1.0\]; must be three numbers above 0",
    ),
    (
        lambda f: edit(f / "preprocessor_config.json", lambda c: c.update(image_mean=[True, 1, 1])),
        r"image_mean: found \[true, 1, 1\]; must be three numbers",
    ),
    (
        lambda f: edit(f / "config.json", lambda c: c.update(image_token_id=7)),
        r"image_token_id: found 7, but <\|image_pad\|> is \d+ in the tokenizer",
    ),
    (
        lambda f: edit(f / "config.json", lambda c: c.pop("video_token_id")),
        r"video_token_id: found 151656, but <\|video_pad\|> is \d+ in the tokenizer",
    ),
]


@pytest.mark.parametrize(("spoil", "said"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_a_spoilt_folder_is_refused(folder: Path, spoil: Edit, said: str) -> None:
    check_folder(folder)
    spoil(folder)
    with pytest.raises(DataError, match=said) as caught:
        check_folder(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=said):
        Encoder(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "preprocessor_config.json"])
def test_a_link_to_a_name_that_is_too_long_is_no_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).symlink_to("n" * 300)
    with pytest.raises(DataError, match=rf"no {name}"):
        check_folder(folder)


def test_a_tokenizer_that_makes_something_else_of_text_is_refused(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda c: c.update(model_max_length="many"))
    check_folder(folder)
    with pytest.raises(DataError, match=r"its tokenizer makes .TypeError: .* of 'A line of text: 12\.'; download"):
        Encoder(folder)


def test_vocabulary_and_merges_do_for_a_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in tokenizer["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n")
    (folder / "tokenizer.json").unlink()
    check_folder(folder)
    (folder / "merges.txt").unlink()
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        check_folder(folder)


def test_commands_refuse_it_at_their_start(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    (folder / "tokenizer.json").unlink()
    assert index_command.main([str(data), "--model", str(folder)]) == 2
    assert "dhp index: error: " in (said := capsys.readouterr().err)
    assert "no tokenizer.json" in said
    config = tmp_path / "train.toml"
    config.write_text(f'model = "{folder}"\ndata = "{data}"\noutput_dir = "{tmp_path / "out"}"\nranks = 2\n')
    assert train.main([str(config)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("dhp: error: ")
    assert "no tokenizer.json" in said
    assert not (tmp_path / "out").exists()
