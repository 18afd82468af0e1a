"""The numbers of a report: one `Summary` a result, and in words what limits each."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from dhp.watch.result import CAUSES, KINDS, SPANS, Result, Step

CLEAR_SHARE = 0.03  # of all rank time: what is worth a sentence
CLEAR_ERROR = 0.10  # of the time: estimates that are worth a sentence
OTHER_WORK = ("reduce", "optimizer", "save")
LONGEST_NAME = 200

CAUSE_NAMES = {
    "peer": "waiting for a peer",
    "transfer": "waiting for a transfer",
    "data": "waiting for data",
    "no_task": "no task",
}
REMEDIES = {
    "peer": "ranks wait for the other members of their groups; without barriers, or in narrower groups, they wait less",
    "transfer": "exchanged shards are not hidden behind computing; more bandwidth or narrower groups help",
    "data": "the input comes too late; read from faster storage or make decoding cheaper",
    "no_task": "some ranks run out of work before the step ends; a plan that spreads it more evenly helps",
}


@dataclass(frozen=True)
class Errors:
    """How far estimates were from what was measured: relative errors, predicted / measured - 1."""

    count: int
    mean_absolute: float
    percentile95: float  # of the absolute errors
    bias: float  # mean; above 0: estimates too high


@dataclass
class Summary:
    """A result in numbers. None: the result does not tell.

    Means are over `steps`: all, but for the first of a measured run, which also warms up. Shares are of all rank time,
    ranks x seconds.
    """

    label: str  # the name, made unique among the results of the page
    file: str
    planner: str
    ranks: int
    kind: str
    clock: str
    steps: int
    warm_up_left_out: bool
    step_s: float
    step_least_s: float
    step_most_s: float
    predicted_s: float | None  # of the tasks, without errors of estimates
    expected_s: float | None  # the same with them, on average
    lower_bound_s: float | None
    over_bound: float | None  # tasks (the whole step where these are not known) / bound - 1
    idle_share: float | None
    idle_shares: dict[str, float]  # a cause
    other_work_share: float | None  # gradients, optimizer and saving, in the step of the timeline
    tokens_per_s: float | None
    tokens_per_s_per_rank: float | None
    planning_s: float | None
    planning_most_s: float | None
    peak_memory_share: float | None  # of the budget, fullest rank
    task_errors: Errors | None
    step_errors: Errors | None
    speedup: float | None = None  # over `baseline`, same batches on as many ranks
    baseline: str | None = None
    verdict: str = ""
    counted: list[Step] = field(default_factory=list, repr=False)
    workload: tuple[Any, ...] = field(default=(), repr=False)

    def as_dict(self) -> dict[str, Any]:
        """For programs: all numbers, without the steps themselves."""
        numbers = asdict(self)
        del numbers["counted"], numbers["workload"]
        return numbers


def summarize(results: list[Result], baseline: str = "") -> list[Summary]:
    """A summary a result, in order. `baseline` names the result or planner that speed-ups are over; empty: the slowest
    of those with the same batches."""
    summaries = [_summary(result, label) for result, label in zip(results, labels(results), strict=True)]
    for peers in comparable(summaries):
        named = [s for s in peers if baseline and baseline in (s.label, s.planner)]
        slowest = max(named or peers, key=lambda s: s.step_s)
        for summary in peers:
            summary.speedup, summary.baseline = slowest.step_s / summary.step_s, slowest.label
    for result, summary in zip(results, summaries, strict=True):
        summary.verdict = verdict(result, summary)
    return summaries


def labels(results: list[Result]) -> list[str]:
    """Names of the results without what all of them, or all of one kind, share ("free, 64 ranks", "paper, 64 ranks":
    "free", "paper"). Where results of two kinds are then called the same, all have their kind added; those that
    still are have their file's name added, or else a number. A name is one line, of LONGEST_NAME characters at most."""
    names = [_one_line(result.name) or _one_line(result.planner) or PurePath(result.source).stem for result in results]
    names = without_shared_parts(names)
    for kind in KINDS:
        places = [i for i, result in enumerate(results) if result.kind == kind]
        for i, name in zip(places, without_shared_parts([names[i] for i in places]), strict=True):
            names[i] = name
    if len({(name, r.kind) for name, r in zip(names, results, strict=True)}) > len(set(names)):
        names = [f"{name}, {result.kind}" for name, result in zip(names, results, strict=True)]
    counts = Counter(names)
    names = [
        f"{name} ({PurePath(result.source).stem})" if counts[name] > 1 else name
        for name, result in zip(names, results, strict=True)
    ]
    counts, seen, unique = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        unique.append(f"{name} #{seen[name]}" if counts[name] > 1 else name)
    return unique


def _one_line(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


def without_shared_parts(names: list[str]) -> list[str]:
    """Names, made of parts with commas between, without the parts that stand in every name."""
    parts = [name.split(", ") for name in names]
    shared = set(parts[0]).intersection(*parts[1:]) if len(names) > 1 else set()
    own = [", ".join(part for part in some if part not in shared) for some in parts]
    return own if all(own) else names


def left_out_of_labels(results: list[Result], summaries: list[Summary]) -> str:
    """What all results of a kind share and their labels leave out, as a sentence; empty where nothing is left out."""
    said = []
    for kind in KINDS:
        of_kind = [(r, s) for r, s in zip(results, summaries, strict=True) if r.kind == kind]
        parts = [part for part in _one_line(of_kind[0][0].name).split(", ") if part] if len(of_kind) > 1 else []
        gone = [part for part in parts if not any(part in s.label.split(", ") for _, s in of_kind)]
        if gone and all(part in _one_line(r.name).split(", ") for part in gone for r, _ in of_kind):
            said.append(f"{kind}: {', '.join(gone)}")
    return f"Not in the names, since all share it: {'; '.join(said)}." if said else ""


def ordered(results: list[Result], summaries: list[Summary]) -> list[int]:
    """The order of the page: results of the same batches together, quickest first; where most were compared first."""
    first: dict[tuple[Any, ...], int] = {}
    for i, summary in enumerate(summaries):
        first.setdefault(summary.workload, i)
    counts = Counter(summary.workload for summary in summaries)

    def place(i: int) -> tuple[Any, ...]:
        workload = summaries[i].workload
        return -counts[workload], -summaries[i].ranks, first[workload], summaries[i].step_s, i

    return sorted(range(len(results)), key=place)


def comparable(summaries: list[Summary]) -> list[list[Summary]]:
    """Results whose step times may be compared: the same batches, as many ranks, the same clock; two or more each."""
    groups: dict[tuple[Any, ...], list[Summary]] = defaultdict(list)
    for summary in summaries:
        if summary.step_s > 0:
            groups[summary.workload].append(summary)
    return [group for group in groups.values() if len(group) > 1]


def _summary(result: Result, label: str) -> Summary:
    warm_up = result.kind == "measured" and len(result.steps) > 1
    counted = result.steps[1:] if warm_up else result.steps
    seconds = sum(step.seconds for step in counted)
    rank_s = seconds * result.ranks_in_service
    bound = _sum(step.lower_bound_s for step in counted)
    predicted = _sum(step.predicted_s for step in counted)
    expected = _sum(step.expected_s for step in counted)
    tokens = _sum(step.tokens for step in counted)
    planning = [step.planning_s for step in counted if step.planning_s is not None]
    shares = {}
    for cause in CAUSES:
        lost = [step.idle_s[cause] for step in counted if cause in step.idle_s]
        if lost and rank_s > 0:
            shares[cause] = sum(lost) / rank_s
    rate = tokens / seconds if tokens is not None and seconds > 0 else None
    memory = result.memory
    full = memory is not None and memory.peak_bytes is not None and bool(memory.budget_bytes)
    return Summary(
        label=label,
        file=result.source,
        planner=result.planner,
        ranks=result.ranks,
        kind=result.kind,
        clock=result.clock,
        steps=len(counted),
        warm_up_left_out=warm_up,
        step_s=seconds / len(counted),
        step_least_s=min(step.seconds for step in counted),
        step_most_s=max(step.seconds for step in counted),
        predicted_s=predicted / len(counted) if predicted else None,
        expected_s=expected / len(counted) if expected else None,
        lower_bound_s=bound / len(counted) if bound else None,
        over_bound=sum(_tasks_s(step) for step in counted) / bound - 1 if bound else None,
        idle_share=sum(shares.values()) if shares else None,
        idle_shares=shares,
        other_work_share=_other_work_share(result),
        tokens_per_s=rate,
        tokens_per_s_per_rank=rate / result.ranks_in_service if rate is not None else None,
        planning_s=sum(planning) / len(planning) if planning else None,
        planning_most_s=max(planning) if planning else None,
        peak_memory_share=float(memory.peak_bytes.max() / memory.budget_bytes) if full else None,  # type: ignore[union-attr]
        task_errors=task_errors(result, counted),
        step_errors=step_errors(counted),
        counted=counted,
        workload=(result.ranks, result.kind, result.clock, _batches(result, counted)),
    )


def _batches(result: Result, counted: list[Step]) -> tuple[Any, ...]:
    """What tells apart the batches of a run. A simulation repeats one batch: how often does not matter."""
    sizes = {step.tokens for step in counted}
    if result.kind == "simulated" and len(sizes) == 1:
        return (*sizes,)
    return tuple((step.step, step.tokens) for step in counted)


def why_not_comparable(summaries: list[Summary]) -> str:
    """Where `comparable` finds nothing: what keeps the two most alike results apart."""
    timed = [summary for summary in summaries if summary.step_s > 0]
    if len(timed) < 2:
        return "it takes two results with times of steps"
    one, other = min(itertools.combinations(timed, 2), key=lambda pair: len(_differences(*pair)))
    return f'no two results can be compared: "{one.label}" and "{other.label}" differ in ' + " and ".join(
        _differences(one, other)
    )


def _differences(one: Summary, other: Summary) -> list[str]:
    found = [
        f"{what} ({a} and {b})"
        for what, a, b in zip(("ranks", "kind", "clock"), one.workload, other.workload, strict=False)
        if a != b
    ]
    tokens = [{step.step: step.tokens for step in summary.counted} for summary in (one, other)]
    if one.workload[-1] != other.workload[-1] and tokens[0] != tokens[1]:
        common = tokens[0].keys() & tokens[1].keys()
        same = common and all(tokens[0][step] == tokens[1][step] for step in common)
        spans = [f"{min(steps)} to {max(steps)}" for steps in tokens]
        found.append(f"the steps that they hold ({spans[0]}, {spans[1]})" if same else "batches")
    return found


def _tasks_s(step: Step) -> float:
    """What predictions and bounds are of; the whole step where that is not known."""
    return step.seconds if step.tasks_s is None else step.tasks_s


def _sum(values: Any) -> Any:
    """The sum, or None if a value is missing."""
    numbers = list(values)
    return None if any(number is None for number in numbers) else sum(numbers)


def _other_work_share(result: Result) -> float | None:
    if result.timeline is None:
        return None
    spans = result.timeline.spans
    step_s = next((step.seconds for step in result.steps if step.step == result.timeline.step), 0.0)
    if step_s <= 0:
        return None
    other = np.isin(spans["kind"], [SPANS.index(kind) for kind in OTHER_WORK])
    return float((spans["end_s"] - spans["start_s"])[other].sum() / (step_s * result.ranks_in_service))


def compare_times(predicted: np.ndarray, measured: np.ndarray) -> Errors | None:
    """Errors of the pairs in which both are above 0; None if there is none."""
    both = (predicted > 0) & (measured > 0)  # False for NaN
    if not both.any():
        return None
    error = predicted[both] / measured[both] - 1
    size = np.abs(error)
    return Errors(int(both.sum()), float(size.mean()), float(np.percentile(size, 95)), float(error.mean()))


def counted_tasks(result: Result, counted: list[Step]) -> np.ndarray:
    """Which tasks belong to the counted steps, as a mask."""
    assert result.tasks is not None
    return np.isin(result.tasks["step"], [step.step for step in counted])


def task_errors(result: Result, counted: list[Step]) -> Errors | None:
    if result.tasks is None:
        return None
    mask = counted_tasks(result, counted)
    return compare_times(result.tasks["predicted_s"][mask], result.tasks["seconds"][mask])


def step_errors(counted: list[Step]) -> Errors | None:
    """Of what the plan predicted against the tasks' part of the step (the whole step where that is not known)."""
    pairs = step_pairs(counted)
    return compare_times(pairs[:, 0], pairs[:, 1]) if pairs.size else None


def step_pairs(counted: list[Step]) -> np.ndarray:
    """[n, 2] predicted and actual seconds of the steps that have both."""
    pairs = [(step.predicted_s, _tasks_s(step)) for step in counted if step.predicted_s is not None]
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)


def percent(share: float) -> str:
    """ "0.6 %", "17 %"."""
    value = share * 100
    return f"{value:.1f} %" if abs(value) < 9.95 else f"{value:,.0f} %"


def seconds_text(seconds: float) -> str:
    """Three digits and a unit: "19.2 s", "850 ms", "4.2 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 0.9995 or unit == "µs":
            value = seconds * scale
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:,.{digits}f} {unit}"
    return ""


def verdict(result: Result, summary: Summary) -> str:
    """What limits the run, in a few plain sentences."""
    said = [_step_sentence(summary), _estimate_sentence(summary), _limit_sentence(summary)]
    if summary.planning_s is not None and summary.planning_s > summary.step_s:
        said.append(f"Planning takes {seconds_text(summary.planning_s)}, longer than the step it should hide behind.")
    if summary.peak_memory_share is not None and summary.peak_memory_share > 1:
        said.append(
            f"The fullest rank needs {percent(summary.peak_memory_share)} of its memory budget: it does not fit."
        )
    return " ".join(sentence for sentence in said if sentence)


def _step_sentence(summary: Summary) -> str:
    text = f"A step takes {seconds_text(summary.step_s)}"
    tasks_s = sum(map(_tasks_s, summary.counted)) / len(summary.counted)
    if summary.over_bound is None:
        return text + "."
    if summary.over_bound < 0:
        return text + (
            f", {percent(-summary.over_bound)} below the bound: the cost file expects more than this run took, so "
            "measure it anew."
        )
    if seconds_text(tasks_s) != seconds_text(summary.step_s):
        text += f", its tasks {seconds_text(tasks_s)}"
    return text + f", {percent(summary.over_bound)} above the bound that no plan beats."


def _estimate_sentence(summary: Summary) -> str:
    errors = summary.task_errors or summary.step_errors
    if errors is None or abs(errors.bias) <= CLEAR_ERROR:
        return ""
    what = "Tasks" if summary.task_errors else "Steps"
    way, factor = ("shorter", 1 + errors.bias) if errors.bias > 0 else ("longer", 1 / (1 + errors.bias))
    return f"{what} are {way} than predicted by a factor of {factor:.2f}, so calibrate the cost file."


def _limit_sentence(summary: Summary) -> str:
    if summary.idle_share is None:
        return ""
    other = summary.other_work_share or 0.0
    said = {f"{percent(share)} of all rank time is lost {_lost(cause)}: {REMEDIES[cause]}.": share
            for cause, share in summary.idle_shares.items()}  # fmt: skip
    said[f"Gradients, optimizer and saving take {percent(other)}: larger batches share that among more tokens."] = other
    if summary.lower_bound_s:
        # What is left when waits and the update are taken away, in seconds as estimated, against the bound.
        estimate = 1 + summary.task_errors.bias if summary.task_errors else 1.0
        longer = (1 - summary.idle_share - other) * summary.step_s / summary.lower_bound_s * estimate - 1
        said[
            f"Tasks compute {percent(longer)} longer than the bound counts: groups are wider than they need to be."
        ] = longer
    large = sorted((text for text in said if said[text] >= CLEAR_SHARE), key=lambda text: -said[text])
    if large:
        return " ".join(large[:2])
    return (
        f"Computing limits it: ranks wait {percent(summary.idle_share)} of the time. "
        "Only faster or more ranks, or less work, make it quicker."
    )


def _lost(cause: str) -> str:
    return {"no_task": "to ranks without a task"}.get(cause, CAUSE_NAMES[cause])


def headline(summaries: list[Summary]) -> str:
    """One sentence over the whole page."""
    groups = comparable(summaries)
    if groups:
        group = max(groups, key=lambda some: (len(some), some[0].ranks))
        fastest, slowest = min(group, key=lambda s: s.step_s), max(group, key=lambda s: s.step_s)
        if fastest.speedup and fastest.step_s < slowest.step_s:
            gain = slowest.step_s / fastest.step_s
            return f"{fastest.label} is fastest: {gain:.2f} times as fast as {slowest.label}, on the same batches."
    if len(summaries) == 1:
        return f"{summaries[0].label}: {seconds_text(summaries[0].step_s)} a step."
    return f"{len(summaries)} results."
