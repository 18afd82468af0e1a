"""A process that decodes media for a rank, and that some media make end or hang: media_pool.WORKER of a test."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from dhp.data.decoding import media, media_worker
from dhp.data.decoding.worker_process import pipe_of_parent

decode = media.decode


def odd(medium: Any, numbers: Any, processor: Any) -> Any:
    source = str(medium.source)
    if "odd-kills" in source:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "odd-exits" in source:
        os._exit(3)
    if "odd-hangs" in source:
        time.sleep(600)
    if "odd-raises" in source:
        raise LookupError("what is this?")
    return decode(medium, numbers, processor)


if __name__ == "__main__":
    media.decode = odd
    media_worker.main(pipe_of_parent())
