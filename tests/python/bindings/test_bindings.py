"""dhp._core: the C++ headers in Python, name by name."""

from __future__ import annotations

import json
import pickle
import re
import threading
from pathlib import Path

import pytest

from dhp import _core as core

ROOT = Path(__file__).parents[3]
CASES = ROOT / "bench" / "cases"

LINK = core.Link(bandwidth_bytes_per_s=1e10, latency_s=1e-5)
CLUSTER = core.Cluster(nodes=2, ranks_per_node=3, memory_bytes=4e9, intra_node=LINK, inter_node=LINK)
COST = core.CostModel(
    name="round",
    layers=4,
    task_s=0.01,
    patch_s=1e-5,
    forward=core.PassCost(token_s=1e-4, pair_s=1e-9, step_s=1e-3, ring_bytes_per_token=1e4),
    backward=core.PassCost(token_s=2e-4, pair_s=2e-9, step_s=2e-3, ring_bytes_per_token=2e4),
    token_bytes=1e6,
    patch_bytes=1e5,
    state_bytes=1e9,
)


def batch_of(*tokens: int) -> core.Batch:
    return core.Batch([core.Sequence(id=i, tokens=length) for i, length in enumerate(tokens)])


def test_names_are_those_of_the_headers() -> None:
    """Who reads the one finds the other; what is Python's own is listed."""
    own = {"MOST_RESIDUAL_FACTOR", "foreign_link", "result_json", "try_plan", "validate_options"}
    own |= {"COMPUTE_STREAM", "TRANSFER_STREAM", "FIRST_CORRELATION"}  # kComputeStream and so on
    words = set(re.findall(r"\w+", "".join(file.read_text() for file in (ROOT / "include" / "dhp").glob("*.h"))))
    for module in (core, core.qwen_vl):
        names = {name for name in dir(module) if not name.startswith("_")}
        assert len(names) > 5
        assert names <= words | own


def test_files_go_round() -> None:
    batch = core.read_batch(str(CASES / "batch_openvid_512.json"))
    assert len(batch) == len(batch.sequences) == 512
    assert core.parse_batch_json(core.to_json(batch), "copy") == batch

    cluster = core.read_cluster(str(CASES / "cluster_910b_8x8.json"))
    assert (cluster.ranks, cluster.node_of(63)) == (64, 7)
    assert core.parse_cluster(core.to_json(cluster), "copy") == cluster

    cost = core.read_cost_model(str(CASES / "cost_qwen3-vl-8b_8192.json"))
    assert core.parse_cost_model(core.to_json(cost), "copy") == cost
    assert cost.forward != cost.backward


def test_error_sizes_of_a_cost() -> None:
    assert core.ErrorSizes() == core.parse_error_sizes("0.02,0.02,0.01", "text")
    assert str(core.ErrorSizes(task=0.0, rank=0.0)) == "0.02"
    cost = core.parse_cost_model(core.to_json(COST), "copy")
    assert cost.expected_error is None
    cost.expected_error = core.ErrorSizes(0.03, 0.01)
    again = core.parse_cost_model(core.to_json(cost), "copy")
    assert again.expected_error == core.ErrorSizes(0.03, 0.01, 0.01)
    assert again == cost == pickle.loads(pickle.dumps(cost)) != COST
    cost.expected_error = None
    assert cost == COST
    with pytest.raises(core.InputError, match="text: task: found 2"):
        core.parse_error_sizes("0.1,2", "text")


def test_input_error_is_a_value_error_that_names_the_place() -> None:
    assert issubclass(core.InputError, ValueError)
    with pytest.raises(core.InputError, match=r"^b: sequences\[0\]\.tokens: found -5"):
        core.parse_batch_json('{"format": "dhp.batch/1", "sequences": [{"id": 0, "tokens": -5}]}', "b")
    with pytest.raises(core.InputError, match="does not divide the 6 ranks"):
        core.try_plan(batch_of(5), CLUSTER, COST, planner="static:4")
    with pytest.raises(core.InputError, match=r"sequences\[1\]\.tokens: found 0"):
        core.try_plan(batch_of(5, 0), CLUSTER, COST)
    with pytest.raises(TypeError):
        core.Sequence(id=0, tokens=1.5)  # type: ignore[arg-type]


def test_plan_check_replay_explain() -> None:
    batch = batch_of(3000, 200, 1500, 70, 900, 9000)
    for planner in ("free", "lockstep", "paper", "static", "static:3"):
        plan = core.try_plan(batch, CLUSTER, COST, planner=planner)
        assert isinstance(plan, core.Plan)
        assert core.check_plan(plan, batch, CLUSTER, COST) == []
        assert plan.hash == core.plan_hash(plan, batch)
        assert plan.predicted is not None
        assert core.parse_plan(core.to_json(plan), "copy") == plan

        seconds = core.predict_task_seconds(plan, batch, CLUSTER, COST)
        timeline = core.replay(plan, seconds)
        assert timeline.makespan_s == pytest.approx(plan.predicted.makespan_s, rel=1e-12)
        assert timeline.start_s == [task.start_s for task in plan.tasks]
        assert len(timeline.busy_s) == 6
        busy = sum(timeline.busy_s)
        assert timeline.idle_share == pytest.approx(1.0 - busy / (6 * timeline.makespan_s), abs=1e-12)

        reasons = core.explain_tasks(plan, batch, CLUSTER, COST)
        assert [reason.task for reason in reasons] == [task.id for task in plan.tasks]
        assert all(reason.degree and reason.start.startswith("starts ") for reason in reasons)
        what_if = core.explain_changes(plan, batch, CLUSTER, COST, min_shard_tokens=64)
        assert what_if.method == f"planned again by {plan.planner}"
        assert what_if.from_s == plan.predicted.makespan_s
        assert any(change.what == "one node more" for change in what_if.changes)
        assert "one node more" in repr(what_if.changes[0])

        explanation = core.explain_plan(plan, batch, CLUSTER, COST)
        assert explanation.makespan_s == timeline.makespan_s
        assert sum(tasks for _, tasks in explanation.degrees) == len(plan.tasks)
        assert plan.predicted.lower_bound_s == core.simple_lower_bound_s(batch, CLUSTER, COST)


def test_metrics_and_noise() -> None:
    batch = batch_of(3000, 200, 1500, 70, 900, 9000)
    plan = core.try_plan(batch, CLUSTER, COST)
    assert isinstance(plan, core.Plan)
    metrics = core.plan_metrics(plan, batch, CLUSTER, COST)
    assert plan.predicted is not None
    assert metrics.makespan_s == plan.predicted.makespan_s
    assert metrics.peak_memory_bytes == max(metrics.memory_bytes) <= 3e9
    assert metrics.most_peers == max(metrics.peers) < 6
    assert metrics.exposed_transfer_s >= 0.0
    assert "peers" in repr(metrics)
    given = plan, batch, CLUSTER, COST
    assert core.noisy_makespans(*given, 0, 2, 7) == pytest.approx([metrics.makespan_s] * 2)
    noisy = core.noisy_makespans(*given, core.ErrorSizes(0.1, 0.0, 0.0), 5, 7)
    assert noisy == core.noisy_makespans(*given, 0.1, 5, 7) == core.noisy_makespans(*given, "0.1,0", 5, 7)
    assert len(set(noisy)) == 5
    with pytest.raises(ValueError):
        core.noisy_makespans(*given, 1.5, 5, 7)


def test_task_seconds_and_memory_follow_the_formulas() -> None:
    sequences = [core.Sequence(0, 3000, 400), core.Sequence(1, 1000)]
    linear, pairs = 3e-4 * 4000, 3e-9 * (3000**2 + 1000**2) / 2
    alone = 0.01 + 1e-5 * 400 + linear + pairs + 3e-3
    assert core.task_seconds(COST, CLUSTER, sequences, [4], core.Exchange.ring) == pytest.approx(alone, rel=1e-12)
    assert core.task_seconds(COST, CLUSTER, sequences, [4, 0]) < alone
    assert core.task_memory_bytes(COST, sequences, 2) == (4000 * 1e6 + 400 * 1e5) / 2
    with pytest.raises(core.InputError, match=r"^degree: found 0, expected at least 1"):
        core.task_memory_bytes(COST, sequences, 0)
    with pytest.raises(ValueError, match="rank 6 is outside the cluster"):
        core.task_seconds(COST, CLUSTER, sequences, [6])
    assert core.activation_budget_bytes(COST, CLUSTER) == 3e9
    framed = core.CostModel("f", 1, 0.0, 2.0, core.PassCost(0, 0), core.PassCost(0, 0), patch_pair_s=0.5)
    for degree, vision_s in ((1, 12 * 2 + 12 * 4 * 0.5), (2, 32), (3, 16), (4, 16)):  # three frames of 16 s
        took = core.task_seconds(framed, CLUSTER, [core.Sequence(0, 100, 12, 4)], list(range(degree)))
        rest = core.task_seconds(framed, CLUSTER, [core.Sequence(0, 100)], list(range(degree)))
        assert took - rest == pytest.approx(vision_s, rel=1e-9)
    assert core.min_degree(COST, CLUSTER, core.Sequence(0, 3000)) == 1
    assert core.min_degree(COST, CLUSTER, core.Sequence(0, 3001)) == 2


def test_infeasible_is_an_answer() -> None:
    answer = core.try_plan(batch_of(10, 50_000), CLUSTER, COST)
    assert isinstance(answer, core.Infeasible)
    assert answer.sequence == 1
    assert answer.needed_ranks == 17
    assert answer.needed_bytes == 5e10
    assert answer.offered_bytes == 6 * 3e9
    assert "sequence 1 needs" in answer.reason
    no_room = core.try_plan(batch_of(10), core.Cluster(1, 1, 1e9, LINK, LINK), COST)
    assert isinstance(no_room, core.Infeasible)
    assert no_room.sequence is None


def test_options_are_keywords() -> None:
    batch = batch_of(3000, 200, 1500, 70, 900, 9000)
    names = [info.name for info in core.plan_options()]
    assert names[:3] == ["planner", "max_degree", "degrees_divide"]
    stub = (Path(core.__file__).parent / "_core" / "__init__.pyi").read_text()
    for info in core.plan_options():
        assert f"{info.name}: " in stub
        assert info.help

    wide = core.try_plan(batch, CLUSTER, COST)
    assert core.try_plan(batch, CLUSTER, COST, max_degree=0, exchanges=(), effort="default") == wide
    assert isinstance(core.try_plan(batch, CLUSTER, COST, max_degree=2), core.Infeasible)
    assert isinstance(core.try_plan(batch, CLUSTER, COST, degrees_divide=[2, 8]), core.Infeasible)
    core.validate_options(placement=core.Placement.consecutive, exchanges=[core.Exchange.ring, "direct"], effort=7)

    for bad, message in [
        ({"max_degree": -1}, "max_degree: found -1, expected at least 0"),
        ({"max_degree": 1.5}, 'max_degree: found "1.5", expected a whole number'),
        ({"within_node": 1}, 'within_node: found "1", expected true or false'),
        ({"placement": "near"}, 'placement: found "near", expected any or consecutive'),
        ({"exchanges": ["pigeon"]}, 'exchanges: found "pigeon", expected one of ring'),
        ({"widest": 3}, "widest: unknown option; expected one of planner, "),
    ]:
        with pytest.raises(core.InputError, match=f"^{re.escape(message)}"):
            core.try_plan(batch, CLUSTER, COST, **bad)  # type: ignore[arg-type]
        with pytest.raises(core.InputError, match=f"^{re.escape(message)}"):
            core.validate_options(**bad)  # type: ignore[arg-type]


def test_reasons_know_the_options() -> None:
    batch = batch_of(3000, 200)
    plan = core.try_plan(batch, CLUSTER, COST, max_degree=3, max_tokens_per_rank=1000)
    assert isinstance(plan, core.Plan)
    wide = next(task.id for task in plan.tasks if 0 in task.sequences)
    reasons = core.explain_tasks(plan, batch, CLUSTER, COST, max_degree=3, max_tokens_per_rank=1000)
    assert reasons[wide].degree.startswith(
        "tokens: 3 ranks are the fewest that hold it under --max-tokens-per-rank 1000"
    )
    what_if = core.explain_changes(plan, batch, CLUSTER, COST, max_degree=1, max_tokens_per_rank=1000)
    assert what_if.from_s == 0.0
    assert "under the cap on tokens a rank" in what_if.no_answer


def test_infeasible_sequences() -> None:
    batch = batch_of(100, 20_000, 300, 9_500)
    assert [one.sequence for one in core.infeasible_sequences(batch, CLUSTER, COST)] == [1]
    both = core.infeasible_sequences(batch, CLUSTER, COST, max_degree=3, planner="static")
    assert [one.sequence for one in both] == [1, 3]


def test_options_that_a_planner_does_not_use() -> None:
    core.refuse_unused(planner="lockstep", pipeline_stages=2, effort="fast")
    with pytest.raises(core.InputError, match=r"^--pipeline-stages: is not used by free"):
        core.refuse_unused(pipeline_stages=2)


def test_plans_state_their_peers() -> None:
    plan = core.Plan(ranks=4, tasks=[core.Task(id=0, ranks=[0, 1, 2], sequences=[0])], most_peers=2)
    assert core.parse_plan(core.to_json(plan), "plan").most_peers == 2
    plan.most_peers = None
    assert core.parse_plan(core.to_json(plan), "plan").most_peers is None


def test_options_are_checked_and_bounds_tightened() -> None:
    batch = batch_of(3000, 200, 1500, 70, 900, 9000)
    plan = core.try_plan(batch, CLUSTER, COST, max_degree=4)
    assert isinstance(plan, core.Plan)
    assert core.check_options(plan, batch, CLUSTER, COST, max_degree=4) == []
    assert len(core.check_options(plan, batch, CLUSTER, COST, max_degree=1)) > 0
    tight = core.try_plan(batch, CLUSTER, COST, max_degree=4, tighter_bound=True)
    assert isinstance(tight, core.Plan)
    assert tight.predicted is not None
    assert tight.predicted.lower_bound_s == core.tighter_lower_bound_s(batch, CLUSTER, COST)
    assert tight.predicted.lower_bound_s >= core.simple_lower_bound_s(batch, CLUSTER, COST)


def test_ranks_out_of_service_stay_out_of_plans() -> None:
    slow = core.Cluster(2, 3, 4e9, LINK, LINK, rank_speed=[1, 1, 0, 1, 0.5, 1])
    assert slow.live_ranks == [0, 1, 3, 4, 5]
    assert (slow.speed_of(4), CLUSTER.speed_of(4)) == (0.5, 1.0)
    plan = core.try_plan(batch_of(3000, 200, 1500, 70, 900), slow, COST)
    assert isinstance(plan, core.Plan)
    assert all(2 not in task.ranks for task in plan.tasks)


def test_a_plan_can_be_made_by_hand() -> None:
    batch = batch_of(300, 200)
    tasks = [core.Task(id=0, ranks=[2, 0], sequences=[1]), core.Task(id=1, ranks=[1], sequences=[0])]
    plan = core.Plan(schedule=core.Schedule.free, ranks=6, tasks=tasks)
    assert (tasks[0].degree, tasks[0].micro_batch, tasks[0].exchange) == (2, 0, core.Exchange.ring)
    assert core.check_plan(plan, batch, CLUSTER, COST) == []
    assert plan.predicted is None
    core.annotate(plan, batch, CLUSTER, COST)
    assert plan.predicted is not None
    assert plan.tasks[0].end_s == pytest.approx(
        core.task_seconds(COST, CLUSTER, [batch.sequences[1]], [2, 0]), rel=1e-12
    )

    tasks[1].sequences = [0, 1]
    plan.tasks = tasks
    plan.predicted = None
    plan.hash = ""
    assert any("sequence 1" in violation for violation in core.check_plan(plan, batch, CLUSTER, COST))
    with pytest.raises(ValueError):
        core.replay(plan, [1.0])


def test_planners_are_listed() -> None:
    listed = core.planners()
    names = [info.name for info in listed]
    assert len(set(names)) == len(names)
    assert {"free", "lockstep", "paper", "static", "static:CP"} <= set(names)
    assert all(info.help for info in listed)


def test_planning_releases_the_interpreter_and_is_deterministic() -> None:
    batch = core.read_batch(str(CASES / "batch_openvid_512.json"))
    cluster = core.read_cluster(str(CASES / "cluster_910b_8x8.json"))
    cost = core.read_cost_model(str(CASES / "cost_qwen3-vl-8b_8192.json"))
    hashes: list[str] = []

    def plan() -> None:
        for _ in range(5):
            result = core.try_plan(batch, cluster, cost)
            assert isinstance(result, core.Plan)
            hashes.append(result.hash)

    threads = [threading.Thread(target=plan) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hashes) == 20
    assert len(set(hashes)) == 1


@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_shards_cover_the_padded_sequence(degree: int) -> None:
    tokens = 23
    padded = core.padded_tokens(tokens, degree)
    assert padded % (2 * degree if degree > 1 else 1) == 0
    assert 0 <= padded - tokens < 2 * degree
    seen = []
    for position in range(degree):
        ranges = core.shard_ranges(tokens, degree, position)
        held = [token for one in ranges for token in range(one.begin, one.end)]
        assert len(held) == sum(len(one) for one in ranges) == padded // degree
        seen += held
    assert sorted(seen) == list(range(padded))
    with pytest.raises(ValueError):
        core.shard_ranges(tokens, degree, degree)


def test_qwen3_vl_rules() -> None:
    rules = core.qwen_vl.Rules()
    grid = core.qwen_vl.image_grid(rules, 480, 640)
    assert grid == core.qwen_vl.Grid(frames=1, height=30, width=40)
    assert grid.patches == 1200
    assert core.qwen_vl.visual_tokens(rules, grid) == 300
    assert core.qwen_vl.image_grid(rules, 480, 640, max_pixels=100_000).patches < 1200
    with pytest.raises(core.InputError, match=r"^image: "):
        core.qwen_vl.image_grid(rules, 0, 640)

    clip = core.qwen_vl.sample_clip(rules, 240, 320, 100, 25.0)
    assert len(clip.frame_indices) == 8
    assert len(clip.timestamps_s) == clip.grid.frames == 4
    exact = core.qwen_vl.sample_clip(rules, 240, 320, 100, 25.0, core.qwen_vl.Sampling(frames=6))
    assert len(exact.frame_indices) == 6

    text = json.dumps({"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 100352}})
    parsed = core.qwen_vl.parse_rules(text, "preprocessor_config.json")
    assert (parsed.patch_size, parsed.image_max_pixels, parsed.fps) == (14, 100352, 2.0)


def test_analytic_cost_and_devices() -> None:
    names = [preset.name for preset in core.device_presets()]
    assert names == ["a100", "ascend-910b", "b200", "h100", "h200", "local-cpu"]
    text = core.read_model_config("qwen3-vl-2b").text
    one = core.analytic_cost(text, "config.json", device="ascend-910b")
    many = core.analytic_cost(text, "config.json", device="ascend-910b", ranks=8, freeze=core.Freeze(vit=True))
    assert many.state_bytes < one.state_bytes
    assert many.patch_s < one.patch_s
    whole = core.analytic_cost(text, "config.json", device="ascend-910b", recompute=core.Recompute.none)
    assert whole.backward.token_s < one.backward.token_s
    assert core.parse_freeze("llm,aligner", "here") == core.Freeze(aligner=True, llm=True)
    with pytest.raises(core.InputError, match=r"^config\.json: model_type: "):
        core.analytic_cost('{"model_type": "mamba"}', "config.json")
    with pytest.raises(core.InputError, match="neither a file nor a preset"):
        core.analytic_cost(text, "config.json", device="abacus")
    assert core.read_device("a100").memory_bytes == 80e9


def test_reprs_say_what_is_inside() -> None:
    assert repr(core.Sequence(3, 40)) == "Sequence(id=3, tokens=40, patches=0, frame_patches=0)"
    assert repr(core.Task(1, [0, 2], [5])) == (
        "Task(id=1, ranks=[0, 2], sequences=[5], micro_batch=0, exchange=Exchange.ring, start_s=None, end_s=None)"
    )
    assert repr(batch_of(7)) == "Batch(sequences=[Sequence(id=0, tokens=7, patches=0, frame_patches=0)])"
    assert repr(batch_of(*range(1, 10))) == "Batch(sequences=[9 values])"
    link = "Link(bandwidth_bytes_per_s=10000000000.0, latency_s=1e-05, links=1)"
    assert f"intra_node={link}, inter_node={link}" in repr(CLUSTER)


def test_stubs_are_installed_with_the_module() -> None:
    folder = Path(core.__file__).parent
    assert (folder / "py.typed").exists()
    stub = (folder / "_core" / "__init__.pyi").read_text()
    assert "def try_plan(" in stub
    assert re.search(r"\nfrom \. import .*\bqwen_vl\b", stub)
    assert "def image_grid(" in (folder / "_core" / "qwen_vl.pyi").read_text()


def test_simulate_as_the_command_does() -> None:
    batch = batch_of(3000, 200, 1500, 70, 900, 9000)
    cluster = core.Cluster(2, 3, 4e9, LINK, LINK, node_bandwidth_bytes_per_s=2e9, switch_bandwidth_bytes_per_s=3e9)
    assert core.parse_cluster(core.to_json(cluster), "copy") == cluster
    cost = core.parse_cost_model(core.to_json(COST), "copy")
    cost.gradient_bytes, cost.optimizer_s = 2e9, 0.25
    assert core.parse_cost_model(core.to_json(cost), "copy") == cost != COST
    plan = core.try_plan(batch, cluster, cost, planner="free")
    assert isinstance(plan, core.Plan)
    simulation = core.simulate(plan, batch, cluster, cost, steps=3, noise=0.1, planning_s=0.5, record=True)
    step = simulation.steps[0]
    assert step.tasks_end_s < step.reduce_end_s < step.optimizer_end_s == step.seconds
    assert step.optimizer_end_s - step.reduce_end_s == pytest.approx(0.25)
    for rank in step.ranks:
        spent = rank.compute_s + rank.idle.total_s + rank.reduce_s + rank.optimizer_s
        assert spent == pytest.approx(step.seconds)
    written = json.loads(core.result_json(simulation, plan, batch, cluster, cost))
    assert [one["tasks_s"] for one in written["steps"]] == [one.tasks_end_s for one in simulation.steps]
    assert json.loads(core.chrome_trace(simulation, plan, batch, cluster, cost))["traceEvents"]
    with pytest.raises(ValueError, match="noise"):
        core.simulate(plan, batch, cluster, cost, noise=2.0)
