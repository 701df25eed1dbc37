"""Command line, `repair`: cut off what a killed recorder left behind, or save what a broken file holds."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim repair`."""
    parser.add_argument("file", type=Path, help="the recording")
    parser.add_argument(
        "--out",
        type=Path,
        help="new recording for the whole episodes of a file that no longer opens (default: <name>-repaired)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Repair a recording.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        What was found; `passed` is false if an episode cannot be read.

    Raises:
        FileFormatError: If it is no recording, or no episode of it is whole.
        RecordingError: If a recorder is using it, or `--out` exists or cannot be written.
    """
    from mirage_sim.recording import repair

    report = repair(args.file, args.out)
    return {**asdict(report), "passed": not report.damaged}
