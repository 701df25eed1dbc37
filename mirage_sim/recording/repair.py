"""Recording, repair: cut off what a killed writer left behind the last whole episode, check the others."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from mirage_sim.errors import FileFormatError
from mirage_sim.recording.crash_safe_file import NEW_SUFFIX, CrashSafeFile
from mirage_sim.recording.reader import HDF5Reader


@dataclass(frozen=True)
class RepairReport:
    """What `repair` found."""

    episodes: int
    """Episodes that the file holds."""
    torn_bytes: int
    """Bytes of an unfinished episode that were cut off."""
    damaged: tuple[str, ...]
    """Episodes that cannot be read, which no kill explains: the disk or a copy failed."""
    leftovers: int
    """Hidden files of writers killed while they made the recording, removed."""


def repair(path: str | Path) -> RepairReport:
    """Cut the torn tail off a recording and read every episode once.

    A recording needs no repair to be opened; a torn tail only takes room, and the next writer cuts it too.

    Args:
        path: The recording.

    Returns:
        What was found.

    Raises:
        FileFormatError: If it is no recording, or is cut short.
        RecordingError: If a writer is using it.
    """
    path = Path(path)
    with contextlib.closing(CrashSafeFile(path)) as file:
        torn_bytes = file.torn_bytes
        leftovers = [
            entry
            for entry in path.parent.iterdir()
            if entry.name.startswith(f".{path.name}.") and entry.suffix == NEW_SUFFIX
        ]
        for entry in leftovers:
            entry.unlink(missing_ok=True)
        reader = HDF5Reader(path)
        damaged = []
        for name in reader.episodes:
            try:
                episode = reader[name]
            except FileFormatError:
                damaged.append(name)
                continue
            rows = {len(value) - 1 for value in episode.frames.values()}
            rows |= {len(episode.actions), len(episode.rewards), int(episode.attrs["num_samples"])}
            if len(rows) != 1:
                damaged.append(name)
    return RepairReport(len(reader), torn_bytes, tuple(damaged), len(leftovers))
