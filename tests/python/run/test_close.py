"""What a run leaves behind in its process when it is closed."""

import os
from multiprocessing.connection import Connection

from dhp.run import entry
from ranks import context


def _threads_after_runs(pipe: Connection) -> None:
    for variable in ("RANK", "WORLD_SIZE"):
        os.environ.pop(variable, None)
    kept = []  # a caller may hold on to its run
    for _ in range(4):
        kept.append(entry.init())
        kept[-1].close()
        pipe.send(len(os.listdir("/proc/self/task")))


def test_a_closed_run_leaves_no_thread() -> None:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_threads_after_runs, args=(theirs,))
    process.start()
    theirs.close()  # so that recv ends when the process does
    counts = [ours.recv() for _ in range(4)]
    process.join(60)
    assert process.exitcode == 0
    assert counts == [counts[0]] * 4
