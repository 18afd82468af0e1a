"""Ranks that SLURM's `srun` starts: what its variables say of a rank, in those that torchrun sets.

They are those of the job step (slurm.schedmd.com/srun.html), not of the job: in a batch script, outside `srun`, they
are unset.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping

from dhp._core import InputError

FIRST_PORT, PORTS = 20000, 10000


def adopt(environment: MutableMapping[str, str]) -> None:
    """Sets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT in one of several tasks of a
    step, unless RANK is set. The first host of the step is the address, and a number of the job the port, unless set.
    Raises InputError for a variable that is missing or not as SLURM writes it."""
    if "RANK" in environment or environment.get("SLURM_STEP_NUM_TASKS", "1") == "1":
        return
    numbers = ("STEP_NUM_TASKS", "PROCID", "LOCALID", "NODEID", "JOB_ID", "STEP_ID")
    tasks, rank, local_rank, node, job, step = (_number(environment, f"SLURM_{name}") for name in numbers)
    per_node = _per_node(environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    if node >= len(per_node):
        raise InputError(f"environment: SLURM_NODEID: found {node}, but SLURM_STEP_TASKS_PER_NODE has {len(per_node)}")
    environment.setdefault("MASTER_ADDR", first_host(environment.get("SLURM_STEP_NODELIST", "")))
    environment.setdefault("MASTER_PORT", str(FIRST_PORT + (job + step) % PORTS))
    environment.update(
        RANK=str(rank),
        WORLD_SIZE=str(tasks),
        LOCAL_RANK=str(local_rank),
        LOCAL_WORLD_SIZE=str(per_node[node]),
    )


def first_host(nodes: str) -> str:
    """Of a list of SLURM's, "rack[1-2]n[03,07-09],login": "rack1n03"."""
    if not (first := re.match(r"(?:[^,\[\]]|\[\d[^\]]*\])+", nodes)):
        raise InputError(f"environment: SLURM_STEP_NODELIST: found {nodes!r}, expected a list of hosts")
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first[0])


def _per_node(tasks: str) -> list[int]:
    """Of "8(x2),4": [8, 8, 4]."""
    counts = []
    for part in tasks.split(","):
        if not (match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)):
            raise InputError(f"environment: SLURM_STEP_TASKS_PER_NODE: found {tasks!r}, expected like 8(x2),4")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _number(environment: MutableMapping[str, str], name: str) -> int:
    if not re.fullmatch(r"\d+", value := environment.get(name, "")):
        raise InputError(
            f"environment: {name}: found {value!r} in a step of several tasks (SLURM_STEP_NUM_TASKS); start ranks with "
            "srun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
        )
    return int(value)
