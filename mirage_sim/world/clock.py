"""Clock: how long each part of a segment took."""

from __future__ import annotations

import time

import torch


class Clock:
    """Milliseconds between one `lap` and the next."""

    def __init__(self, device: torch.device) -> None:
        """Start now; a CUDA device is waited for at every lap."""
        self._device = device
        self.laps: dict[str, float] = {}
        self._last = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `laps[name]`."""
        now = self._now()
        self.laps[name] = self.laps.get(name, 0.0) + 1000.0 * (now - self._last)
        self._last = now
