"""Files: a file or folder appears whole at its place, or nothing of it is left behind.

File systems differ in what they can do. Where one has no hard links, no permissions or no way to bring a
folder to the disk (network shares, exFAT, mounted clouds), the next best is done without a word.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from mirage_sim.errors import FileWriteError, InputError, MirageError, reason

UNSUPPORTED = frozenset(
    (errno.EINVAL, errno.EBADF, errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
)
"""Error numbers by which file systems and systems refuse what they do not know."""
NAME_BYTES = 255
"""Longest name of a file on the usual file systems."""
RANDOM_BYTES = 8
"""What `tempfile` puts between prefix and suffix."""


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
    handle, name = tempfile.mkstemp(prefix=temporary_prefix(path, suffix), suffix=suffix, dir=path.parent)
    temporary = Path(name)
    try:
        os.close(handle)
        _allow(temporary, 0o666)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_prefix(path: Path, suffix: str) -> str:
    """Beginning of the temporary names beside a file, which are no longer than a name may be.

    Args:
        path: The file.
        suffix: Ending of the temporary name.

    Returns:
        The file's name, hidden and shortened where it must be.
    """
    room = NAME_BYTES - RANDOM_BYTES - len("..") - len(os.fsencode(suffix))
    return f".{os.fsencode(path.name)[: max(0, room)].decode(errors='ignore')}."


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all; an existing one is replaced and keeps its permissions.

    Args:
        path: The file, in an existing folder. Where it is a symbolic link, the file it leads to is written.

    Yields:
        A temporary path beside it, with the same ending, to be written in the block.

    Raises:
        FileWriteError: If it cannot be written; what was there before is still whole.
    """
    try:
        place = Path(os.path.realpath(path))
        mode = place.stat().st_mode if place.is_file() else None
        with temporary_beside(place, path.suffix) as temporary:
            if mode is not None:
                _chmod(temporary, stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IWUSR)
            yield temporary
            _sync_file(temporary)
            if mode is not None:
                _chmod(temporary, stat.S_IMODE(mode))
            temporary.replace(place)
        sync_folder(place.parent)
    except MirageError:
        raise
    except (OSError, SafetensorError) as error:
        raise FileWriteError(f"{path} could not be written: {reason(error)}") from error


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents where they are missing, and remove them if the block leaves them empty.

    Args:
        folder: It may exist.

    Raises:
        FileWriteError: If it is a file, or cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not os.path.lexists(each)]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise FileWriteError(f"{folder} must be a folder or a place for one, got a file") from None
        except (OSError, ValueError) as error:
            raise FileWriteError(f"{folder} could not be made: {reason(error)}") from error
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError, ValueError):
                each.rmdir()
        raise


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Make a folder that appears whole at its place, or not at all.

    Args:
        folder: Its place; it may exist if it is empty.

    Yields:
        A temporary folder beside it, to be filled; it is gone afterwards, whatever happened.

    Raises:
        InputError: If the place is taken.
        FileWriteError: If it cannot be written.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder must be new or empty, got {folder}")
    with made_folder(folder.parent):
        temporary: Path | None = None
        try:
            prefix = temporary_prefix(folder, ".tmp")
            temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=folder.parent))
            _allow(temporary, 0o777)
            yield temporary
            os.replace(temporary, folder)
            sync_folder(folder.parent)
        except MirageError:
            raise
        except (OSError, SafetensorError) as error:
            raise FileWriteError(f"{folder} could not be written: {reason(error)}") from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)


def place_new(temporary: Path, path: Path) -> None:
    """Give a finished file its name, unless the name is taken.

    Args:
        temporary: The file, in the same folder; its own name may go.
        path: Its name to be.

    Raises:
        FileExistsError: If `path` exists; it is left alone.
        OSError: If the folder cannot be written.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (AttributeError, OSError):
        # Without hard links, the name is taken first by an empty file, as exclusively as a link takes it.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    try:
        sync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can do that.

    Args:
        folder: An existing folder.

    Raises:
        OSError: If the disk is full or broken.
    """
    _sync(folder, os.O_RDONLY)


def _sync_file(path: Path) -> None:
    _sync(path, os.O_RDWR)


def _sync(path: Path, flags: int) -> None:
    try:
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _allow(path: Path, mode: int) -> None:
    """Give a temporary file or folder the permissions that a new one gets."""
    umask = os.umask(0)
    os.umask(umask)
    _chmod(path, mode & ~umask)


def _chmod(path: Path, mode: int) -> None:
    """Set permissions, where the file system has any."""
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
