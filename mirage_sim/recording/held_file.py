"""Recording, held files: an HDF5 file that is opened for each read, or once for a `with` block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py

from mirage_sim.errors import FileFormatError


class HeldFile:
    """What readers of HDF5 files share; they can be pickled.

    In a `with` block the file stays open, which is faster for many small reads, and shows nothing later.
    """

    content = "an HDF5 file"
    """What the file is to be, for the message."""

    def __init__(self, path: str | Path) -> None:
        """Remember a path; nothing is opened.

        Args:
            path: The file.
        """
        self.path = Path(path)
        self._file: h5py.File | None = None

    def __enter__(self) -> Self:
        """Keep the file open until the block ends."""
        self._file = self._open_now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind."""
        return {**self.__dict__, "_file": None}

    @contextlib.contextmanager
    def _open(self) -> Iterator[h5py.File]:
        if self._file is not None:
            yield self._file
            return
        with self._open_now() as file:
            yield file

    def _open_now(self) -> h5py.File:
        if not self.path.is_file():
            raise FileFormatError(f"path must be {self.content}, got {self.path}, which is no file")
        try:
            # Without locks: the file is whole at every moment, also while it grows, and some network disks
            # have none.
            return h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise FileFormatError(f"{self.path} must be a readable HDF5 file: {error}") from error
