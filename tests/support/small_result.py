"""A result small enough to work everything out by hand."""

import copy
import json
from typing import Any

from dhp.watch.result import Result, parse_result

# Two ranks, two steps.
SMALL: dict[str, Any] = {
    "format": "dhp.result/1",
    "kind": "simulated",
    "name": "small",
    "planner": "free",
    "ranks": 2,
    "ranks_per_node": 2,
    "clock": "simulated",
    "steps": [
        {
            "step": 1, "seconds": 4.0, "tasks_s": 3.5, "predicted_s": 3.0, "lower_bound_s": 2.5, "tokens": 1000,
            "planning_s": 0.002, "idle_s": {"peer": 0.5, "transfer": 0.25, "data": 0.0, "no_task": 1.0},
        },
        {
            "step": 2, "seconds": 6.0, "tasks_s": 5.5, "predicted_s": 5.5, "lower_bound_s": 5.5, "tokens": 3000,
            "planning_s": 0.004, "idle_s": {"peer": 0.5, "transfer": 0.0, "data": 0.0, "no_task": 0.0},
        },
    ],
    "tasks": [
        {"step": 1, "id": 0, "degree": 2, "sequences": 1, "tokens": 700, "predicted_s": 1.0, "seconds": 1.25},
        {"step": 1, "id": 1, "degree": 1, "sequences": 3, "tokens": 300, "predicted_s": 2.2, "seconds": 2.0},
    ],
    "timeline": {
        "step": 1,
        "spans": [
            {"rank": 1, "kind": "peer", "start_s": 0.0, "end_s": 0.5, "task": 0},
            {"rank": 0, "kind": "compute", "start_s": 0.0, "end_s": 2.0, "task": 1},
            {"rank": 0, "kind": "compute", "start_s": 2.0, "end_s": 3.0, "task": 0},
            {"rank": 0, "kind": "transfer", "start_s": 3.0, "end_s": 3.25, "task": 0},
            {"rank": 1, "kind": "compute", "start_s": 2.0, "end_s": 3.25, "task": 0},
            {"rank": 0, "kind": "reduce", "start_s": 3.5, "end_s": 4.0},
            {"rank": 1, "kind": "reduce", "start_s": 3.5, "end_s": 4.0},
        ],
    },
    "memory": {
        "budget_bytes": 4.0,
        "peak_bytes": [3.0, 2.0],
        "over_time": [
            {"rank": 0, "time_s": 0.0, "bytes": 0.0},
            {"rank": 0, "time_s": 2.0, "bytes": 3.0},
            {"rank": 1, "time_s": 1.0, "bytes": 2.0},
            {"rank": 1, "time_s": 2.0, "bytes": 1.0},
        ],
    },
    "lengths": [700, 100, 100, 100],
}  # fmt: skip


def parsed(document: dict[str, Any], source: str = "r.json") -> Result:
    return parse_result(json.dumps(document), source)


def changed(document: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """A copy with one value replaced; `...` deletes it."""
    result: Any = copy.deepcopy(document)
    at = result
    for key in path[:-1]:
        at = at[key]
    if value is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return result
