"""A process that decodes media for a rank: media_pool.py starts it, and it ends when its pipe does."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import threading
from typing import Any

import numpy as np

from dhp.data.decoding.worker_process import pipe_of_parent


def main(pipe: Any) -> None:
    import torch

    from dhp._core import InputError
    from dhp.data.decoding import media
    from dhp.data.decoding.frame_cache import FrameCache
    from dhp.data.processor import load_processor

    torch.set_num_threads(1)
    try:
        setup = pipe.recv()
    except (EOFError, OSError):
        return
    works: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, works), daemon=True).start()
    try:
        access = {"media_roots": setup.media_roots, "media_cache": setup.media_cache}
        processor = dataclasses.replace(load_processor(setup.model), **access)
        cache = FrameCache(setup.frame_cache, setup.frame_cache_bytes) if setup.frame_cache else None
    except InputError as error:
        pipe.send(error)
        return
    decode = cache.decode if cache else media.decode
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # of the pipe: nobody asks any more
        pipe.send("ready")
        while True:
            _answer(pipe, decode, processor, *works.get())


def _answer(pipe: Any, decode: Any, processor: Any, medium: Any, numbers: tuple[int, ...]) -> None:
    """Parts: their numbers and size, then the levels of each. Else an exception."""
    try:
        parts = decode(medium, numbers, processor)
    except Exception as error:
        pipe.send(_sendable(error))
        return
    height, width, _ = parts[numbers[0]].shape
    pipe.send((numbers, (height, width)))
    for number in numbers:
        pipe.send_bytes(np.ascontiguousarray(parts[number]).data.cast("B"))


def _receive(pipe: Any, works: queue.SimpleQueue[Any]) -> None:
    """In a thread, so that a rank's end is seen in the middle of a medium, and a rank never waits to give one out."""
    try:
        while True:
            works.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)  # nobody asks any more


def _sendable(error: Exception) -> Exception:
    from dhp._core import InputError

    return error if isinstance(error, InputError) else RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(pipe_of_parent())
