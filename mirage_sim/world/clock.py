"""Clock: how long each part of a segment took."""

from __future__ import annotations

import time

import torch


def now(device: torch.device) -> float:
    """Seconds of a steady clock, once all that a CUDA device was given is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class Clock:
    """Milliseconds between one `lap` and the next."""

    def __init__(self, device: torch.device) -> None:
        """Start now; a CUDA device is waited for at every lap."""
        self._device = device
        self.laps: dict[str, float] = {}
        self._last = now(device)

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `laps[name]`."""
        present = now(self._device)
        self.laps[name] = self.laps.get(name, 0.0) + 1000.0 * (present - self._last)
        self._last = present
