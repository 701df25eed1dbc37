"""Recording, interrupts: Ctrl-C waits while HDF5 works on a file through Python.

HDF5 calls `TailFile` for every read and write. A signal handler that raised in there, as Python's own for
Ctrl-C does, would look to HDF5 like a failed disk: rows of different number in one episode, or a crash when
it unwinds (seen with HDF5 2.0: a double free in H5Ocopy).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Those whose handlers commonly raise."""


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Run the block to its end, and only then the handlers of the signals that came meanwhile.

    Python runs handlers in the main thread; elsewhere, and for signals without a handler in Python, nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    pending: dict[int, FrameType | None] = {}

    def defer(number: int, frame: FrameType | None) -> None:
        pending[number] = frame

    for number, handler in handlers.items():
        if callable(handler):
            signal.signal(number, defer)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        for came, frame in pending.items():
            handler = handlers[signal.Signals(came)]
            if callable(handler):
                handler(came, frame)
