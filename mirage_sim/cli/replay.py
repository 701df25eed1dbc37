"""Command line, `replay`: a recording as video or contact sheet, or lived through again and compared."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirage_sim.arguments import (
    check_at_least,
    check_device_name,
    check_file,
    check_positive,
    check_world_model,
    make_parent,
)
from mirage_sim.errors import FileFormatError, InputError

if TYPE_CHECKING:
    import gymnasium as gym

    from mirage_sim.recording import Episode, HDF5Reader

UNNAMED_RENDERER = "TinyRenderer"
"""What drew the first frames of recordings that do not name a renderer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim replay`."""
    parser.add_argument("file", type=Path, help="the recording")
    parser.add_argument("--out", type=Path, help="a .mp4 or .png file (default: beside the recording, .mp4)")
    parser.add_argument("--episode", type=int, default=0, help="which episode, from 0 (default: %(default)s)")
    parser.add_argument("--key", default="rgb", help="observation to show (default: %(default)s)")
    parser.add_argument("--fps", type=float, default=10.0, help="frames a second")
    parser.add_argument("--columns", type=int, default=8, help="frames in a row of a contact sheet")
    parser.add_argument(
        "--check",
        action="store_true",
        help="simulate all episodes again from the recorded seeds and actions, and compare every byte",
    )
    parser.add_argument("--world-model", help="folder of the world model, if it has moved (--check)")
    parser.add_argument("--device", help="where to simulate (--check; default: as recorded)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        help="largest difference that passes --check: of images as a share of 255, of other values as it is "
        "(default: every byte must agree)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Show or check a recording.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        The file written; or `passed`, `differences`, and `circumstances` that are not as recorded.

    Raises:
        FileFormatError: If it is no recording, or one that cannot be simulated again.
        InputError: If an argument is wrong.
        RecordingError: If the picture cannot be written.
    """
    check_file("file", args.file)
    if args.world_model is not None:
        check_world_model("--world-model", args.world_model)
    if args.device is not None:
        check_device_name("--device", args.device)
    if not args.check:
        _check_picture(args)
    from mirage_sim.recording import HDF5Reader

    if not 0.0 <= args.tolerance < 1.0:
        raise InputError(f"--tolerance must be in [0, 1), got {args.tolerance}")
    reader = HDF5Reader(args.file)
    return _check(reader, args) if args.check else _show(reader, args)


def _picture(args: argparse.Namespace) -> Path:
    """The file that shows an episode."""
    out: Path = args.out if args.out is not None else args.file.with_suffix(".mp4")
    return out


def _check_picture(args: argparse.Namespace) -> None:
    """Check everything that showing an episode is asked for."""
    out = _picture(args)
    if out.suffix not in {".mp4", ".png"}:
        raise InputError(f"--out must end in .mp4 or .png, got {out}")
    check_positive("--fps", args.fps)
    check_at_least("--columns", args.columns, 1)
    make_parent("--out", out)


def _show(reader: HDF5Reader, args: argparse.Namespace) -> dict[str, Any]:
    """Write one episode as a video or a contact sheet."""
    from mirage_sim.recording import contact_sheet, write_mp4, write_png

    out = _picture(args)
    frames = reader.frames(args.episode, args.key)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".mp4":
        write_mp4(out, frames, args.fps)
    else:
        write_png(out, contact_sheet(frames, args.columns))
    return {"file": str(out), "frames": len(frames)}


def _check(reader: HDF5Reader, args: argparse.Namespace) -> dict[str, Any]:
    """Simulate all episodes again, in order, since one may go on where the last one ended."""
    from tqdm import tqdm

    differences: list[str] = []
    steps = 0
    with contextlib.closing(_open_recorded(reader, args)) as env:
        _check_model(reader, env)
        circumstances: list[str] = []
        for name in tqdm(reader.episodes, unit="episode", desc="check"):
            episode = reader[name]
            differences += compare(env, episode, args.tolerance)
            circumstances += _other_circumstances(episode.attrs.get("circumstances", reader.attrs), env)
            steps += len(episode)
    return {
        "passed": not differences,
        "episodes": len(reader),
        "steps": steps,
        "differences": differences,
        "circumstances": list(dict.fromkeys(circumstances)),
    }


def _open_recorded(reader: HDF5Reader, args: argparse.Namespace) -> gym.Env[Any, Any]:
    """Make the environment that a recording names."""
    from mirage_sim.cli.rollout import open_env

    described = reader.env_args
    kwargs: dict[str, Any] = dict(described.get("env_kwargs", {}))
    if args.world_model is not None:
        kwargs["world_model"] = args.world_model
    if args.device is not None:
        kwargs["device"] = args.device
    ours = described["env_name"].startswith("Mirage/")
    if ours and "threads" in reader.attrs:  # their number decides the last bits
        kwargs["threads"] = int(reader.attrs["threads"])
    try:
        limit = json.loads(reader.attrs["env_spec"])["max_episode_steps"]
    except (KeyError, ValueError) as error:
        raise FileFormatError(f"{reader.path} must name a registered environment, got none") from error
    return open_env(described["env_name"], max_episode_steps=limit, **kwargs)


def _check_model(reader: HDF5Reader, env: gym.Env[Any, Any]) -> None:
    """Raise if the environment's model is not the recorded one."""
    if not env.has_wrapper_attr("recording_metadata"):
        return
    for name, value in env.get_wrapper_attr("recording_metadata").items():
        if name in {"model_id", "weights_sha256"} and reader.attrs.get(name) != value:
            raise FileFormatError(f"{reader.path} needs {name} {reader.attrs.get(name)!r}, this is {value!r}")


def _other_circumstances(attributes: Mapping[str, Any], env: gym.Env[Any, Any]) -> list[str]:
    """Name what may decide the last bits and is not as recorded: processor, versions, threads and others.

    Args:
        attributes: What an episode says of itself, or else the file.
        env: What simulates now.
    """
    if not env.has_wrapper_attr("recording_metadata"):
        return []
    recorded = {"renderer": UNNAMED_RENDERER, **attributes}
    return [
        f"{name}: recorded with {recorded[name]}, simulated with {value}"
        for name, value in env.get_wrapper_attr("recording_metadata").items()
        if name in recorded and recorded[name] != value
    ]


def compare(env: gym.Env[Any, Any], episode: Episode, tolerance: float = 0.0) -> list[str]:
    """Simulate one episode again.

    Args:
        env: The environment that it was recorded from.
        episode: As it was recorded.
        tolerance: Largest difference that is let pass, of images as a share of 255.

    Returns:
        The first difference of each kind, in words; nothing if all values agree.

    Raises:
        FileFormatError: If the episode does not say how it began.
    """
    import numpy as np

    from mirage_sim.recording.wrapper import as_mapping

    observation, _ = _begin(env, episode)
    found: dict[str, str] = {}
    for step in range(len(episode) + 1):
        if step:
            observation, reward, terminated, truncated, _ = env.step(_action(env, episode.actions[step - 1]))
            cut = bool(episode.attrs.get("cut")) and step == len(episode)
            flags = (bool(terminated), bool(truncated) or cut)
            recorded = (bool(episode.terminated[step - 1]), bool(episode.truncated[step - 1]))
            if not abs(float(reward) - float(episode.rewards[step - 1])) <= tolerance:  # also of NaN
                found.setdefault("reward", f"{episode.name}: reward differs at step {step}")
            if flags != recorded:
                found.setdefault("end", f"{episode.name}: end of episode differs at step {step}")
        for key, value in as_mapping(observation).items():
            if key not in episode.frames or _differs(episode.frames[key][step], np.asarray(value), tolerance):
                found.setdefault(key, f"{episode.name}: {key} differs at step {step}")
    return list(found.values())


def _differs(recorded: Any, simulated: Any, tolerance: float) -> bool:
    """Whether two arrays differ by more than the tolerance anywhere; NaN is as NaN."""
    import numpy as np

    floats = recorded.dtype.kind == simulated.dtype.kind == "f"
    if recorded.shape != simulated.shape or recorded.dtype != simulated.dtype or tolerance == 0.0:
        return not np.array_equal(recorded, simulated, equal_nan=floats)
    largest = tolerance * (255.0 if recorded.dtype == np.uint8 else 1.0)
    values = recorded.astype(np.float64), simulated.astype(np.float64)
    return not np.allclose(*values, rtol=0.0, atol=largest, equal_nan=floats)


def _begin(env: gym.Env[Any, Any], episode: Episode) -> tuple[Any, dict[str, Any]]:
    """Reset the environment as it was reset when the episode was recorded."""
    import numpy as np

    options = {
        name: _option(episode, name, value) for name, value in episode.attrs.get("reset_options", {}).items()
    }
    if episode.seed is not None:
        return env.reset(seed=episode.seed, options=options)
    if "np_random_state" not in episode.attrs:
        raise FileFormatError(f"{episode.name} must have a seed or a random state, got neither")
    state = json.loads(episode.attrs["np_random_state"])
    generator = np.random.Generator(np.random.PCG64())
    generator.bit_generator.state = state
    env.unwrapped.np_random = generator
    return env.reset(options=options)


def _option(episode: Episode, name: str, value: Any) -> Any:
    """Turn a reset option back into what it was before it became JSON."""
    import numpy as np

    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    raise FileFormatError(
        f"{episode.name} began from {name}, which the file only names: it cannot be checked"
    )


def _action(env: gym.Env[Any, Any], recorded: Any) -> Any:
    """Give a recorded row of actions the type that the environment wants."""
    import gymnasium as gym

    if isinstance(env.action_space, gym.spaces.Discrete):
        return int(recorded.reshape(-1)[0])
    return recorded.astype(env.action_space.dtype)
