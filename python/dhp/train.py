"""`dhp train`: trains a vision-language model on local ranks or under torchrun. `train` below is the whole loop."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from typing import Any

# Ranks are forked: a tokenizer that had started threads in the parent would be broken in them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from dhp import checkpoint, optimizer, runtime
from dhp._core import InputError, Task
from dhp.batches import agree_on_dropped, prepare_ahead
from dhp.config import TrainConfig
from dhp.data.folder import check_folder as check_processor
from dhp.dataset import Dataset, Share
from dhp.gradients import reduce_gradients
from dhp.inputs import open_dataset, planning_inputs, read_dataset
from dhp.launch import run_local
from dhp.measure import Recorder, check_result_options
from dhp.model_folder import check_model_folder
from dhp.models import Adapter, attach, family_of, import_families
from dhp.output import complain
from dhp.recalibrate import Recalibration
from dhp.runtime import RankFailed, Run
from dhp.step_clock import StepClock
from dhp.steps import Reporter
from dhp.trace import Tracer, check_folder
from dhp.train_options import parser, settings_of
from dhp.weights import agree_on_weights, load_model

AFTER_FAILURE = "Continue from the last checkpoint with --resume."


def train(settings: TrainConfig, run: Run, reporter: Reporter | None, tracer: Tracer, recorder: Recorder) -> None:
    """Batch, plan, tasks, gradients, step; the next batch is planned and read meanwhile."""
    model, first_step = load_model(settings, run)
    agree_on_weights(model, run)
    cluster, cost = planning_inputs(settings, run)
    costs = Recalibration(cost, settings.recalibrate_every)
    adapter = attach(model, run, cluster=cluster)
    data = open_dataset(settings, cluster, cost, run)
    adamw = optimizer.make_optimizer(model, settings, run)
    if first_step:
        checkpoint.load_optimizer(settings, first_step, adamw)
    recorder.begin(cluster, cost)
    if reporter:
        reporter.say(headline(settings, model, data, run, first_step))

    for now in prepare_ahead(range(first_step, settings.steps), data, cluster, costs, settings, run):
        step, clock = now.step, StepClock(now.plan)
        tracer.begin_step(step + 1)
        with run.at(f"step {step + 1}, reading"), tracer.span("wait for data", "data"), clock.reading():
            share = now.share.result()
            clock.has_read()
            dropped = agree_on_dropped(share, now, data, settings, run)
        valid_tokens = data.label_tokens(now.batch, dropped)
        for task in runtime.tasks(now.plan, run):
            with run.at(f"step {step + 1}, task {task.id}"), tracer.task(task), clock.task(task):
                loss = forward(adapter, share, task, valid_tokens, settings)
                if loss.requires_grad:
                    loss.backward()
                clock.loss += loss.item()
        with run.at(f"step {step + 1}, gradients"):
            with tracer.span("gradients", "reduce"), clock.part("reduce"):
                reduce_gradients(model, run)
            with tracer.span("optimizer", "optimizer"), clock.part("optimizer"):
                norm = optimizer.update(model, adamw, settings, step)
            clock.combine(run)
            recorder.step(step + 1, now.plan, now.batch, now.plan_s, clock.task_cpu_s.tolist(), clock.watch)
            news = costs.add(now.plan, now.batch, clock.task_cpu_s.tolist())
        if reporter:
            rate = optimizer.learning_rate(settings, step)
            reporter.step(clock.record(now, valid_tokens, dropped, norm, rate))
            if news:
                reporter.say(news)
        if (settings.save_steps and (step + 1) % settings.save_steps == 0) or step + 1 == settings.steps:
            with run.at(f"step {step + 1}, saving"), tracer.span("save", "save"):
                saved = checkpoint.save_checkpoint(step + 1, model, adamw, settings, run)
            if reporter:
                reporter.say(f"saved {saved}")
    tracer.write()
    recorder.write()


def headline(settings: TrainConfig, model: Any, data: Dataset, run: Run, first_step: int) -> str:
    lengths = [sample.tokens for sample in data.samples]
    parameters = sum(p.numel() for p in model.parameters())
    parts = [
        f"{settings.model}: {parameters / 1e6:,.1f} M parameters",
        f"{len(lengths)} samples of {min(lengths):,} to {max(lengths):,} tokens",
        f"{run.world_size} ranks" + (f" of {settings.capacity_tokens:,} tokens" if settings.capacity_tokens else ""),
        f"schedule {settings.schedule}",
    ]
    return " | ".join([*parts, f"from step {first_step}"] if first_step else parts)


def forward(adapter: Adapter, share: Share, task: Task, valid_tokens: int, settings: TrainConfig) -> torch.Tensor:
    """This rank's part of the loss of a task."""
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
        return adapter.loss(share.inputs[task.id], task, valid_tokens)


def work(settings: TrainConfig, options: argparse.Namespace) -> int:
    """One rank, from joining to leaving; returns its exit code."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    run = runtime.init(timeout_s=settings.timeout_s)
    try:
        reporter = None
        if run.rank == 0:
            reporter = Reporter(
                settings.steps, options.metrics, log_every=settings.log_every, output_format=options.output_format
            )
        with run.at("start"):
            recorder = Recorder(options.result, run, settings, clock=options.result_clock, step=options.result_step)
            train(settings, run, reporter, Tracer(options.trace, run), recorder)
        run.close()
        return 0
    except InputError as error:
        run.say_once(f"dhp: error: {error}")
        return 2
    except runtime.InfeasibleBatch as error:
        run.say_once(f"dhp: infeasible: {error}")
        return 1
    except RankFailed as error:
        run.say_once(f"dhp: error: {error}")
        if settings.traceback:
            traceback.print_exc()
        return 1


def check_data(settings: TrainConfig) -> int:
    """Checks the model's folder and makes or checks the index before ranks start: what is wrong is said once."""
    try:
        check_model_folder(settings.model)
        read_dataset(settings)
        return 0
    except InputError as error:
        complain(f"dhp: error: {error}")
        return 2


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        settings = settings_of(options)
        family_of(settings.model)
        check_processor(settings.model)
        if options.trace and not options.trace.endswith(".json"):
            check_folder(options.trace)
        if options.result:
            check_result_options(options.result, options.result_step, settings.steps)
    except InputError as error:
        complain(f"dhp: error: {error}")
        return 2
    if "RANK" in os.environ or settings.ranks == 1:
        return work(settings, options)
    import_families()
    # In a process of its own: one that has read media or tokenized has threads, and must not fork.
    return run_local(1, lambda: check_data(settings)) or run_local(
        settings.ranks, lambda: work(settings, options), advice=AFTER_FAILURE
    )


if __name__ == "__main__":
    sys.exit(main())
