"""`dhp train`: trains a vision-language model on local ranks or under torchrun. `train` below is the whole loop."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

# Ranks are forked: a tokenizer that had started threads in the parent would be broken in them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from dhp import checkpoint, config, optimizer, runtime
from dhp._core import (
    Batch,
    Cluster,
    CostModel,
    InputError,
    Plan,
    Task,
    error_of,
    min_degree,
    read_cluster,
    read_cost_model,
    replay,
)
from dhp._core import Sequence as BatchSequence
from dhp.config import TrainConfig
from dhp.dataset import Dataset, Share
from dhp.gradients import reduce_gradients
from dhp.launch import run_local
from dhp.local import local_cluster, local_cost, no_room
from dhp.measure import CLOCKS, Recorder, Stopwatch, check_result_options
from dhp.models import Adapter, attach, family_of, freeze, import_families
from dhp.output import complain
from dhp.recalibrate import Recalibration
from dhp.runtime import RankFailed, Run
from dhp.steps import Reporter, StepRecord
from dhp.trace import Tracer, check_folder

AFTER_FAILURE = "Continue from the last checkpoint with --resume."
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


@dataclass
class Prepared:
    """A batch, its plan, and this rank's share of it, which is being read."""

    step: int  # from 0
    batch: Batch
    plan: Plan
    plan_s: float
    share: Future[Share]


def train(settings: TrainConfig, run: Run, reporter: Reporter | None, tracer: Tracer, recorder: Recorder) -> None:
    """Batch, plan, tasks, gradients, step; the next batch is planned and read meanwhile."""
    model, first_step = load_model(settings, run)
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


def prepare_ahead(
    steps: range, data: Dataset, cluster: Cluster, costs: Recalibration, settings: TrainConfig, run: Run
) -> Iterator[Prepared]:
    """The batches of all steps; each is planned, and its share being read, while the one before it trains. So
    a cost that is fitted after a step first plans the second step from there."""
    ahead: Prepared | None = None
    for step in steps:
        now, ahead = ahead, prepare(step, data, cluster, costs.cost, settings, run)
        if now:
            yield now
    if ahead:
        yield ahead


def prepare(step: int, data: Dataset, cluster: Cluster, cost: CostModel, settings: TrainConfig, run: Run) -> Prepared:
    """Draws and plans a global batch, as every rank does, and starts to read this rank's share."""
    with run.at(f"step {step + 1}, planning"):
        batch = data.batch(step, settings.global_batch_size, settings.seed)
        started = time.perf_counter()
        options = {"tighter_bound": True, **settings.plan}  # a step takes far longer than the bound
        plan = runtime.plan(batch, cluster, cost, schedule=settings.schedule, **options)
        plan_s = time.perf_counter() - started
        runtime.agree_on(plan, run)
        return Prepared(step, batch, plan, plan_s, data.read_ahead(plan, run.rank))


def forward(adapter: Adapter, share: Share, task: Task, valid_tokens: int, settings: TrainConfig) -> torch.Tensor:
    """This rank's part of the loss of a task."""
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.precision == "bf16"):
        return adapter.loss(share.inputs[task.id], task, valid_tokens)


def agree_on_dropped(share: Share, now: Prepared, data: Dataset, settings: TrainConfig, run: Run) -> list[int]:
    """Sample ids that some rank could not read. All ranks drop the same, so the batch stays one batch."""
    for sample_id, problem in share.failed.items():
        complain(f"dhp: sample {sample_id}: {problem}")
    ids = [sequence.id for sequence in now.batch.sequences]
    flags = run.max(torch.tensor([i in share.failed for i in ids], dtype=torch.uint8))
    dropped = [i for i, flag in zip(ids, flags.tolist(), strict=True) if flag]
    if dropped and settings.on_bad_media == "fail":
        problem = next(iter(share.failed.values()), "another rank names the file")
        raise InputError(
            f"{settings.data}: samples {dropped} cannot be read: {problem}; "
            'mend or remove them, or set on_bad_media = "skip"'
        )
    share.drop(now.plan, dropped)
    return dropped


def load_model(settings: TrainConfig, run: Run) -> tuple[Any, int]:
    """The model to train and the steps already done: from the newest checkpoint if `resume` finds one."""
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()  # one bar a rank is noise
    folder, done = settings.model, 0
    if settings.resume:
        newest = checkpoint.latest_checkpoint(settings.output_dir)
        if newest:
            folder, done = str(newest), checkpoint.read_state(newest, settings)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=DTYPES[settings.precision])
    model.train()
    freeze(model, settings.frozen)
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return model, done


def open_dataset(settings: TrainConfig, cluster: Cluster, cost: CostModel, run: Run) -> Dataset:
    """The data and its index; rank 0 makes the index if it is missing, the others wait. Samples that no group of this
    cluster holds are named now, with the degree they need, not in the middle of the run. Raises InputError."""
    check_room(settings, cluster, cost)

    def opened() -> Dataset:
        return Dataset(settings.data, settings.model, settings.index, on_error=settings.on_bad_media)

    data = opened() if run.rank == 0 else None
    run.barrier()
    data = data or opened()
    too_long = {}
    for sample in data.samples:
        degree = min_degree(cost, cluster, BatchSequence(sample.id, sample.tokens, sample.patches))
        if not 1 <= degree <= cluster.ranks():
            too_long[sample.id] = f"sample {sample.id}: {sample.tokens} tokens need {degree} ranks"
    if too_long:
        listed = "; ".join(list(too_long.values())[:5]) + ("; ..." if len(too_long) > 5 else "")
        problem = f"{settings.data}: {len(too_long)} samples do not fit on {cluster.ranks()} ranks: {listed}"
        if settings.on_too_long == "fail":
            raise InputError(f'{problem}; take more ranks or memory, or leave them out with on_too_long = "skip"')
        if run.rank == 0:
            complain(f"dhp: left out: {problem}")
        data.leave_out(too_long)
    return data


def check_room(settings: TrainConfig, cluster: Cluster, cost: CostModel) -> None:
    """Raises InputError where the model's state leaves no memory for activations: no number of ranks holds a sample."""
    why = no_room(cost, cluster)
    if not why:
        return
    if settings.capacity_tokens and settings.cost and not settings.cluster:
        raise InputError(
            f"capacity_tokens: found {settings.capacity_tokens}, but {settings.cost} counts memory in bytes, "
            f"{cost.state_bytes:,.0f} of them for the model's state; make it with dhp calibrate --capacity-tokens "
            f"{settings.capacity_tokens}, or leave capacity_tokens out"
        )
    memory = f"cluster: {settings.cluster}" if settings.cluster else f"device: {settings.device}"
    smaller = (
        f"a cost file instead of {settings.cost} that counts more ranks or frozen parts"
        if settings.cost
        else "more ranks, which share the optimizer's state, freeze_vit or freeze_llm, or count tokens: capacity_tokens"
    )
    raise InputError(f"{memory}: {why}; take more memory a rank, or {smaller}")


def planning_inputs(settings: TrainConfig, run: Run) -> tuple[Cluster, CostModel]:
    """From the files of the config, or counted."""
    cluster = (
        read_cluster(settings.cluster)
        if settings.cluster
        else local_cluster(run.world_size, device=settings.device, capacity_tokens=settings.capacity_tokens)
    )
    cost = (
        read_cost_model(settings.cost)
        if settings.cost
        else local_cost(
            settings.model,
            run.world_size,
            device=settings.device,
            recompute=settings.gradient_checkpointing,
            freeze=settings.frozen,
            capacity_tokens=settings.capacity_tokens,
        )
    )
    return cluster, cost


class StepClock:
    """Loss and times of one step: first of this rank, after `combine` of all."""

    def __init__(self, plan: Plan) -> None:
        self.loss = torch.zeros((), dtype=torch.float64)
        self.task_cpu_s = torch.zeros(len(plan.tasks), dtype=torch.float64)
        self.watch = Stopwatch(started=time.time())
        self._started = time.perf_counter()
        self._read_wait_s = 0.0

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        started, wall = time.perf_counter(), time.time()
        yield
        self._read_wait_s = time.perf_counter() - started
        self.watch.data = (wall, time.time())

    def has_read(self) -> None:
        """This rank's share is there; others may still read theirs."""
        self.watch.read_s = time.time() - self.watch.started

    @contextlib.contextmanager
    def task(self, task: Task) -> Iterator[None]:
        """CPU time of the computing thread: what the task costs, however many ranks share a core."""
        started, wall = time.thread_time(), time.time()
        yield
        self.task_cpu_s[task.id] = self.watch.tasks_cpu_s[task.id] = time.thread_time() - started
        self.watch.tasks[task.id] = (wall, time.time())

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Work of the step that is no task: reduce, optimizer."""
        started, wall = time.thread_time(), time.time()
        yield
        self.watch.parts_cpu_s[name] = time.thread_time() - started
        self.watch.parts[name] = (wall, time.time())

    def combine(self, run: Run) -> None:
        """Losses add up; a task lasts as long as its slowest member."""
        run.sum(self.loss)
        run.max(self.task_cpu_s)

    def record(self, now: Prepared, valid_tokens: int, dropped: list[int], norm: float, rate: float) -> StepRecord:
        tasks, predicted = now.plan.tasks, now.plan.predicted
        assert predicted is not None, "planners annotate their plans"
        emulated = replay(now.plan, self.task_cpu_s.tolist())
        planned_s = [(task.end_s or 0.0) - (task.start_s or 0.0) for task in tasks]
        planned = replay(now.plan, planned_s)
        tokens = sum(sequence.tokens for sequence in now.batch.sequences)
        seconds = time.perf_counter() - self._started
        return StepRecord(
            step=now.step + 1,
            loss=self.loss.item(),
            tokens=tokens,
            label_tokens=valid_tokens,
            samples=len(now.batch.sequences),
            degrees=sorted((len(task.ranks) for task in tasks), reverse=True),
            micro_batches=len({task.micro_batch for task in tasks}),
            seconds=seconds,
            tokens_per_s=tokens / seconds,
            plan_s=now.plan_s,
            read_wait_s=self._read_wait_s,
            idle_share=emulated.idle_share(),
            emulated_step_s=emulated.makespan_s,
            predicted_step_s=predicted.makespan_s,
            predicted_idle_share=planned.idle_share(),
            lower_bound_s=predicted.lower_bound_s,
            gap=predicted.gap,
            grad_norm=norm,
            learning_rate=rate,
            dropped=dropped,
            task_error=error_of(planned_s, self.task_cpu_s.tolist()).mean,
        )


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
    """Makes or checks the index before ranks start, so that what is wrong with it is said once."""
    try:
        Dataset(settings.data, settings.model, settings.index, on_error=settings.on_bad_media)
        return 0
    except InputError as error:
        complain(f"dhp: error: {error}")
        return 2


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="dhp train", description="Trains a vision-language model; docs/training.md")
    p.add_argument("config", help="TOML file (examples/demo.toml)")
    p.add_argument("--ranks", type=int, help="local ranks to start (under torchrun: its own)")
    p.add_argument("--schedule", help="a planner of `dhp plan`: free, lockstep, paper, static:CP, ...")
    p.add_argument("--steps", type=int, help="optimizer steps in all")
    p.add_argument("--metrics", default="", metavar="FILE.jsonl", help="append one JSON object a step")
    p.add_argument("--trace", default="", metavar="PATH", help="Chrome trace: FILE.json, or a folder of files a rank")
    p.add_argument("--result", default="", metavar="FILE.json", help="write what the run was like, for dhp report")
    p.add_argument("--result-step", type=int, default=0, metavar="K", help="whose timeline it holds (default: 2)")
    p.add_argument(
        "--result-clock", choices=CLOCKS, default="auto", help="auto: emulated where ranks outnumber cores, else wall"
    )
    p.add_argument("--output-format", choices=("text", "json"), default="text", help="json: the metrics on stdout")
    p.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in output_dir")
    p.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE", help="override settings; after CONFIG"
    )
    return p


def settings_of(options: argparse.Namespace) -> TrainConfig:
    """Raises InputError."""
    given = {key: getattr(options, key) for key in ("ranks", "schedule", "steps")}
    overrides = [f"{key}={value}" for key, value in given.items() if value is not None]  # 0 is given too
    overrides += ["resume=true"] * options.resume
    return config.read_config(options.config, [*options.set, *overrides])


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        settings = settings_of(options)
        family_of(settings.model)
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
