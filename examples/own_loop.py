"""Your own training loop, built from DHP's public pieces.

make demo                                              once, for the model and the data
python examples/own_loop.py                            one rank
torchrun --nproc-per-node 4 examples/own_loop.py       four ranks
"""

import torch
from transformers import AutoModelForImageTextToText

import dhp

MODEL, DATA = "build/demo/model", "build/demo/train.jsonl"

with dhp.init() as run:
    model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32).to(run.device)
    data = dhp.Dataset(DATA, MODEL)
    cluster = dhp.local_cluster(run.world_size, capacity_tokens=2048)  # or dhp.read_cluster("cluster.json")
    cost = dhp.local_cost(MODEL, run.world_size, capacity_tokens=2048)
    adapter = dhp.attach(model, cluster=cluster)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(10):
        batch = data.batch(step, size=8)
        plan = dhp.plan(batch, cluster, cost, run=run)
        loss_sum = torch.zeros(())
        for task in dhp.tasks(plan):
            loss = adapter.loss(data.read(task, run.rank), task, data.label_tokens(batch))
            loss.backward()
            loss_sum += loss.item()
        dhp.reduce_gradients(model)
        optimizer.step()
        optimizer.zero_grad()
        run.sum(loss_sum)
        if run.rank == 0:
            print(f"step {step + 1}: loss {loss_sum.item():.4f}, groups of {[len(task.ranks) for task in plan.tasks]}")
