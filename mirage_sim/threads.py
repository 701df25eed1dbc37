"""Threads: how many a process may use, and how those of OpenMP wait; imports no torch."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
from functools import cache
from pathlib import Path

from mirage_sim.errors import InputError, InputTypeError, StateError

WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Environment variables that say how idle threads of OpenMP wait; read once, when torch is imported."""

_CGROUP = Path("/sys/fs/cgroup")


def _was_forked() -> bool:
    """Whether this process inherited torch from the one that forked it, as far as can be known."""
    process = multiprocessing.current_process()
    method = getattr(process, "_start_method", None) or multiprocessing.get_start_method(allow_none=True)
    return "torch" in sys.modules and is_worker() and method == "fork"


@cache
def usable_cores() -> int:
    """Count the cores that this process may use: its affinity, and the quota of its control group.

    Returns:
        At least 1; the load of the moment does not matter.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota(_CGROUP, _own_group()))))


def _own_group() -> str:
    """Path of this process's control group below the root of the hierarchy, "" where there is none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    groups = [line.split(":", 2) for line in lines]
    unified = [path for number, _, path in groups if number == "0"]
    return unified[0].strip("/") if unified else ""


def _quota(root: Path, group: str) -> float:
    """Smallest quota of a control group and those above it, in cores; infinite without one."""
    quotas = [math.inf]
    place = root / group
    for folder in (place, *place.parents):
        if folder != root and root not in folder.parents:
            break
        quotas.append(_read_quota(folder / "cpu.max"))
    first = root / "cpu"  # version 1 of control groups
    try:
        limit = int((first / "cpu.cfs_quota_us").read_text())
        period = int((first / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        limit, period = -1, 0
    if limit > 0 and period > 0:
        quotas.append(limit / period)
    return min(quotas)


def _read_quota(path: Path) -> float:
    """Quota in a file of the form "MICROSECONDS PERIOD", in cores; infinite for "max" and without a file."""
    try:
        limit, period = path.read_text().split()
        return int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def check_threads(threads: int | None) -> int | None:
    """Check a number of threads.

    Args:
        threads: At least 1, or `None` for the default.

    Returns:
        The same.

    Raises:
        InputTypeError: If it is no integer.
        InputError: If it is below 1.
    """
    if threads is None:
        return None
    if isinstance(threads, bool) or not hasattr(threads, "__index__"):
        raise InputTypeError(f"threads must be None or an integer, got {threads!r}")
    number = int(threads)
    if number < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    return number


def threads_to_use(threads: int | None, allowed: int) -> int:
    """Say with how many threads a call computes.

    Args:
        threads: What was asked for; `None` for the default: the usable cores, at most `allowed`, and 1 in a
            worker of a pool or vector environment, which share the cores among them.
        allowed: How many torch uses.

    Returns:
        The number of threads.

    Raises:
        StateError: If more than one was asked for in a forked process, where OpenMP's threads are gone and
            waiting for them never ends.
    """
    if _forked:
        if threads is not None and threads > 1:
            raise StateError(
                f"threads must be 1 in a process that was forked after torch was loaded, got {threads}: "
                'start workers with context="spawn" (AsyncVectorEnv, multiprocessing) to use more'
            )
        return 1
    if threads is not None:
        return threads
    return 1 if is_worker() else min(usable_cores(), allowed)


def is_worker() -> bool:
    """Whether this process was started by `multiprocessing`, as workers of vector environments are."""
    return multiprocessing.parent_process() is not None


def wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has chosen otherwise.

    It works only before torch is imported, and is for workers: they share the cores with each other. Where a
    process has its cores for itself, it makes a step 1.6 times slower.
    """
    if "torch" not in sys.modules and not waiting_is_chosen():
        os.environ["GOMP_SPINCOUNT"] = "0"


def waiting_is_chosen() -> bool:
    """Whether the environment says how OpenMP's threads wait."""
    return any(name in os.environ for name in WAIT_VARIABLES)


def _mark_forked() -> None:
    global _forked
    _forked = "torch" in sys.modules


_forked = _was_forked()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark_forked)
