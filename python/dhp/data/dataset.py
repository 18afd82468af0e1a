"""Samples, global batches, and each rank's share of them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dhp._core import Batch, InputError, Plan, Task
from dhp.data.access.files import FRAME_CACHE_BYTES, roots_of
from dhp.data.access.media_cache import MediaCache
from dhp.data.decoding.frame_cache import FrameCache
from dhp.data.decoding.media import Decoder, Medium, MediumError, PixelReader, decode, rows_of
from dhp.data.decoding.media_pool import MediaPool, Parts, Setup, Work, work_of
from dhp.data.draws import Draws
from dhp.data.formats.lines import MAX_LINE_BYTES
from dhp.data.indexing.index import Index, Sample, load_or_build_index
from dhp.data.indexing.sample_list import Samples
from dhp.data.sources import sources_of
from dhp.data.text import IGNORED, Encoded, Encoder
from dhp.task.input import TaskInput
from dhp.task.layout import TaskLayout


@dataclass
class Share:
    """What one rank holds of a global batch.

    inputs  by task id, for every task of the rank
    failed  by sample id: media of this rank's share that could not be read; their pixels are made up
    """

    inputs: dict[int, TaskInput] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)

    def drop(self, plan: Plan, samples: Iterable[int]) -> None:
        """Takes the loss of whole samples out. The plan stands, so that all ranks stay together: a dropped sample is
        computed, but adds nothing to loss and gradients."""
        dropped = set(samples)
        for task in plan.tasks:
            if task.id in self.inputs and not dropped.isdisjoint(task.sequences):
                encoded = self.inputs[task.id].encoded
                self.inputs[task.id].made = None  # it has the labels
                for i, sequence in enumerate(task.sequences):
                    if sequence in dropped:
                        encoded[i] = replace(encoded[i], labels=np.full_like(encoded[i].labels, IGNORED))


@dataclass
class _Reading:
    """A task while its share is read: pixels of a rank's own units, in order."""

    task: Task
    samples: list[Sample]
    encoded: list[Encoded]
    layout: TaskLayout
    pixels: list[torch.Tensor]


@dataclass
class _Run:
    """Units start … stop-1 of a medium, which are read together."""

    reading: _Reading
    sample: Sample
    medium: Medium
    start: int
    stop: int


class Dataset:
    """The samples of one or several data files, as a model's processor sees them.

    data    a data file or a folder of them, or a list of files and of tables {path, weight, index}: see sources.py
    model   Hugging Face checkpoint folder: tokenizer, processor settings
    index   file made by `dhp index`; made here if missing. Raises InputError if it does not fit data or model
    on_error      "fail" raises InputError for samples whose media cannot be read, "skip" leaves them out
    on_malformed  the same for lines that cannot be understood; empty: as on_error
    media_roots   folders and addresses; media outside them, after links are resolved, are not read. Empty: any local
                  file is read; of data at an address, what lies beside it
    media_cache   keeps media that are read from addresses
    progress      called repeatedly with the number of lines done so far, while an index is made or read
    opened        indexes of the files, where they are open already
    data_workers  processes that decode; 0: a thread of this one. They start with the first medium that is read
    frame_cache   folder for decoded frames, up to frame_cache_bytes of them; empty: none are kept
    timeout_s     a process that decodes a medium for half as long is an error

    `left_out()` of each of `indexes` names the samples left out, with their reasons. Close it, or use it as a context
    manager: that ends threads and processes.
    """

    def __init__(
        self,
        data: str | Path | Sequence[str | Mapping[str, Any]],
        model: str | Path,
        index: str | Path = "",
        *,
        on_error: str = "fail",
        on_malformed: str = "",
        media_roots: Iterable[str] = (),
        media_cache: MediaCache | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
        progress: Callable[[int], None] | None = None,
        opened: Sequence[Index] = (),
        data_workers: int = 0,
        frame_cache: str | Path = "",
        frame_cache_bytes: int = FRAME_CACHE_BYTES,
        timeout_s: float = 600.0,
    ) -> None:
        roots = tuple(media_roots)
        sources = sources_of(data, str(index))
        self.indexes: tuple[Index, ...] = tuple(opened) or tuple(
            load_or_build_index(
                source.path,
                model,
                source.index or None,
                on_error=on_error,
                on_malformed=on_malformed,
                media_roots=roots,
                media_cache=media_cache,
                max_line_bytes=max_line_bytes,
                progress=progress,
            )
            for source in sources
        )
        self.draws = Draws(sources, self.indexes)
        self._encoder = Encoder(model, roots_of((source.path for source in sources), roots), media_cache)
        cache = FrameCache(frame_cache, frame_cache_bytes) if frame_cache else None
        self._decode: Decoder = cache.decode if cache else decode
        self._pixels = PixelReader(self._encoder.processor, self._decode)
        self._pool: MediaPool | None = None
        if data_workers:
            access = self._encoder.processor.media_roots, media_cache
            setup = Setup(str(model), *access, str(frame_cache), frame_cache_bytes)
            self._pool = MediaPool(setup, data_workers, timeout_s / 2)
        self._is_closed = False
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="dhp-read")
        self._encoding = threading.Lock()  # tokenizers are not for two threads at once
        self.finish: Callable[[TaskInput], None] = lambda task_input: None  # called by the thread that reads ahead

    def close(self) -> None:
        """Ends the processes and threads that read. A share that is being read is not finished."""
        self._is_closed = True
        self._reader.shutdown(wait=False, cancel_futures=True)
        if self._pool:
            self._pool.close()

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def index(self) -> Index:
        """Of the first file."""
        return self.indexes[0]

    @property
    def samples(self) -> Samples:
        """Those of the first file that can be drawn; `draws.parts` has them of all files."""
        return self.draws.parts[0].samples

    def __len__(self) -> int:
        """Samples of all files that can be drawn."""
        return len(self.draws)

    def batch(self, step: int, size: int, seed: int = 0) -> Batch:
        """Global batch number `step` (from 0): a pure function of step, size and seed, equal on every rank, in time and
        memory of the batch alone. How it is drawn: draws.py. Raises InputError if there are fewer samples."""
        return self.draws.batch(step, size, seed)

    def label_tokens(self, batch: Batch, dropped: Iterable[int] = ()) -> int:
        """Tokens with a loss in the global batch, the divisor of every local loss; at least 1."""
        missing = set(dropped)
        return max(1, self.draws.label_tokens(s.id for s in batch.sequences if s.id not in missing))

    def sample(self, sample_id: int) -> Sample:
        """The sample with this id of a batch. Raises KeyError for an unknown id."""
        return self.draws.sample(sample_id)

    def encode(self, sample: Sample) -> Encoded:
        """Ids, labels and kinds of the tokens of a whole sample."""
        with self._encoding:
            return self._encoder.encode(sample)

    def read_pixels(self, medium: Medium, start: int, stop: int) -> torch.Tensor:
        """float32 [patches, width]: frames start ... stop-1 (pictures have one) of a medium. Raises MediumError."""
        return self._pixels.read_units(medium, start, stop)

    def read(self, task: Task, rank: int, failed: dict[int, str] | None = None) -> TaskInput:
        """This rank's share of a task: text of all its sequences, pixels of its own units only.

        A medium that cannot be read raises MediumError, or, if `failed` is given, is noted there under its sample's
        id and read as zeros.
        """
        return self._read([task], rank, failed)[task.id]

    def _read(self, tasks: Iterable[Task], rank: int, failed: dict[int, str] | None) -> dict[int, TaskInput]:
        """By task id. Media are decoded in the order of the tasks; sounds are read by this thread, in their places."""
        read: list[_Reading] = []
        pending: deque[_Run] = deque()

        def works() -> Iterator[Work]:
            for task in tasks:
                read.append(self._begun(task, rank))
                for sequence, number, start, stop in _runs(read[-1].layout):
                    sample = read[-1].samples[sequence]
                    medium = sample.media[number]
                    pending.append(_Run(read[-1], sample, medium, start, stop))
                    if medium.kind != "audio":
                        yield work_of(self.draws.name(sample.id), medium, start, stop, self._pixels.processor)

        with contextlib.closing(self._pool.decode(works()) if self._pool else self._decoded(works())) as decoded:
            for _, parts in decoded:
                self._hear(pending, failed)
                self._add(pending.popleft(), parts, failed)
            self._hear(pending, failed)
        return {one.task.id: self._finished(one) for one in read}

    def _hear(self, pending: deque[_Run], failed: dict[int, str] | None) -> None:
        """Reads the sounds that come next."""
        while pending and pending[0].medium.kind == "audio":
            run = pending.popleft()
            try:
                heard: torch.Tensor | MediumError = self.read_pixels(run.medium, run.start, run.stop)
            except MediumError as error:
                heard = error
            self._add(run, heard, failed)

    def _add(self, run: _Run, read: Parts | torch.Tensor | MediumError, failed: dict[int, str] | None) -> None:
        medium, start, stop = run.medium, run.start, run.stop
        if isinstance(read, MediumError):
            if failed is None:
                raise read
            failed[run.sample.id] = str(read)
            read = self._pixels.blank(medium, start, stop)
        elif not isinstance(read, torch.Tensor):
            read = rows_of(medium, start, stop, self._pixels.processor, read)
        run.reading.pixels.append(read)

    def _begun(self, task: Task, rank: int) -> _Reading:
        samples = [self.sample(i) for i in task.sequences]
        encoded = [self._as_indexed(sample) for sample in samples]
        media = [sample.media for sample in samples]
        layout = TaskLayout.of(len(task.ranks), list(task.ranks).index(rank), encoded, media)
        return _Reading(task, samples, encoded, layout, [torch.empty(0, *self._pixels.shape)])

    def _finished(self, reading: _Reading) -> TaskInput:
        pixels, reading.pixels = torch.cat(reading.pixels), []
        return TaskInput(reading.layout, reading.encoded, [s.media for s in reading.samples], pixels)

    def _decoded(self, works: Iterable[Work]) -> Generator[tuple[Work, Parts | MediumError], None, None]:
        """As MediaPool.decode, in this thread."""
        for work in works:
            if self._is_closed:
                raise RuntimeError("the data were closed")
            try:
                yield work, self._decode(work.medium, work.numbers, self._pixels.processor)
            except MediumError as error:
                yield work, error

    def _as_indexed(self, sample: Sample) -> Encoded:
        """Raises InputError where a sample has other tokens than the plan was made for."""
        encoded = self.encode(sample)
        if len(encoded.input_ids) != sample.tokens:
            raise InputError(
                f"sample {sample.id} has {len(encoded.input_ids)} tokens, but {sample.tokens} in the index: the chat "
                "template, the tokenizer or a library changed; remove the index, or make it again with dhp index"
            )
        return encoded

    def read_share(self, plan: Plan, rank: int) -> Share:
        """All of this rank's tasks; unreadable media are noted, not raised."""
        share = Share()
        share.inputs = self._read([task for task in plan.tasks if rank in task.ranks], rank, share.failed)
        for task_input in share.inputs.values():
            self.finish(task_input)
        return share

    def read_ahead(self, plan: Plan, rank: int) -> Future[Share]:
        """`read_share` in the background, while another batch trains."""
        return self._reader.submit(self.read_share, plan, rank)


def _runs(layout: TaskLayout) -> Iterable[tuple[int, int, int, int]]:
    """This member's units as (sequence, medium, first unit, end): neighbours are read together."""
    runs: list[list[int]] = []
    for unit in layout.shares[layout.position]:
        if runs and runs[-1][:2] == [unit.sequence, unit.medium] and runs[-1][3] == unit.part:
            runs[-1][3] += 1
        else:
            runs.append([unit.sequence, unit.medium, unit.part, unit.part + 1])
    return [(run[0], run[1], run[2], run[3]) for run in runs]


__all__ = ["Dataset", "Encoded", "Share"]
