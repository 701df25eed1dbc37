"""Recording, single environments: a wrapper that writes each episode to an HDF5 file (see `schema`)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import gymnasium as gym

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError, InputTypeError, MirageError, StateError
from mirage_sim.recording.schema import make_env_args, space_to_dict, split_circumstances, to_json
from mirage_sim.recording.stream import EpisodeStream, check_extras
from mirage_sim.recording.writer import HDF5Writer

DEFAULT_INFO_KEYS = ("coverage",)
CAMERA_KEYS = ("cam2world", "intrinsics")
"""Recorded from `info` where the observation does not hold them."""
PLAIN_KEY = "observation"
"""Observation key of an environment whose observation is a single array."""


class RecordHDF5(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Records every episode of an environment.

    An episode is stored when it terminates or is truncated; one that `reset` or `close` cuts off is stored
    with its last step marked truncated and the attribute `cut`. A wrapper that is dropped without `close`, or
    still there when the interpreter ends, stores its episode likewise and gives the file free.

    With each episode: seed, reset options, and where the reset had no seed, the state of the environment's
    random generator before it (`np_random_state`, JSON). `info["seed"]` of the reset stands in for a seed
    that was not given, `info["is_success"]` of the last step gives `success`.

    An environment may have an attribute `recording_metadata`, a mapping such as
    `{"model_id": ..., "weights_sha256": ...}`, which goes to the attributes of `data`. Appending needs the
    same, except for what `schema.is_circumstance` names, such as the number of threads.

    The file belongs to the process that made the wrapper: it cannot be pickled, and a process forked from
    that one can only close it, which changes nothing in the file. For `AsyncVectorEnv` give each worker a
    function that wraps its environment with a path of its own, or wrap the vector (`RecordHDF5Vector`).
    Put it inside `Autoreset`.

    Where a step cannot be recorded, such as one whose reward is NaN, `step` raises, the episode is stored up
    to there with the attribute `cut`, and further steps are not recorded until the next reset.
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
            info_keys: Numeric entries of the steps' `info` to record, at the steps that have them; shape and
                dtype may change. An episode gets a dataset of N rows for each that came at least once. The
                row of a step without it is NaN, or 0 where the dtype is none of floats, and the dataset
                `_<key>` says which rows came (see `schema`). None and what is not numeric do not count.
            compression: See `HDF5Writer`.

        Raises:
            InputError: If `info_keys` cannot be names of datasets, or metadata hold what HDF5 cannot.
            RecordingError: If the file cannot be made or is in use.
        """
        gym.utils.RecordConstructorArgs.__init__(
            self, path=str(path), mode=mode, metadata=metadata, info_keys=info_keys, compression=compression
        )
        gym.Wrapper.__init__(self, env)
        self._info_values = InfoValues(info_keys)
        self._stream: EpisodeStream | None = None
        self._first_obs: dict[str, Any] | None = None
        self._refused = False
        own = env.get_wrapper_attr("recording_metadata") if env.has_wrapper_attr("recording_metadata") else {}
        identity, circumstances = split_circumstances(own, metadata or {})
        env_args, described = describe_env(env.spec, env.observation_space, env.action_space)
        self.writer = HDF5Writer(
            path,
            env_args=env_args,
            metadata={**described, **identity, **(metadata or {})},
            circumstances=circumstances,
            mode=mode,
            compression=compression,
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Store the running episode, if any, reset the environment and begin the next."""
        self._finish()
        self._refused = False
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
        """Step the environment and record it.

        Raises:
            InputError: If the step cannot be recorded; the episode is stored without it, as cut.
            RecordingError: If the file cannot be written.
            StateError: If no episode is running.
        """
        if self._stream is None and not self._refused:
            raise StateError("step needs reset first: no episode is running")
        obs, reward, terminated, truncated, info = self.env.step(action)
        ended = bool(terminated or truncated)
        if self._stream is not None:
            try:
                next_obs = as_mapping(obs)
                self._stream.append(
                    self._first_obs,
                    action,
                    float(reward),
                    terminated,
                    truncated,
                    next_obs,
                    {**self._info_values(info), **step_camera(self._stream, next_obs, info)},
                )
                self._first_obs = None
                self._stream.success = success_of(info)
            except BaseException as error:
                stream, self._stream, self._refused = self._stream, None, not ended
                end_refused(self.writer, stream, error)
                raise
        if ended:
            self._refused = False
            self._finish()
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        """Store the running episode, and close the file and the environment."""
        self._stream = None
        try:
            self.writer.close()
        finally:
            super().close()

    def __getstate__(self) -> dict[str, Any]:
        """Refuse to be pickled."""
        raise InputTypeError("RecordHDF5 cannot be pickled, its file belongs to this process; pickle its env")

    def _finish(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            self.writer.finish_episode(stream)


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


def step_camera(stream: EpisodeStream, obs: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Pose and intrinsics of a step from `info`; the pose where the reset had one."""
    values = camera_values(obs, info)
    if not stream.takes_poses:
        values.pop("cam2world", None)
    return values


class InfoValues:
    """The entries of `info` to be recorded, as arrays."""

    def __init__(self, keys: Sequence[str]) -> None:
        """Check the keys.

        Args:
            keys: Those of the entries; pose and intrinsics are recorded anyway.

        Raises:
            InputError: If one cannot be the name of a dataset.
        """
        if isinstance(keys, str):
            raise InputError(f"info_keys must be a sequence of texts, got the text {keys!r}")
        self._keys = [key for key in keys if key not in CAMERA_KEYS]
        self._warned: set[str] = set()
        check_extras(self._keys)

    def __call__(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Pick those of a step that are numeric; warn once of each that is not."""
        values = {}
        for key in self._keys:
            if info.get(key) is None:
                continue
            try:
                values[key] = own_array(f"info[{key!r}]", info[key])
            except MirageError:
                if key not in self._warned:
                    self._warned.add(key)
                    message = f"info[{key!r}] is not numeric and is not recorded"
                    warnings.warn(message, RuntimeWarning, stacklevel=4)
        return values


def end_refused(writer: HDF5Writer, stream: EpisodeStream, error: BaseException) -> None:
    """Store an episode of which a step could not be recorded, since what follows does not belong to it.

    Args:
        writer: Its writer.
        stream: The episode.
        error: Why the step was refused; it notes it where the episode cannot be stored either.
    """
    try:
        if stream.open:
            writer.finish_episode(stream)
        else:
            writer.discard_episode(stream)
    except MirageError as lost:
        error.add_note(f"The episode is lost: {lost}")


def success_of(info: Mapping[str, Any]) -> bool | None:
    """Whether the environment says that the task was solved."""
    return bool(info["is_success"]) if "is_success" in info else None


def _random_state(env: gym.Env[Any, Any]) -> dict[str, str]:
    try:
        return {"np_random_state": to_json(env.unwrapped.np_random.bit_generator.state)}
    except AttributeError:
        return {}
