"""Recording, repair: cut off what a killed writer left behind, or save what is whole in a broken file."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import h5py

from mirage_sim.errors import FileFormatError, RecordingError
from mirage_sim.files import temporary_prefix
from mirage_sim.recording.crash_safe_file import NEW_SUFFIX, CrashSafeFile
from mirage_sim.recording.reader import HDF5Reader
from mirage_sim.recording.salvage import DAMAGE, is_whole, salvage


@dataclass(frozen=True)
class RepairReport:
    """What `repair` found."""

    episodes: int
    """Episodes that the recording holds, or that were saved from it."""
    torn_bytes: int
    """Bytes of an unfinished episode that were cut off."""
    damaged: tuple[str, ...]
    """Episodes that cannot be read, which no kill explains: the disk or a copy failed."""
    leftovers: int
    """Hidden files of writers killed while they made the recording, removed."""
    saved: tuple[str, ...] = ()
    """Episodes that were whole in a file that no longer opens, and were copied to `saved_to`."""
    saved_to: str | None = None
    """The new recording; None where the old one opens."""


def repair(path: str | Path, out: str | Path | None = None) -> RepairReport:
    """Cut the torn tail off a recording and read every episode once.

    A recording needs no repair to be opened; a torn tail only takes room, and the next writer cuts it too.
    From a file that no longer opens, because it was cut short or its front is damaged, every whole episode is
    copied to a new recording; the file itself stays as it is.

    Args:
        path: The recording.
        out: The new recording of such a file; by default `<name>-repaired` beside it.

    Returns:
        What was found.

    Raises:
        FileFormatError: If it is no recording, or no episode of it is whole.
        RecordingError: If a writer is using it, or `out` exists or cannot be written.
    """
    path = Path(path)
    try:
        file = CrashSafeFile(path)
    except FileFormatError as error:
        return _save_episodes(path, out, error)
    with contextlib.closing(file):
        leftovers = [
            entry
            for entry in path.parent.iterdir()
            if entry.name.startswith(temporary_prefix(path, NEW_SUFFIX)) and entry.suffix == NEW_SUFFIX
        ]
        for entry in leftovers:
            entry.unlink(missing_ok=True)
        try:
            with h5py.File(path, "r", locking=False) as opened:
                for name in set(opened["/"]) & {"data"}:
                    list(opened[name])
        except DAMAGE as error:
            unreadable = FileFormatError(f"{path} must be a readable HDF5 file: {error}")
            return _save_episodes(path, out, unreadable)
        names = HDF5Reader(path).episodes
        with h5py.File(path, "r", locking=False) as opened:
            damaged = tuple(name for name in names if not _is_whole(opened, name))
        return RepairReport(len(names), file.torn_bytes, damaged, len(leftovers))


def _is_whole(file: h5py.File, name: str) -> bool:
    try:
        return is_whole(file["data"][name])
    except DAMAGE:
        return False


def _save_episodes(path: Path, out: str | Path | None, error: FileFormatError) -> RepairReport:
    """Save the episodes of a file that did not open with `error`."""
    if not path.is_file():
        raise error
    place = path.with_name(f"{path.stem}-repaired{path.suffix}") if out is None else Path(out)
    if place.exists():
        raise RecordingError(f"out must not exist, got {place}")
    try:
        found = salvage(path, place)
    except FileFormatError:
        raise error from None
    if not found.saved:
        raise FileFormatError(f"{path} has no whole episode, got {list(found.lost)}, all damaged") from error
    return RepairReport(len(found.saved), 0, found.lost, 0, found.saved, str(place))
