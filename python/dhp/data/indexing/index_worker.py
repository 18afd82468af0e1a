"""A process that reads lines for `dhp index`: index_pool.py starts it, and it ends when its pipe does."""

from __future__ import annotations

from typing import Any

from dhp.data.decoding.worker_process import pipe_of_parent


def main(pipe: Any) -> None:
    import torch

    from dhp._core import InputError
    from dhp.data.indexing.scan import LineReader
    from dhp.data.text import Encoder

    torch.set_num_threads(1)
    try:
        setup = pipe.recv()
        try:
            encoder = Encoder(setup.model, setup.media_roots, setup.media_cache)
            reader = LineReader(setup.data, encoder, setup.verify)
        except InputError as error:
            pipe.send(error)
            return
        pipe.send("ready")
        while True:
            pipe.send([reader.read(item) for item in pipe.recv()])
    except (EOFError, OSError):
        return  # nobody asks any more


if __name__ == "__main__":
    main(pipe_of_parent())
