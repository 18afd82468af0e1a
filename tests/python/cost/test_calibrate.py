"""What `dhp calibrate` measures, and how it says what it found."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dhp._core import ErrorSizes, InputError, parse_cost_model, read_cluster, read_cost_model, to_json
from dhp.cost import calibrate
from dhp.cost.calibrate_fit import MODULE_TERMS, PARTS, Calibration, Measured, Measurements, fit, summarize
from dhp.cost.calibrate_options import check_options, parser
from dhp.cost.calibrate_tasks import (
    MODULES,
    PASSES,
    Design,
    Range,
    UnitRule,
    make_designs,
    rule_of,
)
from dhp.cost.fit import NoFit, TermSeconds, estimate_s
from dhp.cost.local import local_cluster, local_cost
from dhp.loop.inputs import planning_inputs
from dhp.models import family_class
from dhp.models.families import Family
from dhp.run.runtime import Run
from dhp.settings.config import TrainConfig
from family_models import MODELS, OMNI, make
from programs import run_program

RANGE = Range(32, 800, (1, 2, 4), (3, 6), label_share=0.25)


def made_up(adapter: Any, designs: list[Design], *_: Any, **__: Any) -> list[Measured]:
    """What `measure` would return if every term of a module took 1 ms, or 1 us a token, patch or pair of them."""
    units = {"task_s": 1e-3, "step_s": 1e-3, "sequence_step_s": 1e-3}

    def seconds(module: str, design: Design) -> float:
        terms = TermSeconds()
        for term in MODULE_TERMS[module]:
            setattr(terms, term, units.get(term, 1e-6))
        return estimate_s(terms, design.sequences, design.degree)

    return [Measured(d, {(module, pass_): seconds(module, d) for module, pass_ in PARTS}) for d in designs]


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """`calibrate` fits to made-up seconds."""
    monkeypatch.setattr(calibrate, "measure", lambda *a, **k: Measurements(made_up(*a, **k), [], None))


def options_of(model: Path, *arguments: str) -> argparse.Namespace:
    return parser().parse_args(["--model", str(model), "--torch-device", "cpu", *arguments])


def calibrated(run: Run, model: Path, *arguments: str) -> Any:
    return calibrate.calibrate(options_of(model, *arguments), run, lambda done, of: None)


def test_nothing_to_fit_to_is_no_fit(mixed_data: Path) -> None:
    base = local_cost(mixed_data / "model", 1)
    left_out = made_up(None, make_designs(RANGE, {"left out": 6}))
    for measured in ([], left_out):
        answer = fit(measured, base, "x")
        assert isinstance(answer, NoFit)
        assert answer.reason.startswith("0 tasks to fit to, and no module took any time on them")


def measured_by(ranks: int, speeds: list[float], jitter: float, seed: int) -> tuple[list[Measured], Measurements]:
    """Tasks of made-up seconds, and what runs of them on ranks of these speeds, 7 times each, are summarized as."""
    tasks = made_up(None, make_designs(RANGE, {"fit": 40}))
    random = np.random.default_rng(seed)
    table = np.full((ranks, len(tasks), 7, len(PARTS)), np.nan)
    for number, task in enumerate(tasks):
        for rank in range(ranks // task.design.degree * task.design.degree):
            factors = np.exp(jitter * random.standard_normal(7)) / speeds[rank]
            table[rank, number] = np.outer(factors, [task.seconds[part] for part in PARTS])
    return tasks, summarize([task.design for task in tasks], table)


@pytest.mark.parametrize("seed", range(4))
def test_speeds_of_ranks_are_measured_and_taken_out(seed: int) -> None:
    tasks, found = measured_by(5, [1.0, 1.0, 0.9, 1.0, 1.0], 0.02, seed)
    assert found.rank_speed == pytest.approx([1.0, 1.0, 0.9, 1.0, 1.0], abs=0.015)
    assert found.rank_error == pytest.approx(0.02, rel=0.1)
    for given, task in zip(tasks, found.tasks, strict=True):
        if given.design.degree <= 5:  # the slowest of a group is a little slower by chance
            assert task.total_s == pytest.approx(given.total_s, rel=0.05)
        else:
            assert math.isnan(task.total_s)


def test_ranks_that_are_alike_or_alone_have_no_speeds() -> None:
    for ranks in (1, 4):
        tasks, found = measured_by(ranks, [1.0] * ranks, 0.0, 1)
        assert found.rank_speed == []
        assert found.rank_error == pytest.approx(0.0, abs=1e-12)
        for given, task in zip(tasks, found.tasks, strict=True):
            if given.design.degree <= ranks:
                assert task.total_s == pytest.approx(given.total_s, rel=1e-12)


def test_a_fit_says_what_errors_to_expect(mixed_data: Path) -> None:
    base, random = local_cost(mixed_data / "model", 1), np.random.default_rng(1)
    tasks = made_up(None, make_designs(RANGE, {"fit": 300}))
    exact = fit(tasks, base, "x", 0.0172)
    assert isinstance(exact, Calibration)
    assert exact.cost.expected_error == ErrorSizes(0.0, 0.0, 0.015)
    for task in tasks:  # whole tasks are off: nothing depends on how many sequences they have
        factor = math.exp(0.04 * random.standard_normal())
        task.seconds.update({part: seconds * factor for part, seconds in task.seconds.items()})
    noisy = fit(tasks, base, "x")
    assert isinstance(noisy, Calibration) and noisy.cost.expected_error is not None
    assert noisy.cost.expected_error.rank == ErrorSizes().rank
    # A single sequence is a task as well: of the variance, 3 standard errors may pass for theirs.
    assert noisy.cost.expected_error.task == pytest.approx(0.04, abs=0.011)
    total = math.hypot(noisy.cost.expected_error.task, noisy.cost.expected_error.sequence)
    assert total == pytest.approx(0.04, abs=0.01)


def test_tasks_that_were_not_measured_are_no_fit(mixed_data: Path) -> None:
    """Degrees beyond the ranks do not run: their medians are no numbers."""
    base = local_cost(mixed_data / "model", 1)
    measured = made_up(None, make_designs(RANGE, {"fit": 30, "left out": 6}))
    assert isinstance(fit(measured, base, "x"), Calibration)
    for m in measured:
        if m.design.degree == 6:
            m.seconds.update(dict.fromkeys(PARTS, math.nan))
    answer = fit(measured, base, "x")
    assert isinstance(answer, NoFit)
    assert answer.reason == "tasks of degree 6 were not measured: take as many ranks, or a lower --max-degree"


@pytest.mark.parametrize(
    ("freeze", "checkpointing"), [("", False), ("", True), ("vit", True), ("vit,aligner", False), ("llm", True)]
)
def test_counts_memory_and_bytes_as_training_does(
    mixed_data: Path, run: Run, unmeasured: None, freeze: str, checkpointing: bool
) -> None:
    model = mixed_data / "model"
    flags = ["--recompute", "full"] * checkpointing + ["--freeze", freeze] * bool(freeze)
    file = calibrated(run, model, *flags).file
    frozen = {f"freeze_{part}": True for part in freeze.split(",") if part}
    settings = TrainConfig(str(model), "", gradient_checkpointing=checkpointing, **frozen)
    assert file["fit"]["frozen"] == [part for part in freeze.split(",") if part]
    assert file["fit"]["attention"] == "cpu_flash"
    counted = json.loads(to_json(planning_inputs(settings, run.world_size)[1]))
    for key in ("token_bytes", "patch_bytes", "state_bytes", "gradient_bytes", "optimizer_s"):
        assert file[key] == counted[key], key
    for direction in ("forward", "backward"):
        for key in ("ring_bytes_per_token", "all_to_all_bytes_per_token"):
            assert file[direction][key] == counted[direction][key], (direction, key)


def test_measures_a_model_whose_parts_train_as_in_training(
    mixed_data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bool] = {}

    def look(adapter: Any, designs: list[Design], *_: Any, **__: Any) -> Measurements:
        seen.update({name: p.requires_grad for name, p in adapter.model.named_parameters()})
        return Measurements(made_up(adapter, designs), [], None)

    monkeypatch.setattr(calibrate, "measure", look)
    calibrated(run, mixed_data / "model", "--freeze", "aligner,llm")
    assert any(seen.values())
    for name, trains in seen.items():
        assert trains == ("visual" in name and "merger" not in name), name


BY_PARTS = ("internvl with qwen2", "llama", "qwen3_moe", "glm4v", "deepseek_v3", "llava_onevision", "mistral3", OMNI)


@pytest.mark.parametrize("name", [name for name in BY_PARTS if name in MODELS])
def test_every_family_is_measured(name: str, tmp_path: Path, run: Run) -> None:
    """Tiles of one size; text alone; experts; a family whose cost cannot be counted; clips that end with a row more;
    pictures that are one unit each; marks around media."""
    MODELS[name]().save_pretrained(tmp_path)
    few = ["--samples", "16", "--left-out", "4", "--repeats", "1", "--max-tokens", "200", "--max-degree", "2"]
    if name == "deepseek_v3":
        assert "or count tokens instead of bytes: --capacity-tokens" in refused(run, tmp_path, *few)
        few += ["--capacity-tokens", "1000"]
    found = calibrated(run, tmp_path, *few)
    assert not isinstance(found, NoFit), found
    file = {key: value for key, value in found.file.items() if key != "fit"}
    cost = parse_cost_model(json.dumps(file), "fitted")
    forward = cost.forward  # what its few seconds are spent on is chance
    assert forward.token_s + forward.pair_s + forward.step_s + forward.sequence_step_s > 0.0
    assert cost.backward.ring_bytes_per_token > cost.forward.ring_bytes_per_token > 0.0
    with_vision = name not in ("llama", "qwen3_moe", "deepseek_v3")
    assert with_vision or cost.patch_s == 0.0
    modules = {module["module"] for module in found.file["fit"]["modules"]}
    assert modules == {*(["vision"] if with_vision else []), "projector", "layers", "head"}


def test_exchanges_go_between_nodes(mixed_data: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one process too, where nothing but the option says which ranks share a node."""
    seen: list[Any] = []

    def look(adapter: Any, designs: list[Design], *_: Any, **how: Any) -> Measurements:
        seen.append((how["exchange"].name, [adapter._cluster.node_of(rank) for rank in range(8)]))
        return Measurements(made_up(adapter, designs), [], None)

    monkeypatch.setattr(calibrate, "measure", look)
    model = mixed_data / "model"
    found = calibrated(run, model, "--exchange", "hierarchical", "--ranks-per-node", "3")
    assert found.file["fit"]["exchange"] == "hierarchical"
    assert seen == [("hierarchical", [0, 0, 0, 1, 1, 1, 2, 2])]
    assert refused(run, model, "--exchange", "hierarchical").startswith(
        "--exchange: hierarchical goes by nodes, and one process has none: add --ranks-per-node"
    )


def test_plain_algebra_is_not_timed_where_training_has_flash_attention() -> None:
    """The device "meta" has no flash attention, as a GPU has none for fp32."""
    text = SimpleNamespace(num_attention_heads=4, hidden_size=64)
    assert calibrate.attention_kernel("fp32", text, torch.device("cpu")) == "cpu_flash"
    with pytest.raises(
        InputError, match="--torch-device: found meta with --precision fp32 and heads of 16: there is no flash"
    ):
        calibrate.attention_kernel("fp32", text, torch.device("meta"))


def refused(run: Any, model: Path, *arguments: str) -> str:
    with pytest.raises(InputError) as error:
        calibrated(run, model, *arguments)
    return str(error.value)


def test_files_are_checked_before_anything_is_measured(
    mixed_data: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "measure", lambda *_, **__: pytest.fail("measured first"))
    model, good = mixed_data / "model", str(tmp_path / "new" / "cost.json")
    why = "cannot be written (Is a directory); give another path"
    assert refused(run, model, "-o", str(tmp_path)) == f"-o: {tmp_path} {why}"
    several = SimpleNamespace(rank=0, world_size=2, from_rank_0=lambda value: value, device=torch.device("cpu"))
    arguments = ("-o", good, "--cluster-output", str(tmp_path))
    assert refused(several, model, *arguments) == f"--cluster-output: {tmp_path} {why}"
    arguments = ("-o", good, "--cluster-output", good)
    assert (
        refused(several, model, *arguments) == f"--cluster-output: {good} is the file of -o itself; give another path"
    )
    assert "--cluster-output: found 1 rank" in refused(run, model, "-o", good, "--cluster-output", good)
    assert not Path(good).exists(), "nothing is written yet"


def test_groups_are_at_most_all_ranks_also_where_others_started_them(mixed_data: Path) -> None:
    four = SimpleNamespace(rank=3, world_size=4, from_rank_0=lambda value: value, device=torch.device("cpu"))
    said = refused(four, mixed_data / "model", "--max-degree", "8")  # --ranks is 1 under torchrun
    assert said == "--max-degree: found 8, but there are 4 ranks; take at most 4, or more ranks"


def test_lengths_are_a_range(mixed_data: Path) -> None:
    model = mixed_data / "model"
    with pytest.raises(InputError) as error:
        check_options(options_of(model, "--min-tokens", "4096", "--max-tokens", "100"))
    assert str(error.value) == "--max-tokens: found 100, expected at least --min-tokens, which is 4096"
    check_options(options_of(model, "--min-tokens", "100", "--max-tokens", "100"))


def test_data_has_samples_to_fit_to_and_samples_to_leave_out(
    mixed_data: Path, run: Run, unmeasured: None, tmp_path: Path
) -> None:
    lines = (mixed_data / "train.jsonl").read_text().splitlines()
    texts = [line for line in lines if "images" not in line and "videos" not in line]
    model, one, two = mixed_data / "model", tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(texts[0] + "\n")
    two.write_text(texts[0] + "\n" + texts[1] + "\n")
    said = refused(run, model, "--data", str(one))
    assert said.startswith(f"--data: {one}: 1 of its 1 samples fit on 8 ranks, expected at least 2: some to fit to")
    assert "0 of its 2 samples fit on 8 ranks" in refused(run, model, "--data", str(two), "--capacity-tokens", "1")
    answer = calibrated(run, model, "--data", str(two))
    assert isinstance(answer, NoFit), "two are enough to measure, and too few for all coefficients"


def test_a_model_without_room_for_activations_is_named(
    mixed_data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = local_cluster(8, capacity_tokens=2**20)
    monkeypatch.setattr(calibrate, "local_cluster", lambda *_, **__: small)
    said = refused(run, mixed_data / "model", "--data", str(mixed_data / "train.jsonl"))
    assert said.startswith("--device: local-cpu: the model's state (parameters, gradients, optimizer, reserve) needs ")
    assert "a rank has 1 MiB, which leaves nothing for activations; take a device with more" in said


def test_what_was_found_is_said_where_it_cannot_be_written_any_more(
    mixed_data: Path, run: Run, unmeasured: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = options_of(mixed_data / "model", "-o", str(tmp_path / "there" / "cost.json"))
    found = calibrate.calibrate(options, run, lambda done, of: None)
    assert isinstance(found, calibrate.Found)
    (tmp_path / "there").rmdir()
    with pytest.raises(InputError, match=r"-o: .*cost.json cannot be written \(No such file or directory\)"):
        calibrate.finish(found, options)
    assert "left out of the fit" in capsys.readouterr().out


@pytest.mark.parametrize(("merge", "example"), [(2, "16x24"), (3, "24x36")])
def test_frames_are_of_whole_tokens(merge: int, example: str) -> None:
    rule = UnitRule(merge)
    if merge == 2:
        assert calibrate._unit("12x16", rule) == (12, 16)
    with pytest.raises(InputError, match=f"--unit: found '10x15', expected multiples of {merge}, as in {example}"):
        calibrate._unit("10x15", rule)


def test_tiles_are_of_the_models_size() -> None:
    family = Family(make("internvl with qwen2", torch.float32))
    rule = rule_of(family)
    assert (rule.tokens(4, 4), rule.has_clips) == (4, False)
    assert calibrate._unit("12x16", rule) == (4, 4)
    assert rule_of(family_class(model := make("qwen3_vl", torch.float32))(model)) == UnitRule(2, 0, True)


def dhp_calibrate(model: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program("dhp.cost.calibrate", "--model", model, *arguments)


FEW = ("--samples", "18", "--left-out", "4", "--repeats", "1", "--max-tokens", "256")


def test_writes_a_cost_file_that_says_how_good_it_is(mixed_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "cost.json"
    done = dhp_calibrate(mixed_data / "model", *FEW, "--max-degree", "3", "--capacity-tokens", "99", "-o", str(file))
    assert done.returncode == 0, done.stderr
    for words in ("vision", "projector", "layers", "head", "left out of the fit", "degree 3", "text alone"):
        assert words in done.stdout
    cost = read_cost_model(str(file))
    assert cost.layers == 3
    assert cost.token_bytes == 1.0
    assert cost.patch_s > 0.0
    assert cost.task_s > 0.0
    content = json.loads(file.read_text())
    fit = content["fit"]
    assert fit["left_out"]["samples"] == 4
    assert fit["good"] == (
        fit["left_out"]["mean"] <= calibrate.GOOD_MEAN and fit["left_out"]["p95"] <= calibrate.GOOD_P95
    )
    sizes = content["expected_error"]
    assert all(0 <= sizes[kind] <= 1 and sizes[kind] == round(sizes[kind] / 0.005) * 0.005 for kind in sizes)
    assert f"{sizes['rank']:.1%} a rank" in done.stdout
    assert fit["rank_speed"] == []
    assert fit["good"] == ("warning: not a good fit" not in done.stderr)
    assert [m["module"] for m in fit["modules"]] == [m for m in MODULES for _ in PASSES]
    # The parts add up to the whole.
    for key in ("token_s", "pair_s", "step_s", "sequence_step_s"):
        both = sum(m[key] for m in fit["modules"])
        assert getattr(cost.forward, key) + getattr(cost.backward, key) == pytest.approx(both)
    assert cost.patch_s == pytest.approx(sum(m["patch_s"] for m in fit["modules"]))


def test_real_ranks_measure_links(mixed_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    done = dhp_calibrate(
        mixed_data / "model", *FEW, "--ranks", "3", "--cluster-output", str(file), "--output-format", "json"
    )
    assert done.returncode == 0, done.stderr
    fit = json.loads(done.stdout)["fit"]
    assert fit["degrees"] == [1, 2]
    assert fit["left_out_degrees"] == [3]
    assert read_cluster(str(file)).rank_speed == fit["rank_speed"]
    link = read_cluster(str(file)).intra_node
    assert link.latency_s == fit["links"]["inside_node"]["latency_s"]
    assert 1e-7 < link.latency_s < 1.0
    assert 1e6 < link.bandwidth_bytes_per_s < 1e12


def test_too_few_samples_are_refused_with_the_reason(mixed_data: Path, tmp_path: Path) -> None:
    words = ["--model", str(mixed_data / "model"), "--samples", "3", "--left-out", "1", "--repeats", "1"]
    command = [sys.executable, "-m", "dhp.cost.calibrate", *words, "-o", str(tmp_path / "c.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert "no fit: vision, forward: 3 samples for 2 coefficients (task_s, patch_s): measure at least 4" in done.stderr
    assert not (tmp_path / "c.json").exists()


def test_a_bad_fit_is_said_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = parser().parse_args(["--model", "m", "-o", str(tmp_path / "c.json"), "--output-format", "json"])
    error = {"mean": 0.31, "p95": 0.62, "worst": 0.7, "samples": 9}
    assert calibrate.finish(calibrate.Found({"name": "x", "fit": {"good": False, "left_out": error}}), options) == 0
    said = capsys.readouterr()
    assert "warning: not a good fit: 31.0% off on average and 62.0% at the 95th percentile" in said.err
    assert json.loads((tmp_path / "c.json").read_text())["fit"]["good"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "0"], "--ranks: found 0, expected at least 1"),
        (["--freeze", "vit,head"], '--freeze: found "head", expected vit, aligner and llm'),
        (["--repeats", "0"], "--repeats: found 0, expected at least 1"),
        (["--unit", "16"], "--unit: found '16', expected ROWSxCOLUMNS in patches, as in 16x24"),
        (["--unit", "0x4"], "--unit: found '0x4', expected ROWSxCOLUMNS in patches, as in 16x24"),
        (["--label-share", "2"], "--label-share: found 2.0, expected a share from 0 to 1"),
        (["--ranks", "2", "--max-degree", "4"], "--max-degree: found 4, but there are 2 ranks; take at most 2"),
        (["--ranks", "2", "-o", "/proc/none/c.json"], "-o: /proc/none/c.json cannot be written (No such file"),
        (["--torch-device", "cuda"], "--torch-device: found 'cuda', but torch"),
        (["--model", "nowhere"], "nowhere/config.json: cannot be read"),
    ],
)
def test_bad_input_is_named(mixed_data: Path, arguments: list[str], message: str) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is one")
    done = dhp_calibrate(mixed_data / "model", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, "said once"
