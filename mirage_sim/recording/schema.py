"""Recording, layout: names and conventions of the HDF5 files, and JSON for what HDF5 has no type for.

The layout is robomimic's with additions that its readers ignore, for an episode of N steps:

    /                             schema_version, format, camera_convention
    data                          total, env_args (JSON: env_name, type, env_type, env_kwargs), and the
                                  metadata of the file: spaces, env spec, model id, weights hash,
                                  renderer (name and version of what drew first frames), ...
    data/demo_<i>                 num_samples = N, seed, reset_options (JSON), success, cut,
                                  circumstances (JSON, where they are not those of the file), ...
        actions                   [N, A]
        rewards                   [N]
        dones terminated truncated  [N] 0 or 1, dones where one of the other two is
        cam2world                 [N+1, 4, 4] float32, where known
        intrinsics                [3, 3] float32, in pixels of the recorded images, where known
        coverage, ...             [N, ...] values of the step that led to `next_obs`
        _coverage, ...            like `coverage`, 0 or 1: which of its elements came, where some did not
        frames/<key>              [N+1, ...] all observations, images uint8 HWC, the last one included
        obs/<key> next_obs/<key>  [N, ...] views of `frames` (virtual datasets), its first and its last N rows
    mask/<filter>                 [M] names of episodes, as bytes

A value that came at some steps only, such as one of the last step, holds NaN at the others, or 0 where its
dtype is none of floats. Where its shape changed, each row fills the first corner of the largest shape, with
the dimensions it lacks behind its own. In both cases its mask, named as Gymnasium names masks in `info`, says
what came. Where its dtype changed, all rows have the one that NumPy promotes them to.

What may decide the last bits and nothing else (`is_circumstance`: device, versions, threads, ...) is an
attribute of `data`, and holds for the episodes without `circumstances` of their own. These are all that is
known of an episode that was appended under other ones.

Each image is stored once: `obs` and `next_obs` are views into `frames` of the same file, which any HDF5
library from 1.10 on reads as ordinary datasets, wherever the file is moved. Whoever copies single episodes
to another file copies `frames` and makes the views anew. There is no `states`: a generated world has no
simulator state that would bring it back; seed, reset options and actions do.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from mirage_sim.errors import FileFormatError, InputError, InputTypeError

SCHEMA_VERSION = 1
FORMAT = "mirage_sim recording (robomimic layout)"
CAMERA_CONVENTION = (
    "cam2world [4, 4], camera axes OpenCV (x right, y down, z forward), world z up, metres; "
    "depth is z-depth in metres, 0 or non-finite = unknown; intrinsics in pixels, pixel centres at +0.5"
)
GYM_ENV_TYPE = 2
"""robomimic's number for Gym environments."""
_CIRCUMSTANCES = frozenset(("renderer", "device", "gpu", "processor", "instructions", "dtype", "threads"))
LARGEST_INLINE_ARRAY = 4096
"""Bytes up to which JSON holds an array; of a larger one only shape, dtype and SHA-256 are kept."""


def make_env_args(env_name: str, env_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The environment's description as robomimic and Isaac Lab files carry it.

    Args:
        env_name: Id with which the environment is made.
        env_kwargs: Arguments of its constructor.

    Returns:
        A dictionary for `HDF5Writer(env_args=...)`.
    """
    return {
        "env_name": env_name,
        "type": GYM_ENV_TYPE,
        "env_type": GYM_ENV_TYPE,
        "env_kwargs": dict(env_kwargs or {}),
    }


def to_json(value: Any) -> str:
    """Write a value as JSON, with arrays, paths, NumPy numbers and spaces in it.

    Args:
        value: Nested mappings, sequences and scalars.

    Returns:
        One line of JSON; unknown objects appear as their `repr`, NaN and infinity as text.
    """
    return json.dumps(_plain(value), sort_keys=True, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        if value.nbytes <= LARGEST_INLINE_ARRAY:
            return {"array": _plain(value.tolist()), "dtype": str(value.dtype)}
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return {"shape": list(value.shape), "dtype": str(value.dtype), "sha256": digest}
    if isinstance(value, gym.Space):
        return space_to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    return repr(value)


def is_circumstance(name: str) -> bool:
    """Say whether an attribute tells what a recording was computed on, which may differ between episodes.

    Args:
        name: Of the attribute.

    Returns:
        True for device, processor, threads, ... and versions of libraries.
    """
    return name in _CIRCUMSTANCES or name.endswith("_version")


def split_circumstances(
    own: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what an environment says of itself.

    Args:
        own: Its `recording_metadata`.
        given: What the user says instead of it.

    Returns:
        What names the environment, and the circumstances.
    """
    kept = {name: value for name, value in own.items() if name not in given}
    circumstances = {name: value for name, value in kept.items() if is_circumstance(name)}
    return {name: value for name, value in kept.items() if name not in circumstances}, circumstances


def space_to_dict(space: gym.Space[Any]) -> dict[str, Any]:
    """Describe a space in plain values.

    Args:
        space: Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple.

    Returns:
        A dictionary that `space_from_dict` turns back.

    Raises:
        InputTypeError: For another kind of space.
    """
    if isinstance(space, gym.spaces.Box):
        return {
            "space": "Box",
            "low": _bound(space.low),
            "high": _bound(space.high),
            "shape": list(space.shape),
            "dtype": str(space.dtype),
        }
    if isinstance(space, gym.spaces.Discrete):
        return {"space": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gym.spaces.MultiDiscrete):
        return {"space": "MultiDiscrete", "nvec": space.nvec.tolist(), "dtype": str(space.dtype)}
    if isinstance(space, gym.spaces.MultiBinary):
        return {"space": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.shape)}
    if isinstance(space, gym.spaces.Dict):
        return {"space": "Dict", "spaces": {key: space_to_dict(part) for key, part in space.spaces.items()}}
    if isinstance(space, gym.spaces.Tuple):
        return {"space": "Tuple", "spaces": [space_to_dict(part) for part in space.spaces]}
    known = "Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"
    raise InputTypeError(f"space must be {known}, got {type(space).__name__}")


def space_from_dict(described: Mapping[str, Any]) -> gym.Space[Any]:
    """Make the space that `space_to_dict` described.

    Args:
        described: The dictionary.

    Returns:
        The space.

    Raises:
        FileFormatError: If it describes none.
    """
    try:
        kind = described["space"]
        if kind == "Box":
            dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
            low, high = (np.broadcast_to(np.asarray(described[end], dtype), shape) for end in ("low", "high"))
            return gym.spaces.Box(low, high, dtype=dtype.type)
        if kind == "Discrete":
            return gym.spaces.Discrete(described["n"], start=described["start"])
        if kind == "MultiDiscrete":
            return gym.spaces.MultiDiscrete(described["nvec"], dtype=np.dtype(described["dtype"]).type)
        if kind == "MultiBinary":
            return gym.spaces.MultiBinary(described["n"])
        if kind == "Dict":
            return gym.spaces.Dict({key: space_from_dict(part) for key, part in described["spaces"].items()})
        if kind == "Tuple":
            return gym.spaces.Tuple([space_from_dict(part) for part in described["spaces"]])
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"space description must be one of space_to_dict, got {described!r}") from error
    raise FileFormatError(f"space description must name a known space, got {kind!r}")


def _bound(limits: np.ndarray[Any, Any]) -> Any:
    """One number where all limits are alike, a nested list otherwise."""
    alike = limits.size > 0 and bool((limits == limits.flat[0]).all())
    return limits.flat[0].item() if alike else limits.tolist()


def to_attribute(name: str, value: Any) -> Any:
    """Turn a value into what an HDF5 attribute holds: numbers and text as they are, the rest as JSON.

    Args:
        name: Attribute name for the message.
        value: Anything that `to_json` takes.

    Returns:
        A NumPy scalar or a string.

    Raises:
        InputError: If a text or the name is none that HDF5 can hold.
        InputTypeError: If it is None, which HDF5 attributes cannot say.
    """
    if not name or not _can_be_stored(name):
        raise InputError(f"attribute names must be text without NUL, got {name!r}")
    if value is None:
        raise InputTypeError(f"attribute {name} must have a value, got None")
    if isinstance(value, bool | np.bool_):
        return np.bool_(value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return np.int64(value)
    if isinstance(value, float):
        return np.float64(value)
    if isinstance(value, str) and not _can_be_stored(value):
        raise InputError(f"attribute {name} must be valid text without NUL, got {value!r}")
    if isinstance(value, str | np.number):
        return value
    return to_json(value)


def check_name(what: str, name: Any) -> None:
    """Raise unless a key can be the name of a dataset.

    Args:
        what: Which key, for the message.
        name: The key.

    Raises:
        InputError: If it is empty, no text, a path, or text that HDF5 cannot hold.
    """
    if not isinstance(name, str) or name in ("", ".") or "/" in name or not _can_be_stored(name):
        raise InputError(f"{what} must be text without '/' and NUL, got {name!r}")


def _can_be_stored(text: str) -> bool:
    """Whether HDF5 holds this text: valid Unicode without NUL."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def mask_name(name: str) -> str:
    """Name of the dataset that says which elements of another came."""
    return f"_{name}"


def natural_key(name: str) -> tuple[str, int]:
    """Sort key that puts demo_2 before demo_10."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or -1)
