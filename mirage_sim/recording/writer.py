"""Recording, writer: episodes stream into one HDF5 file in robomimic's layout (see `schema`).

The running episode goes to a nameless side file, row by row, so memory stays flat and the main file holds
whole episodes only. When it ends, its compressed chunks are copied, without being unpacked, behind the end
of the main file and committed in one write (see `crash_safe_file`): killed at any moment, the file opens and
holds every episode that had ended. A second writer on the file gets a `RecordingError`.

An episode that is running when the writer is closed is stored up to there, marked as cut off. A writer that
is dropped, or still there when the interpreter ends, is closed likewise (see `episode_file`).
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError, InputTypeError, RecordingError, StateError
from mirage_sim.recording.columns import Packing
from mirage_sim.recording.crash_safe_file import TRASH, CrashSafeFile
from mirage_sim.recording.episode_file import EpisodeFile, begin_recording
from mirage_sim.recording.reader import HDF5Reader
from mirage_sim.recording.schema import check_name, is_circumstance, to_attribute, to_json
from mirage_sim.recording.stream import EpisodeStream

GZIP_LEVEL = 1


class HDF5Writer:
    """Writes a recording; a context manager.

    It belongs to the process that made it: in a process forked from that one it can only be closed, which
    changes nothing in the file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        env_args: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        circumstances: Mapping[str, Any] | None = None,
        mode: Literal["x", "a"] = "x",
        compression: Literal["gzip", "lzf"] | None = "gzip",
        fsync: bool = True,
    ) -> None:
        """Make or open the file.

        Args:
            path: The file, in an existing folder.
            env_args: Description of the environment with `env_name` (see `schema.make_env_args`).
            metadata: Attributes of `data`: numbers and text as they are, anything else as JSON.
            circumstances: What may decide the last bits, such as `threads` and `torch_version` (see
                `schema.is_circumstance`). A new file holds them beside the metadata. Where a file that is
                appended to has other ones, each new episode holds its own.
            mode: "x" makes a new file and refuses an existing one, "a" appends to one that may exist.
                Appending needs the same `env_name` and the same value for each metadata key that is given.
            compression: "gzip" (default, read by every HDF5 tool), "lzf" (faster, needs h5py) or None.
            fsync: Bring each episode to the disk when it ends, so that it also survives a power cut.

        Raises:
            InputError: If metadata hold what HDF5 cannot, such as text with NUL.
            RecordingError: If the file exists (mode "x"), is in use, is of another environment, or cannot be
                written.
            FileFormatError: If the existing file is no recording.
        """
        if mode not in ("x", "a"):
            raise InputError(f'mode must be "x" or "a", got {mode!r}')
        if compression not in ("gzip", "lzf", None):
            raise InputError(f'compression must be "gzip", "lzf" or None, got {compression!r}')
        if not isinstance(env_args, Mapping) or not isinstance(env_args.get("env_name"), str):
            raise InputTypeError(f"env_args must be a mapping with a text env_name, got {env_args!r}")
        self.path = Path(path)
        if "\0" in str(path):
            raise InputError(f"path must not hold NUL, got {str(path)!r}")
        self._folder = self.path.absolute().parent
        self._packing = Packing(compression, GZIP_LEVEL if compression == "gzip" else None)
        self._current: EpisodeStream | None = None
        own = {name: to_attribute(name, value) for name, value in (circumstances or {}).items()}
        attributes = {"env_args": to_json(env_args)}
        attributes |= {name: to_attribute(name, value) for name, value in (metadata or {}).items()}
        if mode == "x" or not self.path.exists():
            CrashSafeFile.create(self.path, lambda file: begin_recording(file, attributes | own))
        file = CrashSafeFile(self.path, fsync=fsync)
        try:
            reader = HDF5Reader(self.path)
            self._check_existing(reader, attributes, own)
            names = reader.episodes
            recorded = {
                n: v
                for n, v in reader.attrs.items()
                if (n in own or is_circumstance(n)) and n not in attributes
            }
            self._episode_attrs = {"circumstances": to_json(own)} if own and own != recorded else {}
        except BaseException:
            file.close()
            raise
        self._recording = EpisodeFile(file, names)
        # Without `atexit`, where the recording itself is.
        weakref.finalize(self, self._recording.close_dropped).atexit = False

    @property
    def is_open(self) -> bool:
        """Whether it has the file."""
        return self._recording.is_open

    @property
    def episodes(self) -> list[str]:
        """Names of the finished episodes, in natural order."""
        return list(self._recording.names)

    def begin_episode(self, *, initial: Mapping[str, Any] | None = None, **attrs: Any) -> None:
        """Begin the writer's own episode, the one that `append` and `end_episode` mean.

        Args:
            initial: `cam2world` [4, 4] before the first step, where it comes in `extras` and not in the
                observation, and the episode's `intrinsics` [3, 3].
            attrs: Attributes of the episode, such as `seed` and `reset_options`; None values are left out.

        Raises:
            StateError: If one is running.
        """
        if self._current is not None:
            raise StateError("begin_episode needs the running episode to be ended first")
        self._current = self.open_episode(initial=initial, **attrs)

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
        """Record one step of the writer's own episode; see `EpisodeStream.append`."""
        if self._current is None:
            raise StateError("append needs begin_episode first")
        self._current.append(obs, action, reward, terminated, truncated, next_obs, extras)

    def end_episode(self, success: bool | None = None) -> str | None:
        """Store the writer's own episode.

        Args:
            success: Stored with it where given.

        Returns:
            Its name, or None if it had no step and was dropped.

        Raises:
            StateError: If none is running.
            RecordingError: If it cannot be written; what the file had is kept.
        """
        if self._current is None:
            raise StateError("end_episode needs begin_episode first")
        stream, self._current = self._current, None
        return self.finish_episode(stream, success=success)

    def open_episode(self, *, initial: Mapping[str, Any] | None = None, **attrs: Any) -> EpisodeStream:
        """Begin an episode beside others that are running, as vector environments need it.

        Args:
            initial: See `begin_episode`.
            attrs: See `begin_episode`.

        Returns:
            The stream that takes its steps; hand it to `finish_episode`.
        """
        with self._recording.changing():
            stream = EpisodeStream(
                self._folder,
                packing=self._packing,
                initial=initial or {},
                attrs={name: value for name, value in attrs.items() if value is not None}
                | self._episode_attrs,
                lock=self._recording.lock,
            )
            self._recording.add(stream)
        return stream

    def finish_episode(self, stream: EpisodeStream, success: bool | None = None) -> str | None:
        """Store an episode from `open_episode`; see `end_episode`."""
        if success is not None:
            stream.success = success
        return self._recording.finish(stream)

    def write_episode(
        self,
        frames: Mapping[str, Any],
        actions: Any = None,
        rewards: Any = None,
        *,
        extras: Mapping[str, Any] | None = None,
        intrinsics: Any = None,
        success: bool | None = None,
        **attrs: Any,
    ) -> str | None:
        """Store a whole episode from arrays, such as a walk through a scene.

        Args:
            frames: All N+1 observations by key: rgb uint8 [N+1, H, W, 3], depth [N+1, h, w],
                cam2world [N+1, 4, 4].
            actions: [N, A]; without, A is 0.
            rewards: [N]; without, zeros.
            extras: Values per step, [N, ...] each.
            intrinsics: [3, 3].
            success: See `end_episode`.
            attrs: See `begin_episode`.

        Returns:
            Its name, or None if there is but one frame.

        Raises:
            InputError: If lengths differ.
        """
        lengths = {key: len(value) for key, value in frames.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"frames must have the same length for each key, got {lengths}")
        steps = next(iter(lengths.values())) - 1
        actions = np.zeros((steps, 0), np.float32) if actions is None else own_array("actions", actions)
        rewards = np.zeros(steps) if rewards is None else own_array("rewards", rewards)
        for key, value in {"actions": actions, "rewards": rewards, **(extras or {})}.items():
            if len(value) != steps:
                raise InputError(f"{key} must have {steps} rows for {steps + 1} frames, got {len(value)}")
        initial = None if intrinsics is None else {"intrinsics": intrinsics}
        stream = self.open_episode(initial=initial, **attrs)
        try:
            for i in range(steps):
                obs = {key: value[0] for key, value in frames.items()} if i == 0 else None
                next_obs = {key: value[i + 1] for key, value in frames.items()}
                step_extras = {key: value[i] for key, value in (extras or {}).items()}
                stream.append(obs, actions[i], rewards[i], False, i == steps - 1, next_obs, step_extras)
        except BaseException:
            self.discard_episode(stream)
            raise
        return self.finish_episode(stream, success)

    def discard_episode(self, stream: EpisodeStream | None = None) -> None:
        """Drop a running episode, by default the writer's own."""
        if stream is None:
            stream, self._current = self._current, None
        if stream is not None:
            self._recording.discard(stream)

    def set_filter(self, name: str, episodes: Sequence[str]) -> None:
        """Store a list of episodes as `mask/<name>`, replacing one of that name.

        Args:
            name: Such as "train".
            episodes: Names of finished episodes.

        Raises:
            InputError: If one of them is not there.
        """
        check_name("name", name)
        unknown = sorted(set(episodes) - set(self._recording.names))
        if unknown:
            raise InputError(f"episodes must be finished ones of this file, got {unknown}")
        with self._recording.changing() as recording, recording.transaction() as file:
            filters = {key: value[()] for key, value in file["mask"].items()} if "mask" in file else {}
            filters[name] = np.array([episode.encode() for episode in episodes], dtype="S")
            if "mask" in file:
                file.move("mask", f"{TRASH}/mask")
            for key, value in filters.items():
                file[f"mask/{key}"] = value

    def close(self) -> None:
        """Store running episodes, cut off where they are, and give the file free; harmless when done twice.

        Raises:
            RecordingError: If an episode cannot be stored.
        """
        self._current = None
        self._recording.close()

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> Any:
        """Refuse to be pickled: the file stays with its process."""
        raise InputTypeError("a writer cannot be pickled; make it in the process that uses it")

    def _check_existing(
        self, reader: HDF5Reader, attributes: Mapping[str, Any], circumstances: Mapping[str, Any]
    ) -> None:
        recorded, env_name = reader.env_args.get("env_name"), json.loads(attributes["env_args"])["env_name"]
        if recorded != env_name:
            raise RecordingError(f"env_args must name {recorded!r} as {self.path} does, got {env_name!r}")
        for name, value in attributes.items():
            known = reader.attrs.get(name)
            same = known == value or (
                name == "env_spec" and _without(known, circumstances) == _without(value, circumstances)
            )
            if name != "env_args" and not same:
                raise RecordingError(f"metadata[{name!r}] must be {known!r} as in {self.path}, got {value!r}")


def _without(spec: Any, circumstances: Mapping[str, Any]) -> Any:
    """An environment's spec without those arguments that are circumstances, such as the number of threads."""
    try:
        described = dict(json.loads(spec))
        kwargs = {name: value for name, value in described["kwargs"].items() if name not in circumstances}
    except (AttributeError, KeyError, TypeError, ValueError):
        return spec
    return {**described, "kwargs": kwargs}
