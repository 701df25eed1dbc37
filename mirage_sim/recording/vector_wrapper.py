"""Recording, vector environments: each world has its own running episode, and all go to one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from mirage_sim.errors import InputTypeError, StateError
from mirage_sim.recording.schema import split_circumstances, to_json
from mirage_sim.recording.stream import EpisodeStream
from mirage_sim.recording.wrapper import (
    DEFAULT_INFO_KEYS,
    InfoValues,
    as_mapping,
    camera_values,
    copied_obs,
    describe_env,
    end_refused,
    step_camera,
    success_of,
)
from mirage_sim.recording.writer import HDF5Writer


class RecordHDF5Vector(VectorWrapper):
    """Records every episode of a vector environment, in each of gymnasium's autoreset modes.

    Episodes are stored in the order in which they end, with the attribute `env_index`; otherwise as
    `RecordHDF5` does it: where a step of one world cannot be recorded, `step` raises when it has recorded the
    others, and that world is recorded again from its next episode on. Episodes that an autoreset
    begins have the seed that `info["seed"]` says, or none.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        path: str | Path,
        *,
        mode: Literal["x", "a"] = "x",
        metadata: Mapping[str, Any] | None = None,
        info_keys: Sequence[str] = DEFAULT_INFO_KEYS,
        compression: Literal["gzip", "lzf"] | None = "gzip",
    ) -> None:
        """Wrap a vector environment and make the file.

        Args:
            env: The vector environment, with a Dict or Box observation.
            path: See `RecordHDF5`, as for the others.
            mode: See `RecordHDF5`.
            metadata: See `RecordHDF5`.
            info_keys: See `RecordHDF5`; which world has an entry says its mask in `info`.
            compression: See `RecordHDF5`.

        Raises:
            InputError: If `info_keys` cannot be names of datasets, or metadata hold what HDF5 cannot.
            RecordingError: If the file cannot be made or is in use.
        """
        super().__init__(env)
        self._info_values = InfoValues(info_keys)
        self._autoreset = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._streams: list[EpisodeStream | None] = [None] * env.num_envs
        self._first_obs: list[dict[str, Any] | None] = [None] * env.num_envs
        self._refused = [False] * env.num_envs
        self._options = to_json({})
        own = getattr(env.unwrapped, "recording_metadata", {})
        identity, circumstances = split_circumstances(own, metadata or {})
        env_args, described = describe_env(env.spec, env.single_observation_space, env.single_action_space)
        self.writer = HDF5Writer(
            path,
            env_args=env_args,
            metadata={**described, **identity, **(metadata or {})},
            circumstances=circumstances,
            mode=mode,
            compression=compression,
        )

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Store the running episodes of the worlds that are reset, and begin their next."""
        mask = (options or {}).get("reset_mask")
        chosen = range(self.num_envs) if mask is None else [int(i) for i in np.flatnonzero(mask)]
        for index in chosen:
            self._finish(index)
            self._refused[index] = False
        obs, info = self.env.reset(seed=cast(Any, seed), options=options)
        self._options = to_json({key: value for key, value in (options or {}).items() if key != "reset_mask"})
        for index in chosen:
            given = seed[index] if isinstance(seed, Iterable) else None if seed is None else seed + index
            self._begin(index, _part(obs, index), _world_info(info, index), given)
        return obs, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environment and record each world that was running."""
        idle = all(stream is None for stream in self._streams) and not any(self._refused)
        if idle and self._autoreset is AutoresetMode.DISABLED:
            raise StateError("step needs reset first: no episode is running")
        obs, rewards, terminated, truncated, info = self.env.step(actions)
        refusal: BaseException | None = None
        for index in range(self.num_envs):
            try:
                self._record(index, actions, (obs, rewards, terminated, truncated, info))
            except BaseException as error:  # noqa: BLE001  # the other worlds are recorded all the same
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return obs, rewards, terminated, truncated, info

    def _record(self, index: int, actions: Any, result: tuple[Any, Any, Any, Any, dict[str, Any]]) -> None:
        """Record the step of one world, and begin its next episode where an autoreset did."""
        obs, rewards, terminated, truncated, info = result
        stream = self._streams[index]
        ended = bool(terminated[index] or truncated[index])
        world_obs, world_info = _part(obs, index), _world_info(info, index)
        if stream is None and not self._refused[index]:
            if self._autoreset is AutoresetMode.NEXT_STEP:
                self._begin(index, world_obs, world_info, None)
            return
        self._refused[index] &= not ended
        last_obs, last_info = world_obs, world_info
        if ended and self._autoreset is AutoresetMode.SAME_STEP:
            last_obs = info["final_obs"][index]
            last_info = _world_info(info.get("final_info", {}), index)
        try:
            if stream is not None:
                next_obs = as_mapping(last_obs)
                stream.append(
                    self._first_obs[index],
                    actions[index],
                    float(rewards[index]),
                    bool(terminated[index]),
                    bool(truncated[index]),
                    next_obs,
                    {**self._info_values(last_info), **step_camera(stream, next_obs, last_info)},
                )
                self._first_obs[index] = None
                stream.success = success_of(last_info)
        except BaseException as error:
            self._streams[index], self._refused[index] = None, not ended
            if stream is not None:
                end_refused(self.writer, stream, error)
            raise
        finally:
            if ended:
                try:
                    self._finish(index)
                finally:
                    if self._autoreset is AutoresetMode.SAME_STEP:
                        self._begin(index, world_obs, world_info, None)

    def close(self, **kwargs: Any) -> None:
        """Store the running episodes, and close the file and the environment."""
        self._streams = [None] * self.num_envs
        try:
            self.writer.close()
        finally:
            super().close(**kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled."""
        raise InputTypeError("RecordHDF5Vector cannot be pickled, its file belongs to this process")

    def _begin(self, index: int, obs: Any, info: Mapping[str, Any], seed: int | None) -> None:
        first = copied_obs(obs)
        self._first_obs[index] = first
        self._streams[index] = self.writer.open_episode(
            initial=camera_values(first, info),
            seed=info.get("seed") if seed is None else seed,
            reset_options=self._options,
            env_index=index,
        )

    def _finish(self, index: int) -> None:
        stream, self._streams[index] = self._streams[index], None
        if stream is not None:
            self.writer.finish_episode(stream)


def _part(obs: Any, index: int) -> Any:
    """One world's observation of a batch."""
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, Mapping) else obs[index]


def _world_info(info: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One world's entries of a vector's `info`: those whose mask, if any, says that they are its own."""
    return {
        key: value[index]
        for key, value in info.items()
        if isinstance(value, np.ndarray)
        and not key.startswith("_")
        and (f"_{key}" not in info or info[f"_{key}"][index])
    }
