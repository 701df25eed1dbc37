"""Crowding: notice that other processes take the cores, which slows threads that wait for each other."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

SWITCHES_PER_SECOND = 100.0
"""How often a second the system takes a core away in a crowded step; alone it is a few times."""
STEPS = 10
"""Crowded steps in a row after which the user is warned, once in a process."""

_crowded_steps = 0


@contextmanager
def watch_crowding() -> Iterator[None]:
    """Count steps in which the system often interrupted the threads, and warn once after `STEPS` in a row.

    Threads of OpenMP wait for each other hundreds of times in a step. Where another process holds one of
    their cores, each wait may last a time slice: a step then takes up to thirty times as long.
    """
    global _crowded_steps
    if resource is None or _crowded_steps >= STEPS or torch.get_num_threads() == 1:
        yield
        return
    switches, began = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, time.perf_counter()
    yield
    switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
    crowded = switches > SWITCHES_PER_SECOND * (time.perf_counter() - began)
    _crowded_steps = _crowded_steps + 1 if crowded else 0
    if _crowded_steps == STEPS:
        logging.getLogger(__name__).warning(
            "Other processes or threads use the cores on which mirage_sim computes with %d threads. These "
            "then wait for each other, and a step becomes many times slower. Pass threads=1 to the "
            "environment or set OMP_NUM_THREADS=1. To keep several threads, set GOMP_SPINCOUNT=0: they sleep "
            "while they wait. Both variables must be set before Python starts.",
            torch.get_num_threads(),
        )
