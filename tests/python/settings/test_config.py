"""Settings: defaults, overrides, and what is said of wrong ones."""

import os
import subprocess
import sys
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from dhp._core import (
    Batch,
    InputError,
    parse_plan,
    plan_metrics,
    plan_options,
    read_batch,
    read_cluster,
    read_cost_model,
    to_json,
)
from dhp.data.sources import sources_of
from dhp.loop.train_options import parser, settings_of
from dhp.run.planning import plan
from dhp.settings.config import TrainConfig, read_config
from dhp.step.optimizer import learning_rate

ROOT = Path(__file__).parents[3]
CASES = ROOT / "bench" / "cases"
DHP = os.environ.get("DHP_BINARY") or str(Path(sys.executable).parent / "dhp")


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    file = tmp_path / "run.toml"
    file.write_text('model = "m"\ndata = "d.jsonl"\nsteps = 10\n')
    return file


def test_overrides_win_and_types_hold(toml: Path) -> None:
    config = read_config(toml, ["steps=20", "learning_rate=3", "planner=static:2", "freeze_vit=true", "cost='c'"])
    assert (config.steps, config.learning_rate, config.planner, config.freeze_vit) == (20, 3.0, "static:2", True)
    assert type(config.learning_rate) is float
    assert config.cost == "c"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=ten", r"--set: steps: found 'ten', expected int"),
        ("steps=0", r"steps: found 0, expected at least 1"),
        ("stepps=1", r"--set: stepps: unknown setting; did you mean one of: steps"),
        ("steps", r'--set: found "steps", expected key=value'),
        ("precision=fp8", r"precision: found 'fp8', expected one of fp32, bf16, bf16_weights, fp64"),
        ("freeze_vit=1", r"freeze_vit: found 1, expected bool"),
        ("learning_rate=-1", r"learning_rate: found -1.0, expected at least 0"),
        ("plan.max_degree=-1", r"plan.max_degree: found -1, expected at least 0"),
        ("plan.max_degree=two", r'plan.max_degree: found "two", expected a whole number'),
        ("plan.within_node=1", r'plan.within_node: found "1", expected true or false'),
        ("plan.effort=most", r'plan.effort: found "most", expected default, fast or a whole number'),
        ("plan.widest=1", r"plan.widest: unknown option; expected one of max_degree, degrees_divide, "),
        ("plan.planner=paper", r"plan.planner: not here"),
        ("plan=3", r"plan: found 3, expected dict"),
        ("plan.no_idle_ranks=true", r"plan.no_idle_ranks: is not used by free"),
        ("plan.effort=nan", r"plan.effort: found nan, expected a finite number"),
        (
            'plan.placement="\\u0000"',
            r"plan.placement: found '.x00', expected text in UTF-8, without control characters",
        ),
        ("plan.max_degree=0x" + "f" * 4000, r"plan.max_degree: found a number of 16,000 bits, expected a number of 64"),
        ("plan.effort=\n", r"plan.effort: found '.n', expected text in UTF-8, without control characters"),
        ("model=a\x1bb", r"model: found 'a.x1bb', expected text in UTF-8, without control characters"),
        ("a\nb=3", r"--set: 'a.nb': unknown setting"),
        ("plan.a\nb=3", r"plan.'a.nb': unknown option"),
        ("planner=best", r"toml: planner: found \"best\", expected one of free, lockstep"),
        ("min_learning_rate=1", r"min_learning_rate: found 1, expected at most learning_rate, which is 0.0001"),
        ("output_dir=", r"output_dir: found '', expected a path"),
        ("data=\udc80", r"data: found '.udc80', expected text in UTF-8"),
        ("learning_rate=0x" + "f" * 4000, r"learning_rate: found a number of 16,000 bits, expected a finite number"),
        ("steps=" + "9" * 5000, r"steps: found '9{59}… \(5,002 characters\), expected int"),
        ("steps=1\nranks=0", r"steps: found '1.nranks=0', expected int"),
    ],
)
def test_wrong_overrides_are_named(toml: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_config(toml, [override])


def test_epochs_or_steps(toml: Path) -> None:
    with pytest.raises(InputError, match="num_train_epochs: found 2, and steps 10; give one of them"):
        read_config(toml, ["num_train_epochs=2"])
    assert read_config(toml, ["num_train_epochs=0"]).steps == 10
    toml.write_text('model = "m"\ndata = "d.jsonl"\nnum_train_epochs = 1.5\n')
    assert read_config(toml).num_train_epochs == 1.5
    with pytest.raises(InputError, match=r"num_train_epochs: found 1\.5, and steps 3"):
        read_config(toml, ["steps=3"])


def test_the_examples_of_several_files(toml: Path) -> None:
    blocks = (ROOT / "docs" / "training.md").read_text().split("```toml\ndata = ")[1:]
    configs = []
    for block in blocks:
        toml.write_text(f'model = "m"\ndata = {block.split("```")[0]}')
        configs.append(read_config(toml))
    assert [len(sources_of(config.data)) for config in configs] == [1, 2, 2]  # one at an address
    assert configs[0].media_roots[1].startswith("https://") and configs[0].cache_of_media
    assert configs[1].cache_of_media is None


def test_several_data_files(toml: Path) -> None:
    toml.write_text('model = "m"\ndata = ["a.jsonl", "b.jsonl"]\n')
    assert read_config(toml).data == ["a.jsonl", "b.jsonl"]
    assert read_config(toml).data_name == "a.jsonl and 1 more"
    toml.write_text('model = "m"\ndata = [{path = "a.jsonl", weight = 0.3}, {path = "b.jsonl", weight = 1}]\n')
    assert read_config(toml).data == [{"path": "a.jsonl", "weight": 0.3}, {"path": "b.jsonl", "weight": 1}]
    assert read_config(toml, ['data=["c", "d"]']).data == ["c", "d"]
    assert read_config(toml, ["data=c d.jsonl"]).data == "c d.jsonl"
    for override, message in [
        ("data=[]", "data: expected a path, or a list"),
        ("data=[3]", r"data\[0\]: expected a path, or a table"),
        ('data=["a\\u0007"]', "data: found .*, expected text in UTF-8, without control characters"),
        ('data=["a", {path = "b", weight = 1}]', r"data\[0\]: has no weight, and others have"),
    ]:
        with pytest.raises(InputError, match=message):
            read_config(toml, [override])
    toml.write_text('model = "m"\ndata = 3\n')
    with pytest.raises(InputError, match="data: found 3, expected str, or a list of paths and tables"):
        read_config(toml)


NUMBERS = [f for f in fields(TrainConfig) if f.type in ("int", "float")]


@pytest.mark.parametrize("setting", NUMBERS, ids=[f.name for f in NUMBERS])
def test_every_number_is_finite_and_has_two_ends(toml: Path, setting: Field[Any]) -> None:
    limits = setting.metadata["limits"]
    assert isinstance(limits.least, int) and isinstance(limits.most, int), "or nobody has thought of what it may be"
    wrong = {limits.least - 1: "expected a[bt]", limits.most + 1: "expected (at most|below)"}
    if setting.type == "float":
        wrong |= dict.fromkeys(("nan", "inf", "-inf", "1e999"), "expected a finite number")
    if limits.open:
        wrong[getattr(limits, limits.open)] = f"expected {'above' if limits.open == 'least' else 'below'}"
    for value, message in wrong.items():
        with pytest.raises(InputError, match=rf"{setting.name}: found .*, {message}"):
            read_config(toml, [f"{setting.name}={value}"])
    for end in ("least", "most"):
        if limits.open != end:
            others = ["learning_rate=1000"] if setting.name == "min_learning_rate" else []
            if setting.name == "num_train_epochs":
                toml.write_text('model = "m"\ndata = "d.jsonl"\n')
            value = getattr(limits, end)
            assert getattr(read_config(toml, [*others, f"{setting.name}={value}"]), setting.name) == value


def test_options_of_the_planner_stand_in_a_table(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('model = "m"\ndata = "d"\n[plan]\nmax_degree = 8\nexchanges = ["ring", "direct"]\n')
    assert read_config(file).plan == {"max_degree": 8, "exchanges": ["ring", "direct"]}
    config = read_config(file, ["plan.max_degree=4", "plan.degrees_divide=[32, 8]", "plan.effort=fast"])
    assert config.plan == {
        "max_degree": 4,
        "exchanges": ["ring", "direct"],
        "degrees_divide": [32, 8],
        "effort": "fast",
    }
    assert read_config(file, ["steps=3"]).plan["max_degree"] == 8


OPTIONS = [  # a line of [plan], the planner, the number of sequences that make it tell
    ("max_degree = 5", "free", 100),
    ("degrees_divide = [32, 8]", "free", 200),
    ("max_tokens_per_rank = 7000", "free", 100),
    ("min_shard_tokens = 2000", "free", 100),
    ("max_peers = 3", "free", 200),
    ("within_node = true", "lockstep", 10),
    ('placement = "consecutive"', "free", 200),
    ('exchanges = ["ring"]', "free", 100),
    ('exchanges = ["ring", "direct"]', "free", 200),
    ('expect_error = "0.1,0,0"', "free", 200),
    ("most_loss = 0", "free", 200),
    ('effort = "fast"', "free", 100),
    ("effort = 1", "free", 100),
    ("tighter_bound = true", "free", 100),
    ("pipeline_stages = 8", "lockstep", 256),
    ("no_idle_ranks = true", "lockstep", 10),
]


@pytest.mark.parametrize(("line", "planner", "sequences"), OPTIONS)
def test_plan_table_plans_as_the_command_line_does(tmp_path: Path, line: str, planner: str, sequences: int) -> None:
    source = "internvid" if planner == "lockstep" else "openvid"  # whose longest needs groups across nodes
    batch = Batch(read_batch(str(CASES / f"batch_{source}_512.json")).sequences[:sequences])
    inputs = {"batch": tmp_path / "batch.json"}
    inputs["batch"].write_text(to_json(batch))
    inputs |= {"cluster": CASES / "cluster_910b_8x8.json", "cost": CASES / "cost_qwen3-vl-8b_8192.json"}
    cluster, cost = read_cluster(str(inputs["cluster"])), read_cost_model(str(inputs["cost"]))

    file = tmp_path / "run.toml"
    file.write_text(f'model = "m"\ndata = "d"\nplanner = "{planner}"\n[plan]\n{line}\n')
    config = read_config(file)
    made = plan(batch, cluster, cost, planner=config.planner, **config.plan)

    option, value = next(iter(config.plan.items()))
    flag = "--" + option.replace("_", "-")
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    words = [word for name, path in inputs.items() for word in (f"--{name}", str(path))]
    words += ["--planner", planner, "--output-format", "json"]
    if option != "tighter_bound":  # the command always states it
        words += [flag, *([] if value is True else [text])]
    shown = subprocess.run([DHP, "plan", *words], capture_output=True, text=True, timeout=240, check=True).stdout
    stated = plan(batch, cluster, cost, planner=config.planner, **{**config.plan, "tighter_bound": True})
    stated.most_peers = plan_metrics(stated, batch, cluster, cost).most_peers  # which the command states, too
    assert stated == parse_plan(shown, "dhp plan")
    assert made != plan(batch, cluster, cost, planner=planner), f"{line} changes nothing"


def test_the_example_of_the_docs_shows_every_option(tmp_path: Path) -> None:
    blocks = [block.split("```")[0] for block in (ROOT / "docs" / "training.md").read_text().split("```toml\n")]
    text = next(block for block in blocks[1:] if "[plan]" in block)
    file = tmp_path / "run.toml"
    file.write_text(f'model = "m"\ndata = "d"\n{text}')
    assert {"planner", *read_config(file).plan} == {info.name for info in plan_options()}


def test_every_option_of_the_planner_is_tried() -> None:
    assert {line.split()[0] for line, _, _ in OPTIONS} == {info.name for info in plan_options()} - {"planner"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "not valid TOML"),
        ('model = "m"', "data: missing"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("steps = " + "9" * 5000, "not valid TOML"),
        ("#" * (1 << 20) + "#", "larger than 1,048,576 bytes"),
        ('model = 3\ndata = "d"', "model: found 3, expected str"),
        ('model = "m"\ndata = "d"\nfreeze_vit = true\nfreeze_llm = true\nfreeze_aligner = true', "nothing to train"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_config(file)
    assert str(file) in str(error.value)


def test_an_options_zero_is_not_taken_for_not_given(toml: Path) -> None:
    for option in ("--steps", "--ranks"):
        options = parser().parse_args([str(toml), option, "0"])
        with pytest.raises(InputError, match=f"{option[2:]}: found 0, expected at least 1"):
            settings_of(options)
    assert settings_of(parser().parse_args([str(toml), "--steps", "7"])).steps == 7


def test_missing_file() -> None:
    with pytest.raises(InputError, match=r"nowhere.toml: cannot be read"):
        read_config("nowhere.toml")


def test_learning_rate_warms_up_and_decays(toml: Path) -> None:
    config = read_config(toml, ["learning_rate=1.0", "warmup_steps=4", "steps=14", "min_learning_rate=0.1"])
    rates = [learning_rate(config, step) for step in range(14)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[9] == pytest.approx(0.55)  # half-way down the cosine
    assert sorted(rates[4:], reverse=True) == rates[4:]
    assert learning_rate(config, 14) == pytest.approx(0.1)
