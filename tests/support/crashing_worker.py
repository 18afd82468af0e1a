"""A process that reads lines for `dhp index` and that some media make end: index_pool.WORKER of a test."""

from __future__ import annotations

import os
import signal
from typing import Any

from dhp.data.decoding.worker_process import pipe_of_parent
from dhp.data.indexing import index_worker, scan

probe_medium = scan.probe_medium


def probe(ref: Any, processor: Any) -> Any:
    if "kills" in str(ref.source):
        os.kill(os.getpid(), signal.SIGSEGV)
    if "exits" in str(ref.source):
        os._exit(3)
    return probe_medium(ref, processor)


if __name__ == "__main__":
    scan.probe_medium = probe
    index_worker.main(pipe_of_parent())
