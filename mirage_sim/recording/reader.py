"""Recording, reader: episodes of a recording as typed arrays, in the order in which they were recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.recording.held_file import HeldFile
from mirage_sim.recording.schema import SCHEMA_VERSION, mask_name, natural_key, space_from_dict

Array = np.ndarray[Any, Any]

_STEP_NAMES = ("actions", "rewards", "dones", "terminated", "truncated")


@dataclass(frozen=True)
class Episode:
    """One episode of N steps, in memory."""

    name: str
    """Such as "demo_0"."""
    frames: dict[str, Array]
    """All observations by key, [N+1, ...]; images uint8 HWC."""
    actions: Array
    """[N, A]."""
    rewards: Array
    """[N] float64."""
    terminated: Array
    """[N] bool."""
    truncated: Array
    """[N] bool."""
    cam2world: Array | None
    """[N+1, 4, 4] float32, camera to world, metres."""
    intrinsics: Array | None
    """[3, 3] float32, pixels."""
    extras: dict[str, Array]
    """Further values per step, such as coverage, [N, ...]; see `came`."""
    attrs: dict[str, Any]
    """Attributes: `num_samples`, `seed`, `success`, ...; `reset_options` and `circumstances`
    decoded."""
    masks: dict[str, Array] = field(default_factory=dict)
    """Which elements came, bool, of those extras of which some did not."""

    @property
    def obs(self) -> dict[str, Array]:
        """Observations before each step, [N, ...], by key."""
        return {key: value[:-1] for key, value in self.frames.items()}

    @property
    def next_obs(self) -> dict[str, Array]:
        """Observations after each step, [N, ...], by key."""
        return {key: value[1:] for key, value in self.frames.items()}

    @property
    def dones(self) -> Array:
        """Where the episode ended, [N] bool."""
        return self.terminated | self.truncated

    @property
    def seed(self) -> int | None:
        """Seed of its reset, where one was given."""
        return int(self.attrs["seed"]) if "seed" in self.attrs else None

    def came(self, key: str) -> Array:
        """Which elements of an extra the environment gave; the others hold NaN or 0.

        Args:
            key: One of `extras`.

        Returns:
            Bool, of the same shape.

        Raises:
            InputError: If there is no such extra.
        """
        if key not in self.extras:
            raise InputError(f"key must be one of {sorted(self.extras)}, got {key!r}")
        return self.masks[key] if key in self.masks else np.ones(self.extras[key].shape, np.bool_)

    def __len__(self) -> int:
        """Number of steps N."""
        return len(self.actions)


class HDF5Reader(HeldFile):
    """Reads a recording.

    The file is opened for each call, so a writer may append meanwhile, and the reader can be pickled. Threads
    may share it.

    In a `with` block it stays open, which is faster for many small reads, and shows no later episodes.
    """

    content = "an HDF5 recording"

    def __init__(self, path: str | Path) -> None:
        """Check that the file is a recording.

        Args:
            path: The file.

        Raises:
            FileFormatError: If it is missing, no HDF5 file, damaged, no recording, or of another schema
                version.
        """
        super().__init__(path)
        with self._open() as file:
            self._check(file)
            self.attrs = {name: _attribute(value) for name, value in file["data"].attrs.items()}
            self.root_attrs = {name: _attribute(value) for name, value in file.attrs.items()}

    @property
    def episodes(self) -> list[str]:
        """Names of the episodes in natural order: demo_2 before demo_10."""
        with self._open() as file:
            return sorted(file["data"], key=natural_key)

    @property
    def lengths(self) -> dict[str, int]:
        """Steps of each episode, in natural order."""
        with self._open() as file:
            data = file["data"]
            return {name: int(data[name].attrs["num_samples"]) for name in sorted(data, key=natural_key)}

    @property
    def env_args(self) -> dict[str, Any]:
        """The environment's description: `env_name`, `type`, `env_type`, `env_kwargs`."""
        return self._json("env_args")

    @property
    def filters(self) -> dict[str, list[str]]:
        """Lists of episodes by filter name (`mask/<filter>`)."""
        with self._open() as file:
            masks = file["mask"].items() if "mask" in file else ()
            return {name: [episode.decode() for episode in names[()]] for name, names in masks}

    def space(self, name: str) -> gym.Space[Any]:
        """Space that was recorded with the file.

        Args:
            name: "observation_space" or "action_space".

        Returns:
            The space.

        Raises:
            FileFormatError: If the file has none of that name.
        """
        return space_from_dict(self._json(name))

    def keys(self, episode: int | str) -> list[str]:
        """Observation keys of an episode."""
        with self._open() as file:
            return sorted(self._demo(file, episode)["frames"])

    def frames(self, episode: int | str, key: str, rows: slice | int = slice(None)) -> Array:
        """Read a part of an episode's observations.

        Args:
            episode: Its name or its place in natural order.
            key: Observation key.
            rows: Which of the N+1 observations.

        Returns:
            [rows, ...], without the first dimension for a single row.

        Raises:
            InputError: If there is no such episode or key.
        """
        with self._open() as file:
            frames = self._demo(file, episode)["frames"]
            if key not in frames:
                raise InputError(f"key must be one of {sorted(frames)}, got {key!r}")
            count = len(frames[key])
            if isinstance(rows, slice):
                start, stop, stride = rows.indices(count)
                if stride < 0:
                    ordered = range(start, stop, stride)[::-1]
                    return np.asarray(frames[key][ordered.start : ordered.stop : -stride])[::-1]
                return np.asarray(frames[key][start : max(start, stop) : stride])
            if not -count <= rows < count:
                raise InputError(f"rows must be within the {count} observations, got {rows}")
            return np.asarray(frames[key][rows])

    def intrinsics(self, episode: int | str) -> Array | None:
        """Read the lens of an episode without its frames; float32 [3, 3], `None` where it is not known."""
        with self._open() as file:
            demo = self._demo(file, episode)
            return np.asarray(demo["intrinsics"]) if "intrinsics" in demo else None

    def __getitem__(self, episode: int | str) -> Episode:
        """Read an episode by its place in natural order or by name."""
        with self._open() as file:
            demo = self._demo(file, episode)
            try:
                return read_episode(demo)
            except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
                raise FileFormatError(f"{self.path} has a damaged episode {demo.name}: {error}") from error

    def __len__(self) -> int:
        """Number of episodes."""
        with self._open() as file:
            return len(file["data"])

    def __iter__(self) -> Iterator[Episode]:
        """Read one episode after the other."""
        for name in self.episodes:
            yield self[name]

    def _check(self, file: h5py.File) -> None:
        version = file.attrs.get("schema_version")
        if version is None or not isinstance(file.get("data"), h5py.Group):
            raise FileFormatError(f"{self.path} must have `data` and `schema_version`, got {list(file)}")
        if version != SCHEMA_VERSION:
            raise FileFormatError(f"{self.path} must have schema_version {SCHEMA_VERSION}, got {version}")

    def _demo(self, file: h5py.File, episode: int | str) -> h5py.Group:
        data = file["data"]
        if isinstance(episode, str):
            if episode not in data:
                raise InputError(f"episode must be one of the {len(data)} recorded, got {episode!r}")
            return data[episode]
        names = sorted(data, key=natural_key)
        if not -len(names) <= episode < len(names):
            # An IndexError as well, so that iteration by index ends.
            raise EpisodeIndexError(f"episode must be within the {len(names)} recorded, got {episode}")
        return data[names[episode]]

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads(self.attrs[name]))
        except (KeyError, TypeError, ValueError) as error:
            raise FileFormatError(f"{self.path} must hold JSON in attribute {name}: {error!r}") from error


class EpisodeIndexError(InputError, IndexError):
    """There is no episode at this place."""


def read_episode(demo: h5py.Group) -> Episode:
    """Read an episode from its group.

    Args:
        demo: Such as `data/demo_0` of an open recording.

    Returns:
        All of it.

    Raises:
        KeyError, TypeError, ValueError, OSError or RuntimeError: If it is damaged, as h5py has it.
    """
    known = {*_STEP_NAMES, "cam2world", "intrinsics", "frames", "obs", "next_obs"}
    extras = [key for key in demo if key not in known]
    masks = {key: mask_name(key) for key in extras if mask_name(key) in extras}
    attrs = {name: _attribute(value) for name, value in demo.attrs.items()}
    for name in {"reset_options", "circumstances"} & set(attrs):
        attrs[name] = json.loads(attrs[name])
    return Episode(
        name=demo.name.rsplit("/", 1)[-1],
        frames={key: value[()] for key, value in demo["frames"].items()},
        actions=demo["actions"][()],
        rewards=demo["rewards"][()],
        terminated=demo["terminated"][()].astype(bool),
        truncated=demo["truncated"][()].astype(bool),
        cam2world=demo["cam2world"][()] if "cam2world" in demo else None,
        intrinsics=demo["intrinsics"][()] if "intrinsics" in demo else None,
        extras={key: demo[key][()] for key in extras if key not in masks.values()},
        attrs=attrs,
        masks={key: demo[name][()].astype(bool) for key, name in masks.items()},
    )


def _attribute(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
