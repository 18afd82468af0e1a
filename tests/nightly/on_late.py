"""`dhp train` on the late device (tests/device), which comes into the process as a driver would.

LATE  policies of compute and of transfers, as in "random random"
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch


def main(arguments: list[str] | None = None) -> int:
    sys.path.append(str(Path(__file__).parents[1] / "device"))
    import late
    from dhp import train
    from dhp.run import ops

    compute, transfers = os.environ.get("LATE", "random random").split()
    late.arrange(compute, transfers, seed=int(os.environ.get("RANK", "0")))
    ops.load()
    torch.ops.dhp.use_kernel("cuda_flash")  # the code of CUDA's kernel, on the operators that late has
    return train.main(arguments)


if __name__ == "__main__":
    from dhp.run import commands

    commands.end(main())
