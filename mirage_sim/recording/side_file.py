"""Recording, side file: the nameless HDF5 file of a running episode, which vanishes with the process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py

from mirage_sim.errors import RecordingError, StateError, reason
from mirage_sim.recording.crash_safe_file import LIBRARY_BOUNDS
from mirage_sim.recording.interrupts import interrupts_deferred
from mirage_sim.recording.tail_file import TailFile


class SideFile:
    """An HDF5 file without a name.

    HDF5 writes through the descriptor when it closes the file, so the descriptor has to live longer. The
    `TailFile` owns it, and HDF5 holds the `TailFile`: whatever drops this object, and in whatever order, the
    descriptor goes last.
    """

    def __init__(self, folder: Path) -> None:
        """Make the file.

        Args:
            folder: Where it takes its room.

        Raises:
            RecordingError: If it cannot be written.
        """
        self._folder = folder
        try:
            descriptor_owner = tempfile.TemporaryFile(dir=folder)
        except OSError as error:
            raise RecordingError(f"an episode could not be begun in {folder}: {reason(error)}") from error
        self._tail = TailFile(descriptor_owner.fileno(), 0, owner=descriptor_owner)
        with self.writing():
            self._file: h5py.File | None = h5py.File(self._tail, "w", libver=LIBRARY_BOUNDS, rdcc_nbytes=0)

    @property
    def size(self) -> int:
        """Bytes of it."""
        return self._tail.size

    @property
    def open(self) -> bool:
        """Whether it can be written."""
        return self._file is not None

    @property
    def file(self) -> h5py.File:
        """The file, while it is open."""
        if self._file is None:
            raise StateError("the running episode has ended or failed")
        return self._file

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Report a write that failed in the block, in which an interrupt waits."""
        with interrupts_deferred():
            yield
            failure = self._tail.failure
            if failure is not None:
                self.discard()
                place = f"the running episode could not be written in {self._folder} and is lost"
                raise RecordingError(f"{place}: {reason(failure)}") from failure

    def discard(self) -> None:
        """Drop the file and its room; harmless when done twice."""
        self._tail.detached = True
        with interrupts_deferred():
            if self._file is not None:
                self._file.close()
                self._file = None
            self._tail.close()
