"""Signals that come while HDF5 works: none is lost, and none is kept from its handler later."""

from __future__ import annotations

import contextlib
import signal
from typing import Any

import pytest

from mirage_sim.recording.interrupts import interrupts_deferred


@pytest.fixture
def handlers() -> Any:
    """Handlers that raise, in place of the process's own; what came, in order."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    yield came, handle
    for number, handler in before.items():
        signal.signal(number, handler)


def test_of_two_signals_none_is_lost(handlers: Any) -> None:
    came, handle = handlers
    deferred = contextlib.ExitStack()
    deferred.enter_context(interrupts_deferred())
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert came == []
    with pytest.raises(KeyboardInterrupt, match=str(int(signal.SIGTERM))):
        deferred.close()
    assert came == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM) is handle


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_a_signal_while_handlers_are_exchanged_keeps_the_others(
    handlers: Any, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    came, _ = handlers
    exchange, count = signal.signal, 0

    def interrupted(number: int, handler: Any) -> Any:
        nonlocal count
        result = exchange(number, handler)
        count += 1
        if count == moment:
            signal.raise_signal(signal.SIGINT)
        return result

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt), interrupts_deferred():
        pass
    monkeypatch.undo()
    assert came == [signal.SIGINT]
    for number in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_a_stand_in_that_is_left_passes_signals_on(handlers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    came, _ = handlers
    exchange = signal.signal
    with interrupts_deferred():
        monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    monkeypatch.undo()
    assert signal.signal is exchange
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert came == [signal.SIGTERM]
