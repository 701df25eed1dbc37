"""Recording, held files: an HDF5 file that is opened for each read, or once for a `with` block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Self

import h5py

from mirage_sim.errors import FileFormatError, MirageError

_OF_THE_PROCESS = ("_file", "_users", "_lock")


class HeldFile:
    """What readers of HDF5 files share; they can be pickled, and used by several threads.

    In a `with` block the file stays open, which is faster for many small reads, and shows nothing later.
    Where several threads have such blocks, the last one closes the file.
    """

    content = "an HDF5 file"
    """What the file is to be, for the message."""

    def __init__(self, path: str | Path) -> None:
        """Remember a path; nothing is opened.

        Args:
            path: The file.
        """
        self.path = Path(path)
        self._begin()

    def _begin(self) -> None:
        self._file: h5py.File | None = None
        self._users = 0
        self._lock = Lock()

    def __enter__(self) -> Self:
        """Keep the file open until the block ends."""
        with self._lock:
            if self._file is None:
                self._file = self._open_now()
            self._users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file, unless another block or call uses it."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._file is not None:
                self._file.close()
                self._file = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind."""
        return {name: value for name, value in self.__dict__.items() if name not in _OF_THE_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Begin with the file closed."""
        self.__dict__.update(state)
        self._begin()

    @contextlib.contextmanager
    def _open(self) -> Iterator[h5py.File]:
        with self._lock:
            held = self._file
            self._users += held is not None
        try:
            if held is not None:
                yield held
            else:
                with self._open_now() as file:
                    yield file
        except MirageError:
            raise
        except (KeyError, OSError, RuntimeError) as error:
            raise FileFormatError(f"{self.path} is damaged: {error}") from error
        finally:
            if held is not None:
                self.__exit__(None, None, None)

    def _open_now(self) -> h5py.File:
        if not self.path.is_file():
            raise FileFormatError(f"path must be {self.content}, got {self.path}, which is no file")
        try:
            # Without locks: the file is whole at every moment, also while it grows, and some network disks
            # have none.
            return h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise FileFormatError(f"{self.path} must be a readable HDF5 file: {error}") from error
