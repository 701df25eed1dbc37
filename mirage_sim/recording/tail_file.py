"""Recording, file commit: a view of a file whose committed bytes stay as they are.

HDF5 writes through `TailFile` as through any file. What it puts behind the committed end goes to the disk,
where nothing refers to it yet; what it would change before that end is kept in memory, to be committed at
once or dropped.

A write that fails is not reported to HDF5, which may bring the process down when it unwinds (seen with
HDF5 2.0: a double free in H5Ocopy on a full disk). The content is kept in memory like a change of committed
bytes, so that HDF5 sees a sound file until it is closed, and `failure` tells the owner.

A forked process inherits the view. It shares the file with its parent, so there all writes go to memory.
"""

from __future__ import annotations

import os
from typing import IO, Any

PAGE_BYTES = 4096


def read_at(descriptor: int, offset: int, count: int) -> bytes:
    """Read `count` bytes at `offset`, fewer only at the end of the file."""
    parts: list[bytes] = []
    while count > 0:
        part = os.pread(descriptor, count, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        count -= len(part)
    return b"".join(parts)


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of `content` at `offset`.

    Raises:
        OSError: If the disk is full or the file may not grow.
    """
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


class TailFile:
    """File object for h5py over a descriptor: reads all, writes the tail, remembers changes of the rest."""

    def __init__(self, descriptor: int, committed: int, *, owner: IO[Any] | None = None) -> None:
        """Look at a file.

        Args:
            descriptor: File opened for reading and writing; it stays open.
            committed: Bytes at the front that must not change on the disk.
            owner: File object that closes the descriptor when it goes; this view keeps it.
        """
        self.committed = committed
        self.size = committed
        self.failure: OSError | None = None
        self.detached = False
        """Whether all writes go to memory: the file is to be dropped, or a write failed."""
        self._descriptor = descriptor
        self._owner = owner
        self._process = os.getpid()
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to `offset` from the start, from here or from the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The present offset."""
        return self._position

    def read(self, count: int = -1) -> bytes:
        """Read `count` bytes from here, to the end where it is negative."""
        if count < 0:
            count = max(0, self.size - self._position)
        content = self.read_at(self._position, count)
        self._position += len(content)
        return content

    def readinto(self, buffer: memoryview | bytearray) -> int:
        """Fill `buffer` from here."""
        target = memoryview(buffer).cast("B")
        content = self.read(len(target))
        target[: len(content)] = content
        return len(content)

    def write(self, content: bytes | memoryview) -> int:
        """Write here: behind the committed end to the disk, before it to memory."""
        view = memoryview(content).cast("B")
        count, start = len(view), self._position
        inside = count if self._in_memory else max(0, min(count, self.committed - start))
        if inside < count:
            try:
                write_at(self._descriptor, view[inside:], start + inside)
            except OSError as error:
                self.failure, self.detached = error, True
                inside = count
        self._remember(start, view[:inside])
        self._position += count
        self.size = max(self.size, self._position)
        return count

    def truncate(self, size: int | None = None) -> int:
        """Set the end, never before the committed one."""
        size = self._position if size is None else size
        self.size = max(size, self.committed)
        if not self._in_memory:
            try:
                os.ftruncate(self._descriptor, self.size)
            except OSError as error:
                self.failure, self.detached = error, True
        return size

    def flush(self) -> None:
        """Nothing is held back that belongs on the disk."""

    def close(self) -> None:
        """Close the owner of the descriptor, where there is one."""
        if self._owner is not None:
            self._owner.close()

    @property
    def _in_memory(self) -> bool:
        return self.detached or os.getpid() != self._process

    def read_at(self, offset: int, count: int) -> bytes:
        """Read `count` bytes at `offset` as HDF5 left them."""
        count = max(0, min(count, self.size - offset))
        content = bytearray(read_at(self._descriptor, offset, count))
        content.extend(bytes(count - len(content)))
        for page in range(offset // PAGE_BYTES, (offset + len(content) - 1) // PAGE_BYTES + 1):
            changed = self._pages.get(page)
            if changed is not None:
                start = max(offset, page * PAGE_BYTES)
                stop = min(offset + len(content), page * PAGE_BYTES + len(changed))
                if start < stop:
                    at = start - page * PAGE_BYTES
                    content[start - offset : stop - offset] = changed[at : at + stop - start]
        return bytes(content)

    def changed_outside(self, allowed: list[tuple[int, int]]) -> int | None:
        """Look for a change of committed bytes that a commit would lose.

        Args:
            allowed: `(offset, count)` ranges that the commit takes care of.

        Returns:
            Offset of the first changed byte outside all of them, or None.
        """
        for page, changed in sorted(self._pages.items()):
            start = page * PAGE_BYTES
            before = bytearray(read_at(self._descriptor, start, len(changed)))
            after = bytearray(changed)
            for offset, count in allowed:
                first, last = max(0, offset - start), min(len(before), offset + count - start)
                if first < last:
                    before[first:last] = after[first:last] = bytes(last - first)
            if before != after:
                return start + next(i for i, (x, y) in enumerate(zip(before, after, strict=True)) if x != y)
        return None

    def _remember(self, offset: int, content: memoryview) -> None:
        while content:
            page, at = divmod(offset, PAGE_BYTES)
            held = self._pages.setdefault(page, bytearray())
            part = content[: PAGE_BYTES - at]
            # A page is held no further than it was written: what lies behind may still change on the disk.
            missing = at + len(part) - len(held)
            if missing > 0:
                before = read_at(self._descriptor, page * PAGE_BYTES + len(held), missing)
                held.extend(before.ljust(missing, b"\0"))
            held[at : at + len(part)] = part
            content = content[len(part) :]
            offset += len(part)
