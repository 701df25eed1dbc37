"""Recording, one running episode: its rows flow into a nameless file that vanishes with the process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import RLock
from typing import Any

import h5py
import numpy as np

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError, StateError, check_finite, check_shape
from mirage_sim.recording.columns import Column, Packing, SparseColumn
from mirage_sim.recording.schema import check_name, mask_name, to_attribute
from mirage_sim.recording.side_file import SideFile

Array = np.ndarray[Any, Any]

EPISODE = "episode"
"""Group of the side file that becomes `data/demo_<i>`."""
_OWN_NAMES = frozenset(
    ("actions", "rewards", "dones", "terminated", "truncated", "frames", "obs", "next_obs", "intrinsics")
)


class EpisodeStream:
    """Takes the steps of one episode; `HDF5Writer.open_episode` makes it and `finish_episode` stores it.

    Attributes:
        success: Whether the task was solved, to be stored with the episode, None where that is not known.
    """

    def __init__(
        self,
        folder: Path,
        *,
        packing: Packing,
        initial: Mapping[str, Any],
        attrs: Mapping[str, Any],
        lock: RLock,
    ) -> None:
        """Make the side file.

        Args:
            folder: Where the side file lies; it has no name there.
            packing: Compression.
            initial: `cam2world` [4, 4] before the first step, where it comes in `extras`, and the episode's
                `intrinsics` [3, 3].
            attrs: Attributes of the episode.
            lock: Held while the file is worked on.

        Raises:
            RecordingError: If the side file cannot be written.
        """
        self.steps = 0
        self.success: bool | None = None
        self._packing, self._lock, self._process = packing, lock, os.getpid()
        self._columns: dict[str, Column] = {}
        self._extras: dict[str, SparseColumn] = {}
        self._last_obs: dict[str, Array] = {}
        self._intrinsics: Array | None = None
        unknown = set(initial) - {"cam2world", "intrinsics"}
        if unknown:
            raise InputError(f"initial must hold cam2world and intrinsics only, got {sorted(unknown)}")
        self._first_pose: Array | None = None
        if "cam2world" in initial:
            self._first_pose = _as_row("cam2world", _floats("cam2world", initial["cam2world"]), [4, 4])
        if "intrinsics" in initial:
            self._take_intrinsics(initial["intrinsics"])
        attributes = {name: to_attribute(name, value) for name, value in attrs.items()}
        self._side = SideFile(folder)
        with self._side.writing():
            self._side.file.create_group(EPISODE).attrs.update(attributes)

    @property
    def size(self) -> int:
        """Bytes of the side file."""
        return self._side.size

    @property
    def group(self) -> h5py.Group:
        """Group of the side file that holds the episode."""
        return self._side.file[EPISODE]

    @property
    def takes_poses(self) -> bool:
        """Whether extras may hold `cam2world`: the pose before the first step is known."""
        return self._first_pose is not None

    @property
    def open(self) -> bool:
        """Whether it takes steps."""
        return self._side.open

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
            extras: Further values of the step, such as `coverage`. They may come and go, and change their
                shape and dtype (see `schema`); of a `cam2world` that does not come all numbers are NaN.

        Raises:
            InputError: If keys, shapes or dtypes of observations or actions change, or an action, a reward, a
                pose or intrinsics hold NaN or infinity. Other observations and extras may hold them.
            RecordingError: If the disk is full; the episode is lost then.
            StateError: If the episode has ended, or belongs to another process.
        """
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
        pose = self._pose(step_values, after)
        with self._lock:
            self._check_running()
            if self.steps == 0:
                if before is None:
                    raise InputError("obs must be given with the first step, got None")
                self._check_same("obs", before, after)
            elif before is not None:
                self._check_follows(before)
            self._check_keys(after, step_values)
            rows |= {f"frames/{name}": value for name, value in after.items()} | pose
            with self._side.writing() if self._is_due(step_values) else contextlib.nullcontext():
                if before is not None and self.steps == 0:
                    self._begin(before, rows)
                self._write(rows, step_values)
                self._last_obs = after
                self.steps += 1
        for name in step_values:
            self._extras[name].warn()

    def finish(self) -> None:
        """Bring all rows into the side file; an episode whose last step ended nothing is marked as cut off.

        Raises:
            RecordingError: If the disk is full.
        """
        with self._side.writing():
            group = self.group
            for name, column in self._columns.items():
                column.flush(self._place(name))
            for extra in self._extras.values():
                extra.finish(self.steps)
            if not group["dones"][-1]:
                group["truncated"][-1] = group["dones"][-1] = 1
                group.attrs["cut"] = np.True_
            if self._intrinsics is not None:
                group["intrinsics"] = self._intrinsics
            if "frames/cam2world" in self._columns:
                group["cam2world"] = group["frames/cam2world"]
            if self.success is not None:
                group.attrs["success"] = np.bool_(self.success)
            group.attrs["num_samples"] = np.int64(self.steps)
            self._side.file.flush()

    def discard(self) -> None:
        """Drop the side file; harmless when done twice.

        Nothing of HDF5 is kept: a thread that goes on while the interpreter ends must not come upon it.
        """
        self._columns.clear()
        self._extras.clear()
        self._side.discard()

    def _check_running(self) -> None:
        if os.getpid() != self._process:
            raise StateError("append needs the process that began the episode, got another (a fork of it)")
        if not self.open:
            raise StateError("append needs a running episode, this one has ended or failed")

    def _observation(self, name: str, obs: Mapping[str, Any]) -> dict[str, Array]:
        if not isinstance(obs, Mapping):
            raise InputError(f"{name} must map keys to arrays, got {type(obs).__name__}")
        for key in obs:
            check_name(f"a key of {name}", key)
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

    def _pose(self, extras: dict[str, Array], obs: dict[str, Array]) -> dict[str, Array]:
        """Take the pose out of the extras, where poses come with them."""
        if "cam2world" in extras:
            if "cam2world" in obs:
                raise InputError("extras must not repeat what is recorded anyway, got cam2world")
            if self._first_pose is None:
                raise InputError("initial must hold cam2world where extras do, for the first observation")
            pose = extras.pop("cam2world").astype(np.float32)
            return {"cam2world": _as_row("cam2world", pose, [4, 4])}
        if self._first_pose is None or "cam2world" in obs:
            return {}
        return {"cam2world": np.full((4, 4), np.nan, np.float32)}

    def _check_keys(self, obs: dict[str, Array], extras: dict[str, Array]) -> None:
        if self._last_obs and obs.keys() != self._last_obs.keys():
            raise InputError(f"next_obs must keep the keys {sorted(self._last_obs)}, got {sorted(obs)}")
        if not extras.keys() <= self._extras.keys():
            check_extras({*self._extras, *extras})

    def _check_follows(self, before: dict[str, Array]) -> None:
        for name, value in before.items():
            if name not in self._last_obs or value.tobytes() != self._last_obs[name].tobytes():
                raise InputError(f"obs[{name!r}] must be next_obs of the step before, got another value")

    @staticmethod
    def _check_same(name: str, value: dict[str, Array], like: dict[str, Array]) -> None:
        shapes = [{key: (part.shape, part.dtype) for key, part in each.items()} for each in (value, like)]
        if shapes[0] != shapes[1]:
            raise InputError(f"{name} must be laid out as next_obs is, {shapes[1]}, got {shapes[0]}")

    def _begin(self, first: dict[str, Array], rows: dict[str, Array]) -> None:
        group = self.group
        for name, row in rows.items():
            self._columns[name] = Column(group, name, row.shape, row.dtype, self._packing)
        for name, row in first.items():
            self._columns[f"frames/{name}"].append(row, 0)
        if "cam2world" in rows and self._first_pose is not None:
            self._columns["cam2world"].append(self._first_pose, 0)

    def _is_due(self, extras: dict[str, Array]) -> bool:
        """Whether a step works on the file; otherwise its rows are only held back."""
        return (
            self.steps == 0
            or not extras.keys() <= self._extras.keys()
            or any(column.is_due for column in self._columns.values())
            or any(column.is_due(extras.get(name)) for name, column in self._extras.items())
        )

    def _place(self, name: str) -> int:
        """Rows of a column before the next step's; frames and poses have one before the first step."""
        return self.steps + (name == "cam2world" or name.startswith("frames/"))

    def _write(self, rows: dict[str, Array], extras: dict[str, Array]) -> None:
        for name, row in rows.items():
            self._columns[name].check(row)
        for name, value in extras.items():
            if name not in self._extras:
                self._extras[name] = SparseColumn(self.group, name, value, self._packing, self.steps)
        for name, row in rows.items():
            self._columns[name].append(row, self._place(name))
        for name, column in self._extras.items():
            column.append(extras.get(name), self.steps)


def check_extras(names: Collection[str]) -> None:
    """Raise unless the extras of an episode can have these names.

    Args:
        names: All of an episode.

    Raises:
        InputError: If one cannot name a dataset, is taken, or is that of the mask of another.
    """
    for name in names:
        check_name("a key of extras", name)
        if name in _OWN_NAMES:
            raise InputError(f"extras must not repeat what is recorded anyway, got {name!r}")
        mask = mask_name(name)
        if mask in names:
            raise InputError(f"extras must not hold {mask!r}, which is the mask of {name!r}")


def _floats(name: str, value: Any) -> Array:
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        return own_array(name, value).astype(np.float32)


def _as_row(name: str, value: Array, shape: list[int | str | None] | None = None) -> Array:
    if shape is not None:
        check_shape(name, value, shape)
    if value.dtype.kind == "f":
        check_finite(name, value)
    return value
