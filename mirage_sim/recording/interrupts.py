"""Recording, interrupts: Ctrl-C waits while HDF5 works on a file through Python.

HDF5 calls `TailFile` for every read and write. A signal handler that raised in there, as Python's own for
Ctrl-C does, would look to HDF5 like a failed disk: rows of different number in one episode, or a crash when
it unwinds (seen with HDF5 2.0: a double free in H5Ocopy).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Those whose handlers commonly raise."""


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Run the block to its end, and only then the handlers of the signals that came meanwhile.

    All of these run; what the first of them raises is raised then. Python runs handlers in the main thread;
    elsewhere, and for signals without a handler in Python, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deferral = _Deferral()
    try:
        deferral.begin()
        yield
    finally:
        deferral.end()


class _Deferral:
    """Stands in for the handlers of `_SIGNALS`."""

    def __init__(self) -> None:
        present = {number: signal.getsignal(number) for number in _SIGNALS}
        self._handlers = {number: each for number, each in present.items() if callable(each)}
        self._pending: dict[signal.Signals, FrameType | None] = {}
        self._over = False

    def begin(self) -> None:
        """Take the place of the handlers."""
        for number in self._handlers:
            signal.signal(number, self._defer)

    def end(self) -> None:
        """Give their place back and run those that are due; raise what the first of them raises."""
        failures: list[BaseException] = []
        try:
            for number, handler in self._handlers.items():
                # One that is back in its place may run, and raise, before the next one is.
                _attempt(failures, signal.signal, number, handler)
        finally:
            # Where an interrupt kept a place from being given back, `_defer` passes signals on from here.
            self._over = True
            while self._pending:
                number = next(iter(self._pending))
                frame = self._pending.pop(number)
                _attempt(failures, self._handlers[number], number, frame)
        if failures:
            raise failures[0]

    def _defer(self, number: int, frame: FrameType | None) -> None:
        if self._over:
            self._handlers[signal.Signals(number)](number, frame)
        else:
            self._pending[signal.Signals(number)] = frame


def _attempt(failures: list[BaseException], call: Callable[..., Any], *arguments: Any) -> None:
    """Call, and keep what is raised."""
    try:
        call(*arguments)
    except BaseException as error:  # noqa: BLE001  # an interrupt above all
        failures.append(error)
