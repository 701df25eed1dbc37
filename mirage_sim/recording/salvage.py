"""Recording, salvage: whole episodes out of a file that HDF5 no longer opens, such as one that was cut short.

HDF5 finds everything from the front of a file and its root group, and refuses a file that lacks a byte. Here
the headers of all groups that are still whole are looked for, and HDF5 gets a view of the file whose root
holds them, whatever became of the old one. The groups among them that are episodes and can be read to the
last byte are copied to a new recording.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from mirage_sim.errors import FileFormatError
from mirage_sim.recording.crash_safe_file import CrashSafeFile
from mirage_sim.recording.episode_file import begin_recording, count_steps, make_views
from mirage_sim.recording.object_header import Superblock, build_group, find_groups
from mirage_sim.recording.reader import read_episode
from mirage_sim.recording.schema import SCHEMA_VERSION, make_env_args, natural_key, to_json
from mirage_sim.recording.tail_file import TailFile

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What reading a damaged part of an HDF5 file raises."""

_VIEWS = ("obs", "next_obs")


@dataclass(frozen=True)
class Salvage:
    """What `salvage` found."""

    saved: tuple[str, ...]
    """Episodes that were copied, in natural order."""
    lost: tuple[str, ...]
    """Episodes that the file names but that are not whole."""


def salvage(path: Path, out: Path) -> Salvage:
    """Copy the whole episodes of a damaged recording to a new one.

    Args:
        path: The damaged file; it is only read.
        out: The new file; it is not made where no episode is whole.

    Returns:
        Names of the episodes.

    Raises:
        FileFormatError: If this was no recording of this schema version.
        RecordingError: If `out` exists or cannot be written.
    """
    with _groups(path) as (groups, names):
        versions = {_attribute(group, "schema_version") for group in groups} - {None}
        if not groups or versions - {SCHEMA_VERSION}:
            raise FileFormatError(f"{path} must be a recording of schema_version {SCHEMA_VERSION}")
        size = path.stat().st_size
        whole: dict[str, h5py.Group] = {}
        for group in groups:
            if _attribute(group, "num_samples") is None:
                continue
            name = _recorded_name(group) or f"demo_{len(names)}"
            names.add(name)
            if name not in whole and is_whole(group, size):
                whole[name] = group
        saved = sorted(whole, key=natural_key)
        if saved:
            _copy({name: whole[name] for name in saved}, _attributes(groups), out)
    return Salvage(tuple(saved), tuple(sorted(names - set(saved), key=natural_key)))


def is_whole(demo: h5py.Group, size: int | None = None) -> bool:
    """Whether an episode can be read and has as many rows everywhere as it should.

    Args:
        demo: Its group.
        size: Bytes of the file, where HDF5 does not check that all of the episode is within them.
    """
    try:
        episode = read_episode(demo)
        rows = {len(value) - 1 for value in episode.frames.values()}
        rows |= {len(episode.actions), len(episode.rewards), int(episode.attrs["num_samples"])}
        return len(rows) == 1 and (size is None or _last_byte(demo) <= size)
    except DAMAGE:
        return False


@contextlib.contextmanager
def _groups(path: Path) -> Iterator[tuple[list[h5py.Group], set[str]]]:
    """All groups of a file whose headers are whole, and the names of episodes in lists of them."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        tail = TailFile(file.fileno(), size)
        tail.detached = True
        found = {}
        if size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                found = dict(find_groups(content, tail.read_at))
        if not found:
            yield [], set()
            return
        links = {name for header in found.values() for name in header.links()}
        names = {name for name in links if re.fullmatch(r"demo_\d+", name)}
        root = -(-size // 8) * 8
        header = build_group({f"at_{address}": address for address in found})
        superblock = Superblock(root + len(header), root).build(Superblock.plain())
        for place, part in ((root, header), (0, superblock)):
            tail.seek(place)
            tail.write(part)
        with h5py.File(tail, "r") as view:
            groups = []
            for name in view:
                with contextlib.suppress(*DAMAGE):
                    group = view[name]
                    len(group)
                    groups.append(group)
            yield groups, names


def _attribute(group: h5py.Group, name: str) -> Any:
    with contextlib.suppress(*DAMAGE):
        return group.attrs.get(name)
    return None


def _attributes(groups: list[h5py.Group]) -> dict[str, Any]:
    """Attributes of the latest `data` that can be read."""
    for group in sorted(groups, key=len, reverse=True):
        if _attribute(group, "env_args") is not None:
            return {name: _attribute(group, name) for name in group.attrs if name != "total"}
    return {"env_args": to_json(make_env_args("unknown"))}


def _recorded_name(demo: h5py.Group) -> str | None:
    """Name under which an episode was recorded, which its views spell out."""
    with contextlib.suppress(*DAMAGE):
        for view in demo["obs"].values():
            for source in view.virtual_sources():
                return str(source.dset_name).split("/")[2]
    return None


def _last_byte(demo: h5py.Group) -> int:
    """Where the content of an episode ends in the file."""
    ends = [0]

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or name.split("/")[0] in _VIEWS:
            return
        if item.chunks is not None:
            item.id.chunk_iter(lambda chunk: ends.append(chunk.byte_offset + chunk.size))
        elif item.id.get_offset() is not None:
            ends.append(item.id.get_offset() + item.id.get_storage_size())

    demo.visititems(visit)
    return max(ends)


def _copy(episodes: dict[str, h5py.Group], attributes: dict[str, Any], out: Path) -> None:
    CrashSafeFile.create(out, lambda file: begin_recording(file, attributes))
    try:
        with contextlib.closing(CrashSafeFile(out)) as safe:
            for name, demo in episodes.items():
                with safe.transaction() as file:
                    group = file["data"].create_group(name)
                    group.attrs.update(demo.attrs)
                    for member in demo:
                        if member not in _VIEWS:
                            demo.file.copy(demo[member], group, member)
                    make_views(group)
                    count_steps(file["data"], int(demo.attrs["num_samples"]))
    except BaseException:
        out.unlink(missing_ok=True)
        raise
