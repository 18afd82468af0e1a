"""DHP in a program that already has a process group: from Accelerate, Trainer, Megatron or FSDP, or its own, as here.

make demo                                                       once, for the model and the data
torchrun --nproc-per-node 4 examples/join_existing_group.py
"""

import torch
import torch.distributed as dist
from transformers import AutoModelForImageTextToText

import dhp

MODEL, DATA = "build/demo/model", "build/demo/train.jsonl"

dist.init_process_group("gloo")  # or Accelerator(), or initialize_model_parallel()
with dhp.join() as run:  # dhp.join(members=[3, 0, 2]) trains on these alone: all call it, the others skip what DHP does
    model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32).to(run.device)
    data = dhp.Dataset(DATA, MODEL)
    cluster = dhp.local_cluster(run.world_size, capacity_tokens=2048)
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
        with run.at(f"step {step + 1}, logging"):  # a rank that is lost in here is named, too
            dist.all_reduce(loss_sum)  # the program's own collective
        if run.rank == 0:
            print(f"step {step + 1}: loss {loss_sum.item():.4f}, groups of {[len(task.ranks) for task in plan.tasks]}")
dist.destroy_process_group()
