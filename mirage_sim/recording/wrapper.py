"""Recording, single environments: a wrapper that writes each episode to an HDF5 file (see `schema`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import gymnasium as gym

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputTypeError, StateError
from mirage_sim.recording.schema import make_env_args, space_to_dict, to_json
from mirage_sim.recording.stream import EpisodeStream
from mirage_sim.recording.writer import HDF5Writer

DEFAULT_INFO_KEYS = ("coverage",)
CAMERA_KEYS = ("cam2world", "intrinsics")
"""Recorded from `info` where the observation does not hold them."""
PLAIN_KEY = "observation"
"""Observation key of an environment whose observation is a single array."""


class RecordHDF5(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Records every episode of an environment.

    An episode is stored when it terminates or is truncated; one that `reset` or `close` cuts off is stored
    with its last step marked truncated and the attribute `cut`. With each one: seed, reset options, and where
    the reset had no seed, the state of the environment's random generator before it (`np_random_state`,
    JSON). `info["seed"]` of the reset stands in for a seed that was not given, `info["is_success"]` of the
    last step gives `success`.

    An environment may have an attribute `recording_metadata`, a mapping such as
    `{"model_id": ..., "weights_sha256": ...}`, which goes to the attributes of `data`.

    The file belongs to the process that made the wrapper: it cannot be pickled. For `AsyncVectorEnv` give
    each worker a function that wraps its environment with a path of its own, or wrap the vector
    (`RecordHDF5Vector`). Put it inside `Autoreset`.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        path: str | Path,
        *,
        mode: Literal["x", "a"] = "x",
        metadata: Mapping[str, Any] | None = None,
        info_keys: Sequence[str] = DEFAULT_INFO_KEYS,
        compression: Literal["gzip", "lzf"] | None = "gzip",
    ) -> None:
        """Wrap an environment and make the file.

        Args:
            env: The environment.
            path: The file (see `HDF5Writer`).
            mode: "x" for a new file, "a" to append.
            metadata: Further attributes of `data`.
            info_keys: Numeric entries of the steps' `info` to record, where it has them.
            compression: See `HDF5Writer`.

        Raises:
            RecordingError: If the file cannot be made or is in use.
        """
        gym.utils.RecordConstructorArgs.__init__(
            self, path=str(path), mode=mode, metadata=metadata, info_keys=info_keys, compression=compression
        )
        gym.Wrapper.__init__(self, env)
        self._info_keys = tuple(info_keys)
        self._stream: EpisodeStream | None = None
        self._first_obs: dict[str, Any] | None = None
        self._success: bool | None = None
        own = env.get_wrapper_attr("recording_metadata") if env.has_wrapper_attr("recording_metadata") else {}
        env_args, described = describe_env(env.spec, env.observation_space, env.action_space)
        self.writer = HDF5Writer(
            path,
            env_args=env_args,
            metadata={**described, **own, **(metadata or {})},
            mode=mode,
            compression=compression,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Store the running episode, if any, reset the environment and begin the next."""
        self._finish()
        attrs = {"reset_options": to_json(options or {})}
        if seed is None:
            attrs |= _random_state(self.env)
        obs, info = self.env.reset(seed=seed, options=options)
        self._first_obs = copied_obs(obs)
        self._stream = self.writer.open_episode(
            initial=camera_values(self._first_obs, info),
            seed=info.get("seed") if seed is None else seed,
            **attrs,
        )
        return obs, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment and record it."""
        if self._stream is None:
            raise StateError("step needs reset first: no episode is running")
        obs, reward, terminated, truncated, info = self.env.step(action)
        next_obs = as_mapping(obs)
        self._stream.append(
            self._first_obs,
            action,
            float(reward),
            terminated,
            truncated,
            next_obs,
            {**info_values(info, self._info_keys), **camera_values(next_obs, info)},
        )
        self._first_obs = None
        self._success = success_of(info)
        if terminated or truncated:
            self._finish()
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        """Store the running episode, and close the file and the environment."""
        try:
            if self.writer.is_open:
                self._finish()
        finally:
            self.writer.close()
            super().close()

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled."""
        raise InputTypeError("RecordHDF5 cannot be pickled, its file belongs to this process; pickle its env")

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self.writer.finish_episode(stream, self._success)
        self._success = None


def describe_env(
    spec: Any, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file says of its environment.

    Args:
        spec: The environment's `EnvSpec`, or None.
        observation_space: Of one environment.
        action_space: Of one environment.

    Returns:
        `env_args` and metadata for `HDF5Writer`.
    """
    metadata: dict[str, Any] = {
        "observation_space": to_json(space_to_dict(observation_space)),
        "action_space": to_json(space_to_dict(action_space)),
    }
    if spec is None:
        return make_env_args("unregistered"), metadata
    fields = ("id", "kwargs", "max_episode_steps", "reward_threshold", "nondeterministic")
    metadata["env_spec"] = to_json({name: getattr(spec, name) for name in fields})
    return make_env_args(spec.id, spec.kwargs), metadata


def as_mapping(obs: Any) -> Mapping[str, Any]:
    """The observation by key."""
    return obs if isinstance(obs, Mapping) else {PLAIN_KEY: obs}


def copied_obs(obs: Any) -> dict[str, Any]:
    """The observation by key, safe from later changes in place."""
    return {key: own_array(f"obs[{key!r}]", value) for key, value in as_mapping(obs).items()}


def camera_values(obs: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Pose and intrinsics from `info`, where the observation does not hold them."""
    return {key: info[key] for key in CAMERA_KEYS if key in info and key not in obs}


def info_values(info: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The entries of `info` to be recorded."""
    return {key: info[key] for key in keys if key in info}


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Whether the environment says that the task was solved."""
    return bool(info["is_success"]) if "is_success" in info else None


def _random_state(env: gym.Env[Any, Any]) -> dict[str, str]:
    try:
        return {"np_random_state": to_json(env.unwrapped.np_random.bit_generator.state)}
    except AttributeError:
        return {}
