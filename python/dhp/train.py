"""`dhp train`: trains a vision-language model on local ranks or under torchrun. `train` below is the whole loop."""

from __future__ import annotations

import argparse
import contextlib
import os
import traceback
from typing import Any

from dhp.run import commands

if __name__ == "__main__":
    commands.end_on_interrupt()  # what follows takes seconds to import

# Ranks are forked: a tokenizer that had started threads in the parent would be broken in them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch

from dhp._core import InputError, Task
from dhp.base.output import complain
from dhp.cost.recalibrate import Recalibration
from dhp.data.dataset import Dataset, Share
from dhp.loop.batches import Ahead, Drops, Prepared, agree_on_dropped
from dhp.loop.inputs import open_dataset, planning_inputs, with_steps
from dhp.loop.start import begin, check_before_ranks, check_options, launched_here, says, together, weights_of
from dhp.loop.step_clock import StepClock
from dhp.loop.train_options import parser, settings_of
from dhp.models import Adapter, attach, import_family, is_unregistered, lora, unwrapped
from dhp.models.unregistered import admit
from dhp.models.weights import agree_on_weights, load_model
from dhp.run import runtime
from dhp.run.launch import BAD_INPUT, join, look_and_run
from dhp.run.rendezvous import started_by_others
from dhp.run.runtime import RankFailed, Run, RunStopped
from dhp.save import checkpoint
from dhp.save.checkpoint import Saved
from dhp.save.run_folder import claim, newest_checkpoint
from dhp.settings.config import TrainConfig
from dhp.step import optimizer
from dhp.step.nonfinite import Skips, first_not_finite, trouble_of
from dhp.step.sharded import ShardedAdamW
from dhp.watch.record import Recorder
from dhp.watch.steps import Reporter
from dhp.watch.trace import Tracer

STOPPED = 3  # between ranks and launcher: exit 1, and the reason is said already


def train(
    settings: TrainConfig, run: Run, reporter: Reporter | None, tracer: Tracer, recorder: Recorder, saved: Saved | None
) -> None:
    """Batch, plan, tasks, gradients, step; the next batch is planned and read meanwhile. `saved`: where to go on."""
    with contextlib.ExitStack() as ends:
        _train(settings, run, reporter, tracer, recorder, saved, ends)


def _train(
    settings: TrainConfig,
    run: Run,
    reporter: Reporter | None,
    tracer: Tracer,
    recorder: Recorder,
    saved: Saved | None,
    ends: contextlib.ExitStack,
) -> None:
    cluster, cost = planning_inputs(settings, run.world_size)
    costs = Recalibration(cost, cluster, settings.recalibrate_every, run)
    if saved:
        costs.restore(saved.costs)
    first_step = saved.step if saved else 0
    data = ends.enter_context(open_dataset(settings, cluster, cost, run))
    settings = with_steps(settings, data)
    ahead = Ahead(range(first_step, settings.steps), data, costs, settings, run.rank)
    ends.callback(ahead.close)
    model = together(run, lambda: load(settings, saved, run))
    agree_on_weights(model, run)
    if is_unregistered(unwrapped(model)):
        admit(unwrapped(model).config)  # rank 0 has proven it: begin
    adapter = attach(model, run, cluster=cluster, compile=settings.compile)
    if run.device.type != "cpu":
        data.finish = adapter.prepare
    adamw = optimizer.make_optimizer(model, settings, run)
    if saved:
        together(run, lambda: checkpoint.load_optimizer(saved.folder, model, adamw))
    drops, skips = Drops(settings.max_dropped_share), Skips(settings.on_nonfinite)
    recorder.begin(cluster, cost)
    if reporter:
        reporter.steps = settings.steps  # which the data may decide
        reporter.say(headline(settings, model, data, run, first_step))

    clock = None
    for step in ahead.steps:
        clock = StepClock(run, after=clock)
        run.enter(f"step {step + 1}")  # else it would be at its start whenever it is in none of the parts below
        with run.at(f"step {step + 1}, planning"):
            with clock.planning():
                now = ahead.take()
            ahead.begin(step + 1)
            runtime.agree_on(now.plan, run)
            runtime.connect(now.plan, now.batch, run, cluster, rows=adapter.exchanges_rows)
        with run.at(f"step {step + 1}, reading"), clock.reading():
            share = now.share.result()
            clock.has_read()
            dropped = agree_on_dropped(share, now, data, settings, run)
            drops.add(step + 1, len(now.batch.sequences), len(dropped))
        valid_tokens = data.label_tokens(now.batch, dropped)
        run_tasks(adapter, now, share, valid_tokens, clock, settings, run)
        with run.at(f"step {step + 1}, gradients"):
            with clock.part("reduce"):
                finite, norm = adamw.reduce(clock.read)
            run.check_device()  # else what was read may be of transfers that were aborted
            bad_ranks = clock.combine(run, now.plan, finite, norm)
            trouble = trouble_of(now.plan, clock.bad_losses, bad_ranks, lambda: first_not_finite(model, adamw))
            skipped = skips.skip(step + 1, trouble)
            with clock.part("optimizer"):
                if skipped:
                    adamw.zero_grad()
                else:
                    optimizer.update(adamw, settings, step, norm)
            news = costs.add(now.plan, now.batch, clock.members)
            if settings.check_weights_every and (step + 1) % settings.check_weights_every == 0:
                agree_on_weights(model, run)
        if reporter:  # before it is saved: a step that a checkpoint holds has been reported, whatever happens
            if skipped:
                complain(f"dhp: step {step + 1} is skipped: {trouble}")
            rate = optimizer.learning_rate(settings, step)
            reporter.step(clock.record(now, valid_tokens, dropped, norm, rate, trouble))
            reporter.say(news)
        if (settings.save_steps and (step + 1) % settings.save_steps == 0) or step + 1 == settings.steps:
            with run.at(f"step {step + 1}, saving"), clock.part("save"):
                save(step + 1, model, adamw, settings, run, costs, reporter)
        with run.at(f"step {step + 1}, recording"):
            if recorder.records or tracer.traces:
                clock.finish()
            recorder.step(step + 1, now.plan, now.batch, now.plan_s, clock.task_s.tolist(), clock.watch)
            tracer.step(step + 1, now.plan, clock.watch)
    if settings.lora_merge and settings.lora_rank:
        with run.at("end, merging adapters"):
            save_merged(model, settings, run, reporter)


def run_tasks(
    adapter: Adapter,
    now: Prepared,
    share: Share,
    valid_tokens: int,
    clock: StepClock,
    settings: TrainConfig,
    run: Run,
) -> None:
    """This rank's tasks, forward and backward, in plan order."""
    for task in runtime.tasks(now.plan, run):
        with run.at(f"step {now.step + 1}, task {task.id}"), clock.task(task, share.inputs[task.id].layout.own_vision):
            loss = forward(adapter, share, task, valid_tokens, settings, run)
            if loss.requires_grad:
                loss.backward()
            clock.add_loss(task, loss)


def save(
    step: int,
    model: Any,
    adamw: ShardedAdamW,
    settings: TrainConfig,
    run: Run,
    costs: Recalibration,
    reporter: Reporter | None,
) -> None:
    """A checkpoint, and a line about it. One that cannot be written is no reason to end the run, except after the last
    step."""
    try:
        said = f"saved {checkpoint.save_checkpoint(step, model, adamw, settings, run, costs.state())}"
    except checkpoint.NotSavedError as error:
        if step == settings.steps:
            raise RunStopped(f"step {step}: {error}") from None
        following = min(settings.steps, step + settings.save_steps)
        if run.rank == 0:
            complain(f"dhp: step {step}: {error}; the run goes on and saves again after step {following}")
        said = f"not saved: {error}"
    if reporter:
        reporter.say(said)


def save_merged(model: Any, settings: TrainConfig, run: Run, reporter: Reporter | None) -> None:
    """The model with its adapters added, and a line about it."""
    try:
        folder = checkpoint.save_merged(lora.merged(model), settings, run)
    except checkpoint.NotSavedError as error:
        raise RunStopped(str(error)) from None
    if reporter:
        reporter.say(f"saved {folder}")


def load(settings: TrainConfig, saved: Saved | None, run: Run) -> Any:
    """The model to train: of the settings, or of the checkpoint to continue from, which with LoRA has the adapters."""
    folder = saved.folder if saved else None
    return load_model(settings, weights_of(settings, folder), run.device, folder)


def headline(settings: TrainConfig, model: Any, data: Dataset, run: Run, first_step: int) -> str:
    lengths = [part.samples.tokens for part in data.draws.parts]
    least, most = min(int(one.min()) for one in lengths), max(int(one.max()) for one in lengths)
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) if settings.lora_rank else 0
    parts = [
        f"{settings.model}: {parameters / 1e6:,.1f} M parameters" + f", {trained / 1e6:,.2f} M train" * bool(trained),
        f"{len(data)} samples of {least:,} to {most:,} tokens",
        f"{run.world_size} ranks" + (f" of {settings.capacity_tokens:,} tokens" if settings.capacity_tokens else ""),
        f"planner {settings.planner}",
    ]
    if first_step:
        done = "" if first_step < settings.steps else ": nothing is left to do"
        parts.append(f"from step {first_step}{done}")
    return " | ".join(parts)


def forward(
    adapter: Adapter, share: Share, task: Task, valid_tokens: int, settings: TrainConfig, run: Run
) -> torch.Tensor:
    """This rank's part of the loss of a task."""
    with torch.autocast(run.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
        return adapter.loss(share.inputs[task.id], task, valid_tokens)


def work(settings: TrainConfig, options: argparse.Namespace) -> int:
    """One rank, from joining to leaving; returns its exit code."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    run = join(settings.timeout_s, settings.device)
    if isinstance(run, int):
        return run
    try:
        with run.at("start"):
            saved = begin(settings, run)
            reporter = None
            if run.rank == 0:
                reporter = Reporter(
                    settings.steps,
                    options.metrics,
                    log_every=settings.log_every,
                    quiet=options.quiet,
                    output_format=options.output_format,
                )
            recorder = Recorder(options.result, run, settings, clock=options.result_clock, step=options.result_step)
            tracer = Tracer(options.trace, run)
            train(settings, run, reporter, tracer, recorder, saved)
            together(run, tracer.write)
            together(run, recorder.write)
        run.close()
        return 0
    except InputError as error:
        run.say_once(f"dhp: error: {error}")
        return 2
    except (runtime.InfeasibleBatch, RunStopped) as error:
        kind = "infeasible" if isinstance(error, runtime.InfeasibleBatch) else "error"
        words = advice(settings) if isinstance(error, RunStopped) else ""
        if run.rank == 0:  # all have come to the same conclusion
            complain(f"dhp: {kind}: {error}{words and '. ' + words}")
        return STOPPED if launched_here() else 1
    except RankFailed as error:
        run.say_once(f"dhp: error: {error}")
        if settings.traceback:
            traceback.print_exc()
        return 1


def advice(settings: TrainConfig) -> str:
    """What to do after a failure. A checkpoint in the folder is this run's: it is not begun in another's folder."""
    return "Continue from the last checkpoint with --resume." if newest_checkpoint(settings.output_dir) else ""


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        by_others = started_by_others()
        settings = settings_of(options)
        check_options(settings, options)
        lock = None if by_others else claim(settings)  # held until this process and its ranks have ended
    except InputError as error:
        if says():
            complain(f"dhp: error: {error}")
        return 2
    try:
        if by_others or settings.ranks == 1:
            return work(settings, options)
        return launch(settings, options, arguments)
    finally:
        if lock is not None:
            os.close(lock)


def launch(settings: TrainConfig, options: argparse.Namespace, arguments: list[str] | None) -> int:
    """Local ranks. Returns the exit code."""
    import_family(settings.model)
    code = look_and_run(
        settings.ranks,
        lambda: check_before_ranks(settings),
        lambda: work(settings, options),
        arguments,
        looks="the process that looks at model and data before the run",
        advice=lambda: advice(settings),
        explained=(BAD_INPUT, STOPPED),
    )
    return 1 if code == STOPPED else code


if __name__ == "__main__":
    commands.end(main())
