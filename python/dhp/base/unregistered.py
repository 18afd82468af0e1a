"""Whether families that are not registered may be tried: a variable of the environment, which all processes of a run
have."""

from __future__ import annotations

import os

ALLOWED = "DHP_ALLOW_UNREGISTERED"


def allow() -> None:
    os.environ[ALLOWED] = "1"


def allowed() -> bool:
    return os.environ.get(ALLOWED) == "1"
