"""Recording, files: a file appears whole at its place or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def temporary_beside(path: Path, suffix: str) -> Iterator[Path]:
    """Make an empty file beside `path`, to be renamed or linked to it, and remove its name at the end.

    Args:
        path: The file to be written in the end.
        suffix: Ending of the temporary name.

    Yields:
        The temporary path, with the permissions that a new file gets.

    Raises:
        OSError: If the folder cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=suffix, dir=path.parent)
    temporary = Path(name)
    try:
        os.close(handle)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
