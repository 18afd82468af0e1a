"""Draws docs/batch_to_groups.svg: a batch of the demo, and the plan that DHP makes of it.

make demo && build/venv/bin/python docs/make_picture.py
"""

from pathlib import Path

from svg import box, page, text

import dhp
from dhp.settings.config import read_config

STEP, SEED = 12, 0  # the demo's thirteenth batch
COLOURS = {1: "#9aa5b1", 2: "#4c9f70", 3: "#d98e04", 4: "#c8553d"}  # by degree
LEFT, TOP, ROW, LANE = 20, 56, 17, 58
BATCH_WIDTH, PLAN_LEFT, PLAN_WIDTH = 260, 400, 560

settings = read_config("examples/demo.toml")
data = dhp.Dataset(settings.data, settings.model)
batch = data.batch(STEP, settings.global_batch_size, SEED)
capacity = settings.capacity_tokens
plan = dhp.plan(
    batch,
    dhp.local_cluster(settings.ranks, capacity_tokens=capacity),
    dhp.local_cost(settings.model, settings.ranks, recompute=settings.recomputed != "none", capacity_tokens=capacity),
    planner=settings.planner,
)
degree = {sequence: len(task.ranks) for task in plan.tasks for sequence in task.sequences}
sequences = sorted(batch.sequences, key=lambda s: -s.tokens)
longest, height = sequences[0].tokens, TOP + ROW * len(sequences) + 30

parts = [text(LEFT, 24, f"a batch: {len(sequences)} samples, {sequences[-1].tokens} to {longest:,} tokens", size=15)]
for row, sequence in enumerate(sequences):
    kinds = {medium.kind for medium in data.sample(sequence.id).media} or {"text"}
    y, width = TOP + ROW * row, max(2.0, BATCH_WIDTH * sequence.tokens / longest)
    label = f"{sequence.tokens:,} {' + '.join(sorted(kinds))}"
    parts.append(box(LEFT, y, width, ROW - 3, COLOURS[degree[sequence.id]], label))
    inside = width > 150
    at, colour = (LEFT + 8, "white") if inside else (LEFT + width + 6, "#57606a")
    parts.append(text(at, y + 11, label, size=11, colour=colour))

parts.append(text(PLAN_LEFT, 24, f"its plan: {plan.ranks} ranks of {capacity} tokens, groups of any size", size=15))
makespan = plan.predicted.makespan_s
for rank in range(plan.ranks):
    y = TOP + LANE * rank
    parts.append(text(PLAN_LEFT, y + LANE / 2, f"rank {rank}"))
    for task in plan.tasks:
        if rank in task.ranks:
            x = PLAN_LEFT + 50 + (PLAN_WIDTH - 50) * task.start_s / makespan
            width = (PLAN_WIDTH - 50) * (task.end_s - task.start_s) / makespan
            lengths = [s.tokens for s in batch.sequences if s.id in task.sequences]
            listed = " + ".join(f"{tokens:,}" for tokens in lengths)
            parts.append(box(x, y, width, LANE - 8, COLOURS[len(task.ranks)], f"task {task.id}: {listed} tokens"))
            label = f"{lengths[0]:,}" if len(lengths) == 1 else f"{len(lengths)} samples"
            if width > 7 * len(label):
                middle = x + width / 2, y + LANE / 2
                parts.append(text(*middle, label, size=11, anchor="middle", colour="white"))
y = TOP + LANE * plan.ranks + 16
for i, (size, colour) in enumerate(COLOURS.items()):
    parts.append(box(PLAN_LEFT + 50 + 130 * i, y, 14, 14, colour, ""))
    parts.append(text(PLAN_LEFT + 70 + 130 * i, y + 12, f"{size} rank" + ("s" if size > 1 else " alone")))

svg = page(PLAN_LEFT + PLAN_WIDTH + 20, height, parts)
Path("docs/batch_to_groups.svg").write_text(svg)
print(f"docs/batch_to_groups.svg: groups {[len(task.ranks) for task in plan.tasks]}, makespan {makespan:.2f} s")
