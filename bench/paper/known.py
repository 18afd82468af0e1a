"""What is known of the paper's evaluation (arXiv 2602.21788), here from notes on its text and figures.

Only these figures were found; of Figure 4 five of 18 cells. Testbed: 8 nodes of 8 Ascend 910B (64 GB), 100 Gb/s between
nodes, global batch 512, baselines Megatron-LM (ring context parallelism) and DeepSpeed-Ulysses, both tuned.
"""

from __future__ import annotations

# Figure 4: throughput of DHP over the better baseline.
FIGURE_4 = {
    ("internvl3-8b", "openvid"): 1.35,
    ("internvl3-8b", "msrvtt"): 1.14,
    ("qwen3-vl-8b", "openvid"): 1.32,
    ("internvl2.5-4b", "openvid"): 1.28,
    ("qwen3-vl-2b", "openvid"): 1.22,
}
FIGURE_4_MOST = 1.36
FIGURE_4_ABOVE_1_2 = (14, 18)  # cells above 1.2, of all

# Figure 5: thousand tokens per second and device at 8 and at 64 devices; read off, and another note contradicts it.
FIGURE_5 = {"paper": (1.8, 2.1), "ulysses": (2.0, 1.7), "static": (1.8, 1.52)}

# Case study: degree -> groups of one micro-batch on 32 ranks, and the speed-up there.
CASE_STUDY = {"openvid": ({8: 1, 6: 2, 4: 1, 2: 2, 1: 4}, 1.17), "msrvtt": ({4: 2, 3: 4, 2: 6}, 1.14)}

# Second version: "extremely unbalanced" batches; what they hold is not known here.
UNBALANCED = 2.24

# Planning: milliseconds of the solver and of all scheduling, by global batch (64 devices) and by devices (512).
SOLVER_MS_BY_BATCH = {128: 21, 512: 86}
SCHEDULING_MS_BY_BATCH = {128: 468, 512: 921}
SCHEDULING_MS_BY_RANKS = {16: 294, 32: 549, 64: 921}

# Mean error of the estimator, per cent.
ESTIMATOR_ERROR = {
    "qwen3-vl-2b": 7.93,
    "qwen3-vl-4b": 6.71,
    "qwen3-vl-8b": 4.27,
    "internvl3-2b": 7.48,
    "internvl3-4b": 6.54,
    "internvl3-8b": 4.12,
}
