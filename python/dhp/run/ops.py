"""Loads the op library: after `load()` the run-time is there as `torch.ops.dhp.*`.

ring_attention(q, k, v, seq_tokens, ranks, group, scale, causal=True, exchange="ring", nodes=[]) -> out
    q [T_local, Hq, D], k and v [T_local, Hkv, D]: this rank's zigzag shards of the packed sequences, float64, float32,
    bfloat16 or float16. seq_tokens: global lengths, multiples of 2d for a group of d > 1 ranks. ranks: the
    group in ring order, world ranks. group: `group_name` of a process group over the world; "" will do for one rank.
    exchange: "ring", "direct" or "hierarchical": how shards of k and v travel. nodes: the node of each of `ranks`, any
    numbers; empty if all are on one. Only hierarchical looks at it.
ring_attention_packed(q, k, v, call, group, scale, causal=True) -> out
    the same for programs that torch.compile traces: in `call` (packed_call) is, as data, what changes with the task.
ring_attention_with_lse(q, k, v, call, group, scale, causal, needs_gradient) -> out, lse
ring_attention_backward(dout, q, k, v, out, lse, call, group, scale, causal) -> dq, dk, dv
    Its two passes for callers that do without autograd: ranks as threads of one process on one device must, since
    autograd has one thread a device.
exchange_rows(rows, send_counts, recv_counts, ranks, group) -> rows
    rows [sum(send_counts), C], ordered by destination in `ranks`; the result [sum(recv_counts), C], ordered by source.

Every member of a group calls them in plan order, forward and backward; `requires_grad` is the same on all members.
A wrong call raises ValueError here and torch.distributed.DistError on the ranks that wait for
this one. A lost rank, an expired wait, or a disagreement between members raises DistError, which starts with what
failed first. The group then stays failed.

configure_group(group, timeout_s)   longest single wait, 600 s unless set
set_label(group, label)             what this rank is busy with ("step 12, task 3"), for messages
report_failure(group, message)      makes the others stop waiting, with this message: name the rank and the cause
explain_failure(group, problem, expired) -> str
                                    the same for a wait that broke, or lasted too long: asks all ranks what they are
                                    doing, and returns what keeps the run from going on
failure(group) -> str               the first failure of any rank, or ""; known_failure(group): without asking the store
enter_collective(group, name), leave_collective(group)
                                    around collectives of other process groups, which are counted: who is behind is seen
watch_work(group, work, doing)      a collective of tensors on a device: ended and told as a transfer is, if it hangs
set_store_host(group, rank, words)  who hosts the store (-1: no rank, but `words`), to be named if it does not answer
pulse(group, rank) -> int           grows as long as the rank's process lives; -1 where the store does not tell
set_far_group(group, far)           on a device, transfers between nodes take the process group `far` from here on
connect(ranks, group, exchange="ring", nodes=[], rows=True) -> int
                                    before the first task of these ranks: connects this one with those that it exchanges
                                    shards with, and if `rows` with all; says how many are new (on CPUs none)
measure_stalls(group, on)           from here on (or no more), what this rank's device waits for others is one span
stalled_s(group) -> list of float   the seconds of each span since the last call; none on a CPU
own_name(rank) -> str               "rank 5 (host b, pid 123)"
exit_on_interrupt()                 Ctrl-C ends this process with exit code 130, even while it waits in an operation
exit_within(seconds, code)          ends this process, should it not have ended by itself
release_group(group), release_all_groups()
create_thread_groups(name, size, device="cpu")
                                    ranks as threads of this process; rank r uses group f"{name}/{r}". On a device each
                                    thread makes a stream of its own the current one
create_mirror_group(name, size, rank, device="cpu")
                                    one rank of a group with nobody at the other end: what arrives is zeros. To measure
kernel_of(q) -> str                 the kernel that attends for queries like q: "cpu_flash", "cuda_flash", "npu_fusion"
                                    or "reference"
use_kernel(name)                    makes it one of these, or "auto" again
"""

from __future__ import annotations

import atexit
import importlib.metadata
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

LIBRARY_NAME = "libdhp_torch.so"

_loaded: Path | None = None
_library = torch.library.Library("dhp", "FRAGMENT")  # what the run-time calls in Python


def library_path() -> Path:
    """The op library beside this package, or the file that DHP_TORCH_LIBRARY names."""
    if chosen := os.environ.get("DHP_TORCH_LIBRARY"):
        return Path(chosen)
    import dhp

    # An editable install has two folders: the sources and the built files.
    for folder in dhp.__path__:
        if (path := Path(folder) / LIBRARY_NAME).exists():
            return path
    raise ImportError(
        f"dhp is installed without its op library for torch {torch.__version__}: `dhp build-ops` compiles it, which "
        "takes a C++ compiler and a minute"
    )


def built_for(path: Path) -> tuple[str, str]:
    """The versions of dhp whose sources the library at `path` was built of, and of torch that it was built for."""
    found = re.search(rb"dhp_torch of dhp ([0-9.]+) built for torch ([0-9A-Za-z.+_-]+)", path.read_bytes())
    if found is None:
        raise ImportError(f"{path} is not an op library of this dhp: `dhp build-ops` makes one")
    return found.group(1).decode(), found.group(2).decode()


def check() -> Path:
    """Where the library is; raises ImportError if there is none, or it was built for another torch or dhp."""
    path = library_path()
    of_dhp, for_torch = built_for(path)
    own, installed = importlib.metadata.version("dhp"), torch.__version__
    if of_dhp != own or for_torch.split("+")[0] != installed.split("+")[0]:
        raise ImportError(
            f"{path} was built of dhp {of_dhp} for torch {for_torch}, but here are dhp {own} and torch {installed}: "
            "`dhp build-ops` builds it again"
        )
    return path


def load() -> Path:
    """Loads the library, once. Raises ImportError as `check` does."""
    global _loaded
    if _loaded is not None:
        return _loaded
    path = check()
    torch.ops.load_library(path)
    torch.library.register_fake("dhp::ring_attention_with_lse")(_shapes_of_attention)
    _library.impl("batch_isend_irecv", _post_fused, "CompositeExplicitAutograd")
    torch.library.register_fake("dhp::ring_attention_backward")(_shapes_of_gradients)
    _loaded = path
    atexit.register(release)  # before the interpreter takes the process groups down
    return path


def packed_call(
    seq_tokens: Sequence[int], ranks: Sequence[int], exchange: str = "ring", nodes: Sequence[int] = ()
) -> torch.Tensor:
    """What `torch.ops.dhp.ring_attention_packed` takes as its call: padded global lengths, the group in ring order, and
    the node of each of its ranks (none: all on one). int64 on the host."""
    name = exchange.encode()
    counts = [len(seq_tokens), len(ranks), len(nodes), len(name)]
    return torch.tensor([*counts, *seq_tokens, *ranks, *nodes, *name], dtype=torch.int64)


def _shapes_of_attention(q: torch.Tensor, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
    """What tracing needs to know of the attention: nothing is sent."""
    sums = torch.float64 if q.dtype == torch.float64 else torch.float32
    return torch.empty_like(q, memory_format=torch.contiguous_format), q.new_empty(q.shape[:2], dtype=sums)


def _post_fused(group: str, kinds: list[str], tensors: list[torch.Tensor], ranks: list[int]) -> torch.ScriptObject:
    """A group of transfers by the method that a backend without coalescing has for it (older torch_npu: HCCL)."""
    of: Any = dist.distributed_c10d._resolve_process_group(group)  # type: ignore[arg-type]  # it is a str
    backend = of._get_backend(tensors[0].device)
    if not hasattr(backend, "batch_isend_irecv"):
        raise RuntimeError(
            f"the backend {backend.name()} can neither coalesce transfers nor start a batch of them: one by one, two "
            "ranks could wait for each other; take a newer torch with that backend"
        )
    work: torch.ScriptObject = backend.batch_isend_irecv(kinds, tensors, ranks).boxed()
    return work


def _shapes_of_gradients(
    dout: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object
) -> tuple[torch.Tensor, ...]:
    return tuple(torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))


def release() -> None:
    """Ends the failure watches of all groups; a rank that hosts the store stays a little for the others."""
    if _loaded is not None:
        torch.ops.dhp.release_all_groups()
