"""What docs/security.md promises of files of others: no code of a checkpoint runs, and nothing is unpickled."""

import ast
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dhp.data.errors import DataError
from dhp.data.text import Encoder
from dhp.demo.checkpoint import make_tiny_checkpoint

SOURCES = sorted((Path(__file__).parents[3] / "python/dhp").rglob("*.py"))
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
AMONG_PEERS = {"runtime.py"}  # pickles what ranks of a run send one another, who trust each other
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def calls() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Place, name and constant keywords of every call in the package."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                constants = {k.arg: k.value.value for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)}
                yield f"{path.name}:{node.lineno}", name, constants


def test_every_load_says_that_it_trusts_no_code() -> None:
    loads = [
        (place, name, given) for place, name, given in calls() if name.endswith(("from_pretrained", "from_config"))
    ]
    loads = [load for load in loads if load[1].startswith("Auto")]
    assert len(loads) >= 3
    for place, name, given in loads:
        assert given.get("trust_remote_code") is False, f"{place}: {name}"


def test_nothing_is_unpickled_from_a_file() -> None:
    for place, name, given in calls():
        assert name not in RUNS_CODE, f"{place}: {name}"
        assert given.get("shell") is not True, f"{place}: {name}"
        assert not name.endswith("torch.load"), f"{place}: {name}"
        if name in ("np.load", "numpy.load"):
            assert not given.get("allow_pickle"), f"{place}: {name}"
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found = UNPICKLES & {name.split(".")[0] for name in names}
            assert not found or path.name in AMONG_PEERS, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("known", [True, False])
def test_code_beside_a_tokenizer_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], known: bool
) -> None:
    """Not even where somebody would answer "y"; `known`: transformers has a tokenizer of its own for the model."""
    folder, sign = tmp_path / "model", tmp_path / "it-ran"
    make_tiny_checkpoint(folder)
    (folder / "evil.py").write_text(
        f"open({str(sign)!r}, 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast\nclass Evil(PreTrainedTokenizerFast): pass\n"
    )
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if not known:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(DataError):
        Encoder(folder)
    assert not sign.exists()
    assert "[y/N]" not in capsys.readouterr().out
