"""Recording, episode file: what a writer has open; it is stored and given free also without `close`."""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping
from threading import RLock
from typing import Any

import h5py
import numpy as np

from mirage_sim.errors import RecordingError, StateError
from mirage_sim.recording.crash_safe_file import CrashSafeFile
from mirage_sim.recording.interrupts import interrupts_deferred
from mirage_sim.recording.schema import CAMERA_CONVENTION, FORMAT, SCHEMA_VERSION, natural_key
from mirage_sim.recording.stream import EPISODE, EpisodeStream


class EpisodeFile:
    """A recording and the episodes that are running on it.

    It refers to nothing of its writer, so that the writer can be dropped, and stays with `atexit` until it is
    closed. `atexit` takes the latest first, so this comes before h5py takes itself down.
    """

    def __init__(self, file: CrashSafeFile, names: list[str]) -> None:
        """Take over an open recording.

        Args:
            file: The file; it is closed with this object.
            names: Episodes that it holds, in natural order.
        """
        self.names = names
        self.lock = RLock()
        self._file: CrashSafeFile | None = file
        self._path = file.path
        self._process = os.getpid()
        self._streams: list[EpisodeStream] = []
        atexit.register(self.close_dropped)

    @property
    def is_open(self) -> bool:
        """Whether it has the file."""
        return self._file is not None

    @contextlib.contextmanager
    def changing(self) -> Iterator[CrashSafeFile]:
        """Hold the file for a change; `close`, also that of another thread, waits until the block ends.

        Raises:
            StateError: If it is closed or belongs to another process.
        """
        if os.getpid() != self._process:
            raise StateError(f"{self._path} must be written by the process that opened it, got a fork of it")
        with self.lock:
            if self._file is None:
                raise StateError(f"the writer of {self._path} is closed")
            yield self._file

    def add(self, stream: EpisodeStream) -> None:
        """Add a running episode, within `changing`."""
        self._streams.append(stream)

    def finish(self, stream: EpisodeStream) -> str | None:
        """Store a running episode; return its name, or None if it had no step."""
        with self.changing() as file, interrupts_deferred():
            self._take(stream, "finish_episode")
            try:
                if not stream.open:
                    raise RecordingError("the running episode was lost by an earlier error")
                if stream.steps == 0:
                    return None
                stream.finish()
                name = f"demo_{natural_key(self.names[-1])[1] + 1 if self.names else 0}"
                with file.transaction(stream.size) as opened:
                    data = opened["data"]
                    stream.group.file.copy(EPISODE, data, name)
                    make_views(data[name])
                    count_steps(data, stream.steps)
            finally:
                stream.discard()
            self.names.append(name)
            return name

    def discard(self, stream: EpisodeStream) -> None:
        """Drop a running episode."""
        with self.changing():
            self._take(stream, "discard_episode")
            stream.discard()

    def close(self) -> None:
        """Store the running episodes, cut off where they are, and give the file free.

        A forked process gives its copy free and stores nothing.

        Raises:
            RecordingError: If one cannot be stored; the others are, and the file is given free all the same.
        """
        if os.getpid() != self._process:
            self._release()
            return
        failures: list[Exception] = []
        with self.lock, interrupts_deferred():
            try:
                for stream in list(self._streams):
                    try:
                        if stream.open:
                            self.finish(stream)
                    except Exception as error:  # noqa: BLE001  # the others are stored all the same
                        failures.append(error)
            finally:
                self._streams.clear()
                self._release()
        if failures:
            raise failures[0]

    def close_dropped(self) -> None:
        """Close for a writer that was not closed; what cannot be stored is a warning then."""
        try:
            self.close()
        except Exception as error:  # noqa: BLE001  # nobody is there to catch it
            warnings.warn(str(error) or type(error).__name__, RuntimeWarning, stacklevel=2)

    def _release(self) -> None:
        """Give the file free; harmless when done twice."""
        atexit.unregister(self.close_dropped)
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _take(self, stream: EpisodeStream, call: str) -> None:
        if stream not in self._streams:
            raise StateError(f"{call} needs a running episode of this writer")
        self._streams.remove(stream)


def begin_recording(file: h5py.File, attributes: Mapping[str, Any]) -> None:
    """Fill a new file with what every recording has.

    Args:
        file: The file, empty.
        attributes: Attributes of `data`, `env_args` among them.
    """
    file.attrs["format"] = FORMAT
    file.attrs["schema_version"] = np.int64(SCHEMA_VERSION)
    file.attrs["camera_convention"] = CAMERA_CONVENTION
    settings = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    settings.set_attr_phase_change(len(attributes) + 64, 1)
    h5py.h5g.create(file.id, b"data", gcpl=settings)
    file["data"].attrs["total"] = np.int64(0)
    file["data"].attrs.update(attributes)


def count_steps(data: h5py.Group, steps: int) -> None:
    """Add the steps of a new episode to the total of `data`."""
    data.attrs.modify("total", np.int64(data.attrs["total"] + steps))


def make_views(demo: h5py.Group) -> None:
    """Make `obs` and `next_obs` of an episode as views of its `frames`.

    Args:
        demo: The episode's group, at its place in the file.
    """
    for group in ("obs", "next_obs"):
        demo.create_group(group)
    for key, frames in demo["frames"].items():
        rows = len(frames) - 1
        source = h5py.VirtualSource(".", frames.name, shape=frames.shape, dtype=frames.dtype)
        for group, start in (("obs", 0), ("next_obs", 1)):
            layout = h5py.VirtualLayout((rows, *frames.shape[1:]), dtype=frames.dtype)
            layout[:] = source[start : start + rows]
            demo[group].create_virtual_dataset(key, layout)
