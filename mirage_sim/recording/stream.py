"""Recording, one running episode: its rows flow into a nameless file that vanishes with the process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError, RecordingError, StateError, check_finite, check_shape
from mirage_sim.recording.crash_safe_file import LIBRARY_BOUNDS
from mirage_sim.recording.schema import to_attribute
from mirage_sim.recording.tail_file import TailFile

Array = np.ndarray[Any, Any]

SINGLE_ROW_BYTES = 8192
"""Rows of at least this size get a chunk each; smaller ones share one of about twice the size."""
EPISODE = "episode"
"""Group of the side file that becomes `data/demo_<i>`."""
_OWN_NAMES = frozenset(
    ("actions", "rewards", "dones", "terminated", "truncated", "frames", "obs", "next_obs", "intrinsics")
)


class _Column:
    """Rows of one dataset; holds back less than a chunk of them."""

    def __init__(
        self, group: h5py.Group, name: str, row: Array, compression: str | None, level: int | None
    ) -> None:
        self.name = name
        self.shape, self.dtype = row.shape, row.dtype
        self._rows_per_chunk = 1
        if row.nbytes < SINGLE_ROW_BYTES:
            self._rows_per_chunk = min(1024, 2 * SINGLE_ROW_BYTES // max(1, row.nbytes))
        self._rows: list[Array] = []
        self.dataset = group.create_dataset(
            name,
            shape=(0, *row.shape),
            maxshape=(None, *(size or None for size in row.shape)),
            dtype=row.dtype,
            chunks=(self._rows_per_chunk, *(max(1, size) for size in row.shape)),
            compression=compression,
            compression_opts=level,
        )

    def check(self, row: Array) -> None:
        if row.shape != self.shape or row.dtype != self.dtype:
            first, now = (f"{each.dtype}{list(each.shape)}" for each in (self, row))
            raise InputError(f"{self.name} must stay {first} in an episode, got {now}")

    def append(self, row: Array) -> None:
        self._rows.append(row)
        if len(self._rows) >= self._rows_per_chunk:
            self.flush()

    def flush(self) -> None:
        if self._rows:
            start = len(self.dataset)
            self.dataset.resize(start + len(self._rows), axis=0)
            self.dataset[start:] = np.stack(self._rows)
            self._rows.clear()


class EpisodeStream:
    """Takes the steps of one episode; `HDF5Writer.open_episode` makes it and `finish_episode` stores it."""

    def __init__(
        self,
        folder: Path,
        *,
        compression: str | None,
        level: int | None,
        initial: Mapping[str, Any],
        attrs: Mapping[str, Any],
    ) -> None:
        """Make the side file.

        Args:
            folder: Where the side file lies; it has no name there.
            compression: "gzip", "lzf" or None.
            level: gzip level.
            initial: `cam2world` [4, 4] before the first step, where it comes in `extras`, and the episode's
                `intrinsics` [3, 3].
            attrs: Attributes of the episode.

        Raises:
            RecordingError: If the side file cannot be written.
        """
        self.steps = 0
        self._compression, self._level = compression, level
        self._columns: dict[str, _Column] = {}
        self._last_obs: dict[str, Array] = {}
        self._intrinsics: Array | None = None
        self._keys: tuple[frozenset[str], frozenset[str]] | None = None
        unknown = set(initial) - {"cam2world", "intrinsics"}
        if unknown:
            raise InputError(f"initial must hold cam2world and intrinsics only, got {sorted(unknown)}")
        self._first_pose: Array | None = None
        if "cam2world" in initial:
            self._first_pose = _as_row("cam2world", _floats("cam2world", initial["cam2world"]), [4, 4])
        if "intrinsics" in initial:
            self._take_intrinsics(initial["intrinsics"])
        attributes = {name: to_attribute(name, value) for name, value in attrs.items()}
        try:
            self._side: BinaryIO = tempfile.TemporaryFile(dir=folder)
        except OSError as error:
            raise RecordingError(f"an episode could not be begun in {folder}: {error}") from error
        self._tail = TailFile(self._side.fileno(), 0)
        with self._side_file_errors():
            self._file = h5py.File(self._tail, "w", libver=LIBRARY_BOUNDS, rdcc_nbytes=0)
            self.group: h5py.Group = self._file.create_group(EPISODE)
            self.group.attrs.update(attributes)

    @property
    def size(self) -> int:
        """Bytes of the side file."""
        return self._tail.size

    @property
    def open(self) -> bool:
        """Whether it takes steps."""
        return bool(self._file)

    def append(
        self,
        obs: Mapping[str, Any] | None,
        action: Any,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_obs: Mapping[str, Any],
        extras: Mapping[str, Any] | None = None,
    ) -> None:
        """Record one step.

        Args:
            obs: Observation before the step, by key: images uint8 [H, W, 3], depth [h, w],
                `cam2world` [4, 4]. `intrinsics` [3, 3] in it counts for the episode. After the first step it
                may be None; otherwise it must equal the `next_obs` of the step before.
            action: [A] or a number.
            reward: Of the step.
            terminated: Whether the task ended.
            truncated: Whether the episode was cut off.
            next_obs: Observation after the step, with the keys, shapes and dtypes of the first.
            extras: Further values of the step, such as `coverage`, the same keys at each step.

        Raises:
            InputError: If keys, shapes or dtypes change, or numbers are not finite.
            RecordingError: If the disk is full; the episode is lost then.
            StateError: If the episode has ended.
        """
        if not self.open:
            raise StateError("append needs a running episode, this one has ended or failed")
        before = None if obs is None else self._observation("obs", obs)
        after = self._observation("next_obs", next_obs)
        rows = {
            "actions": _as_row("action", np.atleast_1d(own_array("action", action))),
            "rewards": _as_row("reward", own_array("reward", reward).astype(np.float64)),
            "dones": np.asarray(bool(terminated) or bool(truncated), np.uint8),
            "terminated": np.asarray(bool(terminated), np.uint8),
            "truncated": np.asarray(bool(truncated), np.uint8),
        }
        check_shape("action", rows["actions"], ["A"])
        check_shape("reward", rows["rewards"], [])
        step_values = {name: own_array(name, value) for name, value in (extras or {}).items()}
        if "intrinsics" in step_values:
            self._take_intrinsics(step_values.pop("intrinsics"))
        if "cam2world" in step_values:
            pose = step_values["cam2world"].astype(np.float32)
            step_values["cam2world"] = _as_row("cam2world", pose, [4, 4])
        keys = self._checked_keys(after, step_values)
        if self.steps == 0:
            if before is None:
                raise InputError("obs must be given with the first step, got None")
            self._check_same("obs", before, after)
            self._begin(before, rows, step_values)
        elif before is not None:
            for name, value in before.items():
                if name not in self._last_obs or value.tobytes() != self._last_obs[name].tobytes():
                    raise InputError(f"obs[{name!r}] must be next_obs of the step before, got another value")
        self._write({**rows, **step_values, **{f"frames/{name}": value for name, value in after.items()}})
        self._keys = keys
        self._last_obs = after
        self.steps += 1

    def finish(self, *, success: bool | None = None) -> None:
        """Bring all rows into the side file; an episode whose last step ended nothing is marked as cut off.

        Args:
            success: Stored as the attribute of that name where given.

        Raises:
            RecordingError: If the disk is full.
        """
        with self._side_file_errors():
            for column in self._columns.values():
                column.flush()
            if not self.group["dones"][-1]:
                self.group["truncated"][-1] = self.group["dones"][-1] = 1
                self.group.attrs["cut"] = np.True_
            if self._intrinsics is not None:
                self.group["intrinsics"] = self._intrinsics
            if "frames/cam2world" in self._columns:
                self.group["cam2world"] = self.group["frames/cam2world"]
            if success is not None:
                self.group.attrs["success"] = np.bool_(success)
            self.group.attrs["num_samples"] = np.int64(self.steps)
            self._file.flush()

    def discard(self) -> None:
        """Drop the side file; harmless when done twice."""
        self._tail.detached = True
        if self._file:
            self._file.close()
        self._side.close()

    def _observation(self, name: str, obs: Mapping[str, Any]) -> dict[str, Array]:
        if not isinstance(obs, Mapping):
            raise InputError(f"{name} must map keys to arrays, got {type(obs).__name__}")
        values = {
            key: own_array(f"{name}[{key!r}]", value) for key, value in obs.items() if key != "intrinsics"
        }
        if "intrinsics" in obs:
            self._take_intrinsics(obs["intrinsics"])
        if "cam2world" in values:
            values["cam2world"] = _as_row("cam2world", values["cam2world"].astype(np.float32), [4, 4])
        return values

    def _take_intrinsics(self, value: Any) -> None:
        intrinsics = _as_row("intrinsics", _floats("intrinsics", value), [3, 3])
        if self._intrinsics is None:
            self._intrinsics = intrinsics
        elif not np.array_equal(self._intrinsics, intrinsics):
            raise InputError("intrinsics must stay the same in an episode, got other ones")

    def _checked_keys(
        self, obs: dict[str, Array], extras: dict[str, Array]
    ) -> tuple[frozenset[str], frozenset[str]]:
        keys = (frozenset(obs), frozenset(extras))
        if self._keys is None:
            reserved = _OWN_NAMES & keys[1]
            if reserved or ("cam2world" in keys[0] & keys[1]):
                named = sorted(reserved) or "cam2world"
                raise InputError(f"extras must not repeat what is recorded anyway, got {named}")
            if "cam2world" in keys[1] and self._first_pose is None:
                raise InputError("initial must hold cam2world where extras do, for the first observation")
            return keys
        for name, now, first in zip(("next_obs", "extras"), keys, self._keys, strict=True):
            if now != first:
                raise InputError(f"{name} must keep the keys {sorted(first)}, got {sorted(now)}")
        return keys

    @staticmethod
    def _check_same(name: str, value: dict[str, Array], like: dict[str, Array]) -> None:
        shapes = [{key: (part.shape, part.dtype) for key, part in each.items()} for each in (value, like)]
        if shapes[0] != shapes[1]:
            raise InputError(f"{name} must be laid out as next_obs is, {shapes[1]}, got {shapes[0]}")

    def _begin(self, first: dict[str, Array], rows: dict[str, Array], extras: dict[str, Array]) -> None:
        frames = {f"frames/{name}": value for name, value in first.items()}
        with self._side_file_errors():
            for name, row in {**rows, **extras, **frames}.items():
                self._columns[name] = _Column(self.group, name, row, self._compression, self._level)
        start = dict(frames)
        if "cam2world" in extras and self._first_pose is not None:
            start["cam2world"] = self._first_pose
        self._write(start)

    def _write(self, rows: dict[str, Array]) -> None:
        for name, row in rows.items():
            self._columns[name].check(row)
        with self._side_file_errors():
            for name, row in rows.items():
                self._columns[name].append(row)

    @contextlib.contextmanager
    def _side_file_errors(self) -> Iterator[None]:
        """Report a write that failed in the block."""
        yield
        if self._tail.failure is not None:
            self.discard()
            error = self._tail.failure
            raise RecordingError(f"the running episode could not be written and is lost: {error}") from error


def _floats(name: str, value: Any) -> Array:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return own_array(name, value).astype(np.float32)


def _as_row(name: str, value: Array, shape: list[int | str | None] | None = None) -> Array:
    if shape is not None:
        check_shape(name, value, shape)
    if value.dtype.kind == "f":
        check_finite(name, value)
    return value
