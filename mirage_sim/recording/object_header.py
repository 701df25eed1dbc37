"""Recording, file commit: the few HDF5 on-disk structures that a crash-safe commit has to move.

HDF5 changes a file in place when a member is added to a group, and a process killed between two of these
writes leaves a file that no longer opens. Here the changed group headers are written again at a place
nothing refers to, and the 48-byte superblock, which says where the root group is, is then replaced in one
write. This module reads and builds the structures involved, as the HDF5 file format specification (version
3.0) lays them out: the superblock of version 2 or 3 and the object header of version 2. Everything else in a
file is written by HDF5 itself.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from mirage_sim.errors import FileFormatError

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SUPERBLOCK_BYTES = 48
MAX_COMPACT_LINKS = 65_000
"""Most members of a group that are kept inside its header (the format allows 65,535)."""

NIL, LINK_INFO, LINK, GROUP_INFO, CONTINUATION = 0x00, 0x02, 0x06, 0x0A, 0x10
_UNDEFINED = b"\xff" * 8
"""Address of nothing."""

_GROUP_INFO_BODY = struct.pack("<BBHH", 0, 1, MAX_COMPACT_LINKS, MAX_COMPACT_LINKS - 1)
_HEADER_BEGIN = b"OHDR\x02"

ReadAt = Callable[[int, int], bytes]
"""Reads `(offset, count)` bytes of a file."""


class Content(Protocol):
    """Bytes that can be searched, such as a file mapped into memory."""

    def find(self, sub: bytes, start: int = 0, /) -> int:
        """Return where `sub` is next, from `start` on, or -1."""
        ...


_MASK = 0xFFFFFFFF


def checksum(content: bytes) -> int:
    """Jenkins' lookup3 hash with initial value 0, the checksum of HDF5 metadata.

    Args:
        content: Any bytes.

    Returns:
        The 32-bit hash.

    Source: HDF5 file format specification, "Checksums"; the hash is Bob Jenkins' lookup3 (public domain).
    """
    length = len(content)
    a = b = c = (0xDEADBEEF + length) & _MASK
    if not length:
        return c
    blocks = (length - 1) // 12
    words = struct.unpack_from(f"<{3 * blocks}I", content)
    for i in range(0, 3 * blocks, 3):
        a = (a + words[i]) & _MASK
        b = (b + words[i + 1]) & _MASK
        c = (c + words[i + 2]) & _MASK
        a = (a - c) & _MASK ^ ((c << 4) & _MASK | c >> 28)
        c = (c + b) & _MASK
        b = (b - a) & _MASK ^ ((a << 6) & _MASK | a >> 26)
        a = (a + c) & _MASK
        c = (c - b) & _MASK ^ ((b << 8) & _MASK | b >> 24)
        b = (b + a) & _MASK
        a = (a - c) & _MASK ^ ((c << 16) & _MASK | c >> 16)
        c = (c + b) & _MASK
        b = (b - a) & _MASK ^ ((a << 19) & _MASK | a >> 13)
        a = (a + c) & _MASK
        c = (c - b) & _MASK ^ ((b << 4) & _MASK | b >> 28)
        b = (b + a) & _MASK
    last = struct.unpack("<3I", content[12 * blocks :].ljust(12, b"\0"))
    a, b, c = (a + last[0]) & _MASK, (b + last[1]) & _MASK, (c + last[2]) & _MASK

    def minus_rotated(value: int, other: int, bits: int) -> int:
        return ((value ^ other) - ((other << bits) & _MASK | other >> (32 - bits))) & _MASK

    c = minus_rotated(c, b, 14)
    a = minus_rotated(a, c, 11)
    b = minus_rotated(b, a, 25)
    c = minus_rotated(c, b, 16)
    a = minus_rotated(a, c, 4)
    b = minus_rotated(b, a, 14)
    return minus_rotated(c, b, 24)


def _checked(content: bytes, what: str) -> bytes:
    if len(content) < 4 or checksum(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
        raise FileFormatError(f"HDF5 {what} is damaged: its checksum does not match")
    return content[:-4]


def _sealed(content: bytes) -> bytes:
    return content + struct.pack("<I", checksum(content))


@dataclass(frozen=True)
class Superblock:
    """Where an HDF5 file ends and where its root group is."""

    end: int
    """Bytes of the file that belong to it; what lies behind is a torn tail."""
    root: int
    """Address of the root group's header."""

    @staticmethod
    def parse(content: bytes, path: str) -> Superblock:
        """Read the first bytes of a file.

        Args:
            content: At least `SUPERBLOCK_BYTES` bytes.
            path: Name for messages.

        Returns:
            The superblock.

        Raises:
            FileFormatError: If this is no HDF5 file of the layout that the writer uses.
        """
        if content[:8] != SIGNATURE:
            raise FileFormatError(f"{path} must be an HDF5 file, got other content in its first 8 bytes")
        if len(content) < SUPERBLOCK_BYTES or content[8] not in (2, 3) or content[9:11] != b"\x08\x08":
            raise FileFormatError(f"{path} must have an HDF5 superblock of version 2 or 3 to be appended to")
        body = _checked(content[:SUPERBLOCK_BYTES], f"superblock of {path}")
        base, _extension, end, root = struct.unpack_from("<4Q", body, 12)
        if base:
            raise FileFormatError(f"{path} must have no user block to be appended to, got {base} bytes")
        return Superblock(end=end, root=root)

    @staticmethod
    def plain() -> bytes:
        """A superblock of version 2 without an extension, as a template."""
        return SIGNATURE + b"\x02\x08\x08\0" + bytes(8) + _UNDEFINED + bytes(20)

    def build(self, template: bytes) -> bytes:
        """The superblock `template` with this end and root, and the marks of an open file cleared."""
        extension = template[20:28]
        front = template[:11] + b"\0" + struct.pack("<Q", 0) + extension
        return _sealed(front + struct.pack("<2Q", self.end, self.root))


@dataclass(frozen=True)
class Message:
    """One message of an object header."""

    kind: int
    flags: int
    order: bytes
    body: bytes


@dataclass(frozen=True)
class ObjectHeader:
    """The header of a group: its attributes and, while they are few enough, its links."""

    flags: int
    settings: bytes
    """Times and attribute thresholds as stored, between the flags and the size."""
    messages: tuple[Message, ...]
    extents: tuple[tuple[int, int], ...]
    """`(address, bytes)` of the pieces that it was read from."""

    @staticmethod
    def read(read_at: ReadAt, address: int) -> ObjectHeader:
        """Read the header at `address` and its continuations.

        Raises:
            FileFormatError: If there is no such header.
        """
        front = read_at(address, 64)
        if front[:5] != _HEADER_BEGIN:
            raise FileFormatError(f"byte {address} must begin an object header, got {front[:5]!r}")
        flags = front[5]
        settings_bytes = (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        size_bytes = 1 << (flags & 3)
        start = 6 + settings_bytes + size_bytes
        size = int.from_bytes(front[start - size_bytes : start], "little")
        extents = [(address, start + size + 4)]
        chunk = _checked(read_at(*extents[0]), "object header")[start:]
        messages: list[Message] = []
        pending = [chunk]
        while pending:
            for message in _messages(pending.pop(0), has_order=bool(flags & 4)):
                if message.kind == CONTINUATION:
                    place = struct.unpack_from("<2Q", message.body)
                    extents.append(place)
                    piece = _checked(read_at(*place), "object header continuation")
                    pending.append(piece[4:])
                elif message.kind != NIL:
                    messages.append(message)
        return ObjectHeader(flags, front[6 : 6 + settings_bytes], tuple(messages), tuple(extents))

    def links(self) -> dict[str, int]:
        """Names of the members that the header holds itself, with their header's address."""
        return {
            _link_name(message.body): struct.unpack("<Q", message.body[-8:])[0]
            for message in self.messages
            if message.kind == LINK
        }

    def build(self, links: dict[str, int]) -> bytes:
        """The header in one piece, with these members only, at these addresses.

        Args:
            links: Members to keep, each of which the header has now, and the address that each gets.

        Returns:
            The header's bytes, good at any address.
        """
        parts: list[bytes] = []
        for message in self.messages:
            body = message.body
            if message.kind == LINK:
                name = _link_name(body)
                if name not in links:
                    continue
                body = body[:-8] + struct.pack("<Q", links[name])
            elif message.kind == GROUP_INFO:
                body = _GROUP_INFO_BODY
            parts.append(struct.pack("<BHB", message.kind, len(body), message.flags) + message.order + body)
        chunk = b"".join(parts)
        flags = self.flags & ~3 | 2
        front = b"OHDR\x02" + bytes([flags]) + self.settings
        return _sealed(front + struct.pack("<I", len(chunk)) + chunk)


def build_group(links: dict[str, int]) -> bytes:
    """Build the header of a new group.

    Args:
        links: Names of its members, of at most 255 bytes each, and the address of each one's header.

    Returns:
        The header's bytes, good at any address.
    """
    messages = [Message(LINK_INFO, 0, b"", bytes(2) + 2 * _UNDEFINED)]
    messages.append(Message(GROUP_INFO, 0, b"", _GROUP_INFO_BODY))
    for name in links:
        front = struct.pack("<BBB", 1, 0, len(name.encode()))
        messages.append(Message(LINK, 0, b"", front + name.encode() + _UNDEFINED))
    return ObjectHeader(0, b"", tuple(messages), ()).build(links)


def find_groups(content: Content, read_at: ReadAt) -> Iterator[tuple[int, ObjectHeader]]:
    """Find the headers of groups in a file of which nothing else need be whole.

    Args:
        content: The file's bytes.
        read_at: Reads them.

    Yields:
        Address and header of each that is whole.
    """
    address = content.find(_HEADER_BEGIN)
    while address >= 0:
        front = read_at(address, 64)
        first = 6 + (16 if front[5] & 0x20 else 0) + (4 if front[5] & 0x10 else 0) + (1 << (front[5] & 3))
        # Groups begin with this message; the checksum of all others need not be computed.
        if front[first : first + 1] == bytes([LINK_INFO]):
            with contextlib.suppress(FileFormatError, struct.error, IndexError, UnicodeDecodeError):
                yield address, ObjectHeader.read(read_at, address)
        address = content.find(_HEADER_BEGIN, address + 1)


def _messages(chunk: bytes, *, has_order: bool) -> Iterator[Message]:
    front = 6 if has_order else 4
    at = 0
    while at + front <= len(chunk):
        kind, size, flags = struct.unpack_from("<BHB", chunk, at)
        body_at = at + front
        yield Message(kind, flags, chunk[at + 4 : body_at], chunk[body_at : body_at + size])
        at = body_at + size


def _link_name(body: bytes) -> str:
    flags = body[1]
    at = 2
    if flags & 8:
        if body[at]:
            raise FileFormatError("groups of a recording must hold hard links only, got another kind of link")
        at += 1
    at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
    size_bytes = 1 << (flags & 3)
    size = int.from_bytes(body[at : at + size_bytes], "little")
    return body[at + size_bytes : at + size_bytes + size].decode()
