"""Who has been paused itself takes nobody for silent."""

from __future__ import annotations

import time

import pytest
import torch.distributed as dist

from dhp.run import patience
from dhp.run.joining import SILENT_S, Joining
from dhp.run.rendezvous import Place


def pause(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """As the clock tells after it."""
    late = time.monotonic() - patience.monotonic() - seconds
    monkeypatch.setattr(patience, "monotonic", lambda: time.monotonic() - late)


def test_a_pause_counts_as_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = patience.AwakeClock(0.5)
    for _ in range(4):
        pause(monkeypatch, 0.25)
        clock()
    assert clock() == pytest.approx(1.0, abs=0.1)
    pause(monkeypatch, 3600)
    assert clock() == pytest.approx(1.5, abs=0.1)


def test_an_answer_is_waited_for_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> str:
        pause(monkeypatch, 60)
        time.sleep(2 * patience.LOOK_S)  # the waiting thread has looked at the clock
        return "here"

    assert patience.within(patience.ANSWER_S, answer) == "here"
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        patience.within(0.1, lambda: time.sleep(1))


def test_ranks_that_were_paused_together_do_not_accuse_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DHP_LAUNCHER", "")  # hosts the store
    store = dist.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
    places = [Place(rank, 2, "127.0.0.1", store.port) for rank in range(2)]
    one, other = [Joining(store, "test", place, f"rank {place.rank}", {"who": "0 0 somebody"}) for place in places]
    try:
        assert one._look(SILENT_S) == ""
        pause(monkeypatch, 4 * SILENT_S)
        assert one._look(SILENT_S) == ""
        other._ended.set()
        end = time.monotonic() + 60
        while not (cause := one._look(2.0)) and time.monotonic() < end:
            time.sleep(0.1)
        assert "lost while the ranks were being connected: killed, frozen, or cut off" in cause
    finally:
        one.end()
