"""Entry points of commands that import for seconds: Ctrl-C ends them without a traceback from their first moment on."""

from __future__ import annotations


def index() -> int:
    """`dhp index`."""
    try:
        from dhp.data.index import main

        return main()
    except KeyboardInterrupt:
        from dhp.output import complain

        complain("dhp index: interrupted; nothing was written")
        return 130
