"""Writes megatron_schedules.json: what the two schedulers of Megatron-Core answer to random batches.

    git clone https://github.com/NVIDIA/Megatron-LM && python make_megatron_schedules.py Megatron-LM

reads the files of two commits from that clone (below), runs their own functions on the CPU without torch, and keeps the
numbers: for every round the groups as [first rank, degree, [places of the samples]], or the name of the exception.
"""

import importlib.machinery
import json
import math
import random
import subprocess
import sys
import types
from pathlib import Path

HYBRID = ("d98e8a64ddf34856e74b24714e3bedb2f5a39553", "megatron/core/pipeline_parallel/hybrid_cp_schedule.py")
DYNAMIC = ("d48bd6be0a85cc0d6d3cc71e8750cf357cc6bdb1", "megatron/core/datasets/data_schedule_utils.py")
SEED = 20


class Anything(types.ModuleType):
    """Stands for a module that the scheduling functions do not touch."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name)

    def __call__(self, *args, **kwargs):
        return args[0] if args and callable(args[0]) else self

    def __or__(self, other):
        return self

    __ror__ = __or__

    def __getitem__(self, key):
        return self


class Stubs:
    """Finds torch and everything of megatron, as Anything."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "megatron"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Anything(spec.name)

    def exec_module(self, module):
        pass


def load(clone, commit, path):
    source = subprocess.run(
        ["git", "-C", clone, "show", f"{commit}:{path}"], check=True, capture_output=True, text=True
    )
    module = types.ModuleType(Path(path).stem)
    exec(compile(source.stdout, path, "exec"), module.__dict__)
    return module


def hybrid(module, lengths, ranks, tokens_per_rank):
    group = types.SimpleNamespace(size=lambda: ranks)
    scheduler = module.BalancedCPScheduler(tokens_per_rank, group)
    return scheduler.get_groups_and_subsamples(list(enumerate(lengths)), None)[1]


def dynamic(module, lengths, ranks, tokens_per_rank):
    left = sorted(enumerate(lengths), key=lambda one: one[1], reverse=True)
    rounds = []
    while left:
        _, left, _, places = module.next_hdp_group_packing_aware(left, ranks, tokens_per_rank)
        rounds.append(places)
    return rounds


def groups_of(per_rank):
    """Ranks that list the same samples are a group."""
    groups = []
    for rank, places in enumerate(per_rank):
        if places and groups and groups[-1][2] == places:
            groups[-1][1] += 1
        elif places:
            groups.append([rank, 1, list(places)])
    return groups


def random_lengths(rng, ranks, tokens_per_rank):
    count = rng.choice([1, 2, 3, 5, 8, 13, 21, 34, 55])
    longest = ranks * tokens_per_rank
    kind = rng.randrange(4)
    if kind == 0:
        return [rng.randint(1, longest) for _ in range(count)]
    if kind == 1:
        return [rng.randint(1, max(1, tokens_per_rank // 2)) for _ in range(count)]
    if kind == 2:
        return [min(longest, max(1, round(rng.lognormvariate(math.log(tokens_per_rank), 1.3)))) for _ in range(count)]
    steps = [max(1, tokens_per_rank * 2**k // 8) for k in range(9)]  # exactly at the edges, and many equal
    return [min(longest, rng.choice(steps)) for _ in range(count)]


def main():
    clone = sys.argv[1]
    sys.meta_path.insert(0, Stubs())
    schedulers = {
        "megatron-hybrid": (hybrid, load(clone, *HYBRID)),
        "megatron-dynamic": (dynamic, load(clone, *DYNAMIC)),
    }
    rng = random.Random(SEED)
    cases = []
    for number in range(120):
        ranks = rng.choice([2, 4, 8, 8, 16, 32, 64]) if number < 90 else rng.choice([6, 10, 12, 14, 24])
        tokens_per_rank = rng.choice([100, 512, 1000, 4096])
        lengths = random_lengths(rng, ranks, tokens_per_rank)
        for name, (schedule, module) in schedulers.items():
            case = {"planner": name, "ranks": ranks, "tokens_per_rank": tokens_per_rank, "lengths": lengths}
            try:
                case["rounds"] = [groups_of(per_rank) for per_rank in schedule(module, lengths, ranks, tokens_per_rank)]
            except (AssertionError, IndexError) as error:
                case["raises"] = type(error).__name__
            cases.append(case)
    commits = {"megatron-hybrid": HYBRID, "megatron-dynamic": DYNAMIC}
    rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    text = (
        f'{{"source": "NVIDIA/Megatron-LM", "files": {json.dumps(commits)}, "seed": {SEED}, "cases": [\n{rows}\n]}}\n'
    )
    Path(__file__).with_name("megatron_schedules.json").write_text(text)


if __name__ == "__main__":
    main()
