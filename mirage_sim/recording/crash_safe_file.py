"""Recording, file commit: an HDF5 file to which whole episodes are added so that a kill never harms it.

A transaction opens the file through a `TailFile`. HDF5 appends the new objects behind the committed end,
where nothing refers to them. The two groups whose members changed, the root and `data`, get a new header in
space that nothing refers to either; the data are brought to the disk; then one write of 48 bytes exchanges
the superblock, and the file has the new root and the new end. A process killed before that write leaves the
old file with a tail that every HDF5 reader ignores (`repair` cuts it off); killed after it, the new one.
There is no moment at which the file does not open, no copy of the file is made, and it stays a single
ordinary HDF5 file throughout.

The price: `data` keeps its members in its header, rewritten at each commit (about 30 bytes an episode, into
two places that take turns), and takes at most 65,000 of them.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import struct
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py

from mirage_sim.errors import FileFormatError, MirageError, RecordingError, StateError, reason
from mirage_sim.files import UNSUPPORTED, place_new, temporary_beside
from mirage_sim.recording.interrupts import interrupts_deferred
from mirage_sim.recording.object_header import (
    MAX_COMPACT_LINKS,
    SUPERBLOCK_BYTES,
    ObjectHeader,
    Superblock,
)
from mirage_sim.recording.tail_file import TailFile, read_at, write_at

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LIBRARY_BOUNDS = ("v108", "v114")
"""HDF5 format bounds of all files written: superblock 2, and virtual datasets allowed."""
TRASH = "trash"
"""Root group in which a transaction puts what it replaces; it is left out of the committed root."""

NEW_SUFFIX = ".new"
"""Ending of the hidden file in which a recording begins."""

_OF_HDF5 = (OSError, KeyError, RuntimeError, ValueError)
"""What h5py raises where HDF5 fails."""
_BUSY = (errno.EACCES, errno.EAGAIN)


class CrashSafeFile:
    """An HDF5 file open for appending, locked against other writers until it is closed or dropped.

    It belongs to the process that opened it. One forked from it has no part in the file; its copy of this
    object can only be closed. Systems without `fcntl` have no lock.
    """

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        """Open and lock the file, and cut off a torn tail.

        Args:
            path: The file; it must exist (see `create`).
            fsync: Bring every commit to the disk, so that it also survives a power cut.

        Raises:
            FileFormatError: If it is no HDF5 file that this class can append to.
            RecordingError: If another writer has it.
        """
        self.path = path
        self._fsync = fsync
        self._process = os.getpid()
        self._live: tuple[int, int] | None = None
        self._spare: tuple[int, int] | None = None
        try:
            self._descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise FileFormatError(f"{path} must be a file that can be written: {reason(error)}") from error
        # Without `atexit`: what stores running episodes then does so through this file.
        self._release = weakref.finalize(self, _release, self._descriptor, self._process)
        self._release.atexit = False
        try:
            self._lock()
            self._superblock = self._read_superblock()
            self.torn_bytes = os.fstat(self._descriptor).st_size - self._superblock.end
            if self.torn_bytes > 0:
                os.ftruncate(self._descriptor, self._superblock.end)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(path: Path, fill: Callable[[h5py.File], None]) -> None:
        """Put a new file at `path`, whole or not at all.

        Args:
            path: Where nothing may be yet.
            fill: Writes the first content, `data` among it, into the file it gets.

        Raises:
            RecordingError: If `path` exists or cannot be written.
        """
        if path.is_dir():
            raise RecordingError(f"path must be a file, got {path}, which is a folder")
        if not path.parent.is_dir():
            raise RecordingError(f"{path} could not be created: its folder does not exist")
        try:
            with temporary_beside(path, NEW_SUFFIX) as temporary:
                temporary.write_bytes(_first_content(fill))
                with contextlib.closing(CrashSafeFile(temporary)) as safe, safe.transaction():
                    pass
                place_new(temporary, path)
        except FileExistsError:
            raise RecordingError(f'path must not exist with mode "x", got {path}; mode "a" appends') from None
        except OSError as error:
            # The cause speaks of the temporary file, which the caller never named.
            cause = error.__cause__ if isinstance(error, MirageError) and error.__cause__ else error
            raise RecordingError(f"{path} could not be created: {reason(cause)}") from error

    @contextlib.contextmanager
    def transaction(self, room: int = 0) -> Iterator[h5py.File]:
        """Change the file: new objects anywhere new, members of `/` and `data`, attributes of `data`.

        What happens in the block is committed at its end as a whole, or not at all if it raises.

        Args:
            room: Bytes about to be written, so that a full disk is noticed before and not in the middle.

        Yields:
            The file, open for reading and writing.

        Raises:
            RecordingError: If the disk is full, the file was deleted, or a change cannot be committed safely.
            StateError: In another process than the one that opened it.
        """
        with interrupts_deferred():
            yield from self._transaction(room)

    def _transaction(self, room: int) -> Iterator[h5py.File]:
        self._check_place()
        tail = TailFile(self._descriptor, self._superblock.end)
        try:
            self._reserve(tail.committed, room)
            file = h5py.File(tail, "r+", libver=LIBRARY_BOUNDS)
            try:
                yield file
                members = set(file["data"])
                file.flush()
            except BaseException:
                tail.detached = True
                raise
            finally:
                file.close()
            if tail.failure is not None:
                raise tail.failure
            self._commit(tail, members)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._superblock.end)
            if isinstance(error, _OF_HDF5) and not isinstance(error, MirageError):
                raise RecordingError(
                    f"{self.path} could not be extended, what it holds is kept: {reason(error)}"
                ) from error
            raise

    def close(self) -> None:
        """Give the file free; harmless when done twice."""
        self._release()

    def _check_place(self) -> None:
        if os.getpid() != self._process:
            raise StateError(f"{self.path} must be written by the process that opened it, got another")
        # A file that was moved still has a name; where it has none, another one may have its old name now.
        if not os.fstat(self._descriptor).st_nlink and not self._is_in_place():
            raise RecordingError(f"{self.path} was deleted while it was written, what it held is lost")

    def _is_in_place(self) -> bool:
        """Whether the path still names this file, which also file systems without link counts know."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False

    def _reserve(self, start: int, room: int) -> None:
        """Notice a full disk early, where the file system can tell."""
        if not room or not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(self._descriptor, start, room)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise

    def _lock(self) -> None:
        """Keep out other writers of ours, and anyone who holds the file open for writing with HDF5.

        Readers are not kept out: they lock the whole file shared, with `flock`, and so does this. Between
        writers a second lock decides, which belongs to the open file and is independent of the first.
        """
        if fcntl is None:
            return
        try:
            try:
                self._try_lock()
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
                # A dropped writer that something refers to in a circle still has its lock.
                gc.collect()
                self._try_lock()
        except OSError as error:
            if error.errno in _BUSY:
                raise RecordingError(f"{self.path} is in use by another writer; close it first") from error

    def _try_lock(self) -> None:
        if hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        else:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _read_superblock(self) -> Superblock:
        superblock = Superblock.parse(read_at(self._descriptor, 0, SUPERBLOCK_BYTES), str(self.path))
        size = os.fstat(self._descriptor).st_size
        if size < superblock.end:
            raise FileFormatError(f"{self.path} must have {superblock.end} bytes, it is cut short to {size}")
        return superblock

    def _commit(self, tail: TailFile, members: set[str]) -> None:
        superblock = Superblock.parse(tail.read_at(0, SUPERBLOCK_BYTES), str(self.path))
        root = ObjectHeader.read(tail.read_at, superblock.root)
        links = {name: address for name, address in root.links().items() if name != TRASH}
        group = ObjectHeader.read(tail.read_at, links["data"])
        if set(group.links()) != members or "data" not in links:
            raise RecordingError(
                f"{self.path} must have at most {MAX_COMPACT_LINKS} episodes, got {len(members)}"
            )
        lost = tail.changed_outside([(0, SUPERBLOCK_BYTES), *root.extents, *group.extents])
        if lost is not None:
            raise RecordingError(f"{self.path} cannot be extended safely: its byte {lost} would change")

        group_bytes = group.build(group.links())
        size = len(root.build(links)) + len(group_bytes)
        end = -(-tail.size // 8) * 8
        place = self._spare
        if place is None or place[1] < size:
            place = (end, max(4096, 2 * size))
            end += place[1]
        os.ftruncate(self._descriptor, end)
        links["data"] = place[0] + size - len(group_bytes)
        write_at(self._descriptor, root.build(links) + group_bytes, place[0])
        self._sync()
        superblock = Superblock(end=end, root=place[0])
        write_at(self._descriptor, superblock.build(read_at(self._descriptor, 0, SUPERBLOCK_BYTES)), 0)
        self._superblock, self._spare, self._live = superblock, self._live, place
        self._sync()

    def _sync(self) -> None:
        if self._fsync:
            os.fsync(self._descriptor)


def _first_content(fill: Callable[[h5py.File], None]) -> bytes:
    """Make a new file in memory, since HDF5 does not recover from a disk that is full."""
    # The name is that of no file.
    with h5py.File("new", "w", libver=LIBRARY_BOUNDS, driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        return bytes(file.id.get_file_image())


def _whole_file(kind: int) -> bytes:
    """`struct flock` of Linux for all of a file."""
    return struct.pack("hhqqi", kind, os.SEEK_SET, 0, 0, 0)


def _release(descriptor: int, process: int) -> None:
    """Give up the locks and close the descriptor.

    Locks belong to the open file, which forked processes share: they would keep them. A forked process in
    turn must not give up the locks of its parent.
    """
    if fcntl is not None and os.getpid() == process:
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_UNLCK))
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
