"""The command line: `dhp cost` and the names of presets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from command_line import CASES, ROOT, dhp, inputs
from dhp import _core as core

PASSES = ("forward", "backward", "recompute")


def test_cost(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "k.json"
    words = ("cost", "--model", "qwen3-vl-2b", "--device", "ascend-910b")
    text = dhp(*words, "--ranks", "6", "-o", out)
    assert text.code == 0, text.err
    assert "2,127,532,032 parameters" in text.out
    assert [line.split()[0] for line in text.out.splitlines()[3:8]] == [
        *["vision"] * 2,
        "projector",
        "embedding",
        "layers",
    ]
    cost = json.loads(out.read_text())
    assert cost["format"] == "dhp.cost/1"
    report = dhp(*words, "--ranks", "6", "--output-format", "json").json()
    assert report["cost"] == cost
    assert report["parameters"] == sum(row["parameters"] for row in report["modules"]) == 2127532032
    for per in ("patch", "patch pair"):
        rows = [row[name]["seconds"] for row in report["modules"] if row["per"] == per for name in PASSES]
        assert sum(rows) == pytest.approx(cost[per.replace(" ", "_") + "_s"], rel=1e-12)
    for per, field in (("token", "token_s"), ("pair", "pair_s"), ("sequence", "sequence_step_s"), ("step", "step_s")):
        rows = [row for row in report["modules"] if row["per"] == per]
        assert sum(row["forward"]["seconds"] for row in rows) == pytest.approx(cost["forward"][field], rel=1e-12)
        backward = sum(row[name]["seconds"] for row in rows for name in ("backward", "recompute"))
        assert backward == pytest.approx(cost["backward"][field], rel=1e-12)
    files["cost"] = out
    assert dhp("plan", *inputs(files)).code == 0


def test_cost_options(tmp_path: Path) -> None:
    def cost(*words: str | Path) -> Any:
        result = dhp("cost", "--model", "internvl3-2b", "--device", "h100", *words, "--output-format", "json")
        assert result.code == 0, result.err
        return result.json()["cost"]

    one = cost()
    assert cost("--ranks", "8")["state_bytes"] < one["state_bytes"]
    assert cost("--ranks", "8", "--zero", "0")["state_bytes"] == one["state_bytes"]
    assert cost("--freeze", "vit")["patch_s"] < one["patch_s"]
    assert cost("--freeze", "vit,aligner")["state_bytes"] < cost("--freeze", "vit")["state_bytes"]
    assert cost("--freeze", "llm")["backward"]["token_s"] < one["backward"]["token_s"]
    none = cost("--recompute", "none")
    assert none["backward"]["token_s"] < one["backward"]["token_s"]
    assert none["token_bytes"] > one["token_bytes"]
    # A file says what a preset says.
    config, device = tmp_path / "config.json", tmp_path / "device.json"
    shutil.copy(ROOT / "data" / "models" / "internvl3-2b.json", config)
    shutil.copy(ROOT / "data" / "devices" / "h100.json", device)
    for model in (config, tmp_path):
        again = dhp("cost", "--model", model, "--device", device, "--output-format", "json").json()["cost"]
        assert again | {"name": ""} == one | {"name": ""}


def test_cost_refuses(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "mamba"}))
    result = dhp("cost", "--model", config)
    assert result.code == 2
    assert result.err.startswith(f"dhp: error: {config}: model_type: found ")
    assert dhp("cost", "--model", tmp_path / "none.json").code == 2
    assert "presets: internvl2.5-4b, " in dhp("cost", "--model", "qwen4").err
    model = ("cost", "--model", "qwen3-vl-2b")
    for words, message in (
        (["--ranks", "0"], "--ranks"),
        (["--zero", "4"], "--zero"),
        (["--freeze", "vit,head"], '--freeze: found "head", expected vit, aligner and llm'),
        (["--freeze", "vit,aligner,llm"], "--freeze: vit, aligner and llm together leave nothing to train"),
        (["--recompute", "some"], '--recompute: found "some", expected full, keep_attention or none'),
        (["--device", "abacus"], "abacus: is neither a file nor a preset; presets: a100, ascend-910b"),
    ):
        result = dhp(*model, *words)
        assert (result.code, result.out) == (2, "")
        assert result.err.startswith(f"dhp: error: {message}")


def test_cluster_presets(files: dict[str, Path]) -> None:
    words = ["--batch", files["batch"], "--cost", files["cost"], "--output-format", "json"]
    preset = dhp("plan", *words, "--cluster", "ascend-910b-8x8")
    assert preset.code == 0, preset.err
    file = dhp("plan", *words, "--cluster", CASES / "cluster_910b_8x8.json")
    assert preset.json()["hash"] == file.json()["hash"]
    assert dhp("plan", *words, "--cluster", "h100-2x4").json()["ranks"] == 8
    local = dhp("plan", "--batch", files["batch"], "--cost", files["cost"], "--cluster", "local-cpu-1x4")
    assert local.code == 1, "a plan, or why there is none"
    assert "a rank has 4.0 GiB" in local.out
    unknown = dhp("plan", *words, "--cluster", "h100")
    assert unknown.code == 2
    assert unknown.err.startswith("dhp: error: h100: is neither a file nor a preset; presets: a100-8x8, ")


# --- MODEL@DEVICE


def test_a_cost_by_name_is_what_dhp_cost_counts_for_the_ranks_in_service(
    files: dict[str, Path], tmp_path: Path
) -> None:
    cluster = json.loads(files["cluster"].read_text()) | {"memory_bytes": 8e10, "rank_speed": [1, 1, 0, 1, 1, 1]}
    files["cluster"].write_text(json.dumps(cluster))
    counted = tmp_path / "counted.json"
    assert dhp("cost", "--model", "qwen3-vl-2b", "--device", "h100", "--ranks", "5", "-o", counted).code == 0
    expected = dhp("plan", *inputs(files | {"cost": counted}), "--output-format", "json")
    for name in ("qwen3-vl-2b@h100", "Qwen/Qwen3-VL-2B-Instruct@H100"):
        named = dhp("plan", *inputs(files | {"cost": Path(name)}), "--output-format", "json")
        assert (named.code, named.out) == (0, expected.out)
    core_cost = core.read_cost_model("qwen3-vl-2b@h100", core.read_cluster(str(files["cluster"])))
    assert core_cost == core.read_cost_model(str(counted))
    sweep = dhp("simulate", "--sweep", *inputs(files), "--cost", "qwen2.5-vl-7b@h100", "--output-format", "json").json()
    assert {run["cost"] for run in sweep["runs"]} == {files["cost"].stem, "qwen2.5-vl-7b@h100"}


def test_a_cost_by_name_takes_a_cluster_that_can_be() -> None:
    link = core.Link(1e9, 1e-5)
    for nodes, speeds in ((10**6, []), (2, [1.0])):
        cluster = core.Cluster(nodes, 10**6 if not speeds else 2, 1e9, link, link, rank_speed=speeds)
        with pytest.raises(core.InputError, match=r"^cluster: "):
            core.read_cost_model("qwen3-vl-2b@h100", cluster)


def test_a_file_whose_name_has_an_at_sign_is_a_file(files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("qwen3-vl-2b@h100", "my@cost.json"):
        file = tmp_path / name
        file.write_text(files["cost"].read_text())
        as_file = dhp("plan", *inputs(files | {"cost": file}))
        assert (as_file.code, as_file.out) == (0, dhp("plan", *inputs(files)).out)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen3-vl-2b@h900", "h900: is neither a file nor a preset; presets: a100, ascend-910b, b200, h100"),
        ("qwen9@h100", "qwen9: is neither a file nor a preset; presets: internvl2.5-4b"),
        ("qwen3-vl-2b@", ": is neither a file nor a preset; presets: a100"),
        ("a/b@c.json", "a/b: cannot be opened (No such file or directory); check the path"),
    ],
)
def test_unknown_models_and_devices_by_name(files: dict[str, Path], name: str, said: str) -> None:
    result = dhp("plan", *inputs(files | {"cost": Path(name)}))
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"dhp: error: {name}: is no file, and read as MODEL@DEVICE: {said}")
    assert result.err.count("\n") == 1
