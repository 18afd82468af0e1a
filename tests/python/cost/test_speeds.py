"""Speeds of ranks, from what each member of a task took."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from dhp._core import Sequence
from dhp.cost.fit import TermSeconds
from dhp.cost.speeds import (
    LEAST_ERROR,
    MemberTimes,
    SpeedHistory,
    TimedTask,
    clipped,
    learn,
    member_estimates_s,
    speeds_of,
)

TERMS = TermSeconds(
    task_s=0.5, patch_s=3.0, token_s=2.0, pair_s=0.1, step_s=7.0, sequence_step_s=0.25, patch_pair_s=0.01
)


def made_tasks(
    count: int, ranks: int, factor: Callable[[int], float], noise: float, seed: int
) -> tuple[list[TimedTask], list[np.ndarray]]:
    """Tasks of 1 to 4 random ranks whose members take `factor(rank)` times their estimates, give or take `noise`. What
    is common to a task's members is noise, too."""
    random = np.random.default_rng(seed)
    tasks, estimates = [], []
    for _ in range(count):
        group = random.permutation(ranks)[: random.integers(1, min(4, ranks) + 1)].tolist()
        estimate = np.exp(random.uniform(0, 2)) * np.ones(len(group))
        off = np.exp(noise * random.standard_normal(len(group)))
        own = tuple((estimate * off * [factor(rank) for rank in group]).tolist())
        nothing = (0.0,) * len(group)
        tasks.append(TimedTask([Sequence(0, 9)], tuple(group), MemberTimes(own, nothing, nothing)))
        estimates.append(estimate)
    return tasks, estimates


def learned(tasks: list[TimedTask], estimates: list[np.ndarray], ranks: int) -> SpeedHistory:
    return learn(SpeedHistory.empty(ranks), tasks, estimates)


def test_the_estimate_of_a_member_is_that_of_its_own_frames() -> None:
    # 2 sequences of 30 + 50 tokens on 2 ranks; 3 frames of 4 patches, two of them on the first rank:
    # 0.5 + 2*80/2 + 0.1*(900+2500)/4 + 2*(7 + 2*0.25) = 180.5; 3*8 + 0.01*32 and 3*4 + 0.01*16 more
    times = MemberTimes((1.0, 1.0), (8.0, 4.0), (32.0, 16.0))
    task = TimedTask([Sequence(0, 30), Sequence(1, 50, 12, 4)], (3, 1), times)
    alone = TimedTask([Sequence(0, 10)], (0,), MemberTimes((1.0,), (0.0,), (0.0,)))
    first, second = member_estimates_s(TERMS, [task, alone])
    assert first == pytest.approx([204.82, 192.66], rel=1e-14)
    assert second == pytest.approx([0.5 + 20 + 5 + 7.25], rel=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_a_slow_rank_is_found_within_its_standard_error(seed: int) -> None:
    """Rank 5 of 8 is 6 % slow; single seconds are off by 4 %; estimates by 30 % all alike."""
    tasks, estimates = made_tasks(200, 8, lambda rank: 1.3 / (0.94 if rank == 5 else 1.0), 0.04, seed)
    history = learned(tasks, estimates, 8)
    own = [e[list(t.ranks).index(5)] for t, e in zip(tasks, estimates, strict=True) if 5 in t.ranks]
    error = 0.04 * math.sqrt(sum(own)) / sum(math.sqrt(e) for e in own)  # of a mean weighted by roots, by hand
    assert history.precision[5] ** -0.5 == pytest.approx(error, rel=0.25)
    assert history.log_speed[5] == pytest.approx(math.log(0.94), abs=3 * error)
    speeds = speeds_of(history, [1.0] * 8)
    assert speeds[5] == pytest.approx(0.94, abs=3 * error)
    assert max(speeds) == 1.0 and sorted(speeds)[1] >= 0.98


@pytest.mark.parametrize("seed", range(10))
def test_ranks_that_are_alike_stay_so(seed: int) -> None:
    tasks, estimates = made_tasks(300, 8, lambda _: 0.7, 0.05, seed)
    assert min(speeds_of(learned(tasks, estimates, 8), [1.0] * 8)) >= 0.98
    tasks, estimates = made_tasks(300, 8, lambda _: 0.7, 0.0, seed)
    assert speeds_of(learned(tasks, estimates, 8), [1.0] * 8) == [1.0] * 8


@pytest.mark.parametrize("seed", range(5))
def test_what_only_one_rank_does_says_little_of_it(seed: int) -> None:
    """Estimates are 4 % too low for groups of 3, which ranks 0 to 2 always run, and exact for rank 3, always alone."""
    random = np.random.default_rng(seed)
    tasks, estimates = [], []
    for number in range(80):
        group = (0, 1, 2) if number % 2 else (3,)
        own = tuple(((1.04 if number % 2 else 1.0) * np.exp(0.01 * random.standard_normal(len(group)))).tolist())
        tasks.append(TimedTask([Sequence(0, 9)], group, MemberTimes(own, (0.0,) * len(group), (0.0,) * len(group))))
        estimates.append(np.ones(len(group)))
    assert min(speeds_of(learned(tasks, estimates, 4), [1.0] * 4)) >= 0.975
    # Where rank 2 does both, the three alike are told from groups that are slow.
    swapped = [TimedTask(t.sequences, (2,), t.members) if i % 4 == 0 else t for i, t in enumerate(tasks)]
    assert min(speeds_of(learned(swapped, estimates, 4), [1.0] * 4)) >= 0.99
    # Within groups, speeds show all the same.
    slow = [
        TimedTask(t.sequences, t.ranks, MemberTimes((t.members.seconds[0] / 0.9, *t.members.seconds[1:]), (), ()))
        if len(t.ranks) == 3
        else t
        for t in tasks
    ]
    assert speeds_of(learned(slow, estimates, 4), [1.0] * 4)[0] == pytest.approx(0.9, abs=0.02)


def test_exact_seconds_give_exact_speeds() -> None:
    true = [1.0, 0.5, 0.9, 1.0, 0.8]
    tasks, estimates = made_tasks(100, 5, lambda rank: 1 / true[rank], 0.0, 1)
    history = learned(tasks, estimates, 5)
    # Against the median, which is 0.9; the least error stands for what was not measured.
    assert np.exp(history.log_speed) == pytest.approx([s / 0.9 for s in true], rel=1e-12)
    assert history.precision == pytest.approx([LEAST_ERROR**-2] * 5, rel=1e-12)
    # ranks 0 and 3: log(1/0.9) = 0.105 counts by 1 - (0.01/0.105)^2, and so on; then in steps of 0.005.
    assert speeds_of(history, [1.0] * 5) == [1.0, 0.5, 0.9, 1.0, 0.8]


def test_what_is_known_is_half_forgotten_each_time() -> None:
    one = made_tasks(100, 4, lambda rank: 1 / (0.9 if rank == 2 else 1), 0.0, 1)
    other = made_tasks(100, 4, lambda _: 1.0, 0.0, 2)
    first = learned(*one, 4)
    assert first.log_speed[2] == pytest.approx(math.log(0.9))
    second = learn(first, *other)
    # Half of the first precision and a whole of the second.
    assert second.log_speed[2] == pytest.approx(math.log(0.9) / 3)
    assert second.precision[2] == pytest.approx(1.5 * LEAST_ERROR**-2)


def test_outliers_count_as_three_spreads() -> None:
    classes = np.array([0] * 5 + [1] * 3 + [2])
    values = np.array([0.0, 0.1, -0.1, 0.2, 9.0, 5.0, 5.1, 5.3, 7.0])
    # From the medians 0.1, 5.1, 7: off by .1 0 .2 .1 8.9, .1 0 .2; their median .1. The last is alone.
    spread = 3 * 1.4826 * 0.1
    assert clipped(values, classes) == pytest.approx([0.0, 0.1, -0.1, 0.2, 0.1 + spread, 5.0, 5.1, 5.3, 7.0])
    tasks, estimates = made_tasks(200, 4, lambda rank: 1 / (0.94 if rank == 1 else 1), 0.01, 5)
    odd = [TimedTask(t.sequences, t.ranks, MemberTimes((99.0,) * len(t.ranks), (), ())) for t in tasks[:10]]
    assert speeds_of(learned(odd + tasks[10:], estimates, 4), [1.0] * 4)[1] == pytest.approx(0.94, abs=0.015)


def test_too_little_says_nothing() -> None:
    tasks, estimates = made_tasks(100, 4, lambda rank: 1 + rank, 0.0, 3)
    nothing = SpeedHistory.empty(4)
    assert learn(nothing, [], []) == nothing
    assert learn(nothing, tasks[:2], estimates[:2]) == nothing
    single = TimedTask([Sequence(0, 9)], (2,), MemberTimes((1.0,), (0.0,), (0.0,)))
    assert learn(nothing, [single] * 50, [np.ones(1)] * 50) == nothing  # nobody to compare it with
    unseen = TimedTask([Sequence(0, 9)], (0, 1), MemberTimes((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)))
    assert learn(nothing, [unseen] * 50, [np.ones(2)] * 50) == nothing  # no clock
    assert speeds_of(nothing, [1.0, 0.5, 0.0, 1.0]) == [1.0, 0.5, 0.0, 1.0]


def test_what_is_given_is_believed_until_seconds_say_otherwise() -> None:
    given = [1.0, 0.9, 0.0, 1.0]  # rank 2 is out of service: it has no tasks
    three = [0, 1, 3]
    tasks, estimates = made_tasks(100, 3, lambda place: 1 / given[three[place]], 0.0, 4)
    tasks = [TimedTask(t.sequences, tuple(three[r] for r in t.ranks), t.members) for t in tasks]
    assert speeds_of(learned(tasks, estimates, 4), given) == given
    assert speeds_of(learned(tasks, estimates, 4), [1.0, 1.0, 0.0, 1.0]) == [1.0, 0.9, 0.0, 1.0]
    assert speeds_of(learned(tasks, estimates, 4), [0.5, 0.45, 0.0, 0.5]) == [0.5, 0.45, 0.0, 0.5]


def test_a_difference_counts_by_how_sure_it_is() -> None:
    # A standard error of 1 %: 2 % is nothing, 4 % counts 3/4, 10 % counts 96 %.
    true = [1.0, 1.0, 1.0, 1.0, 0.9, 0.96, 0.985]
    history = SpeedHistory(tuple(np.log(true).tolist()), (1e4,) * 7)
    # log 0.9 = -0.1054 counts by 1 - (0.02/0.1054)^2: 0.9034; log 0.96 = -0.0408 by 0.76: 0.9694; steps of 0.005.
    assert speeds_of(history, [1.0] * 7) == [1.0, 1.0, 1.0, 1.0, 0.905, 0.97, 1.0]
    slow = SpeedHistory((0.0, 0.0, -9.0), (1e6,) * 3)
    assert speeds_of(slow, [1.0] * 3) == [1.0, 1.0, 0.05]  # never out of service
