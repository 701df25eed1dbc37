"""History: which stages a run has been through, as its logs and checkpoints tell."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

RUN_FILE = "run.json"
"""Beside each checkpoint: the step, and what a run that goes on must agree with."""


def untrained_stages(out: Path, stages: Sequence[str]) -> list[str]:
    """Name the stages that a run has not been through, or not to their end.

    Args:
        out: Folder of the run.
        stages: Those that matter, in their order.

    Returns:
        Names; with the steps done and wanted where a stage was interrupted.
    """
    missing = []
    for stage in stages:
        if not (out / f"{stage}.jsonl").is_file():
            missing.append(stage)
            continue
        done, wanted = _progress(out / stage)
        if done < wanted:
            missing.append(f"{stage} (interrupted after {done} of {wanted} steps)")
    return missing


def _progress(folder: Path) -> tuple[int, int]:
    """Steps done and wanted of a stage's last checkpoint; 0 of 0 where there is none that tells."""
    told = sorted(folder.glob(f"*/{RUN_FILE}"))
    if not told:
        return 0, 0
    try:
        values = json.loads(told[-1].read_text())
        return int(values["step"]), int(values["about"]["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0
