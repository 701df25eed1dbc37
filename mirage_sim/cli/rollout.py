"""Command line, `rollout`: an agent walks through generated places, and everything it saw is kept.

Writes `rollout.hdf5`, one `episode_<i>.mp4` per episode and `contact_sheet.png` (a row or more per episode).
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirage_sim.agents.names import AGENT_NAMES
from mirage_sim.arguments import (
    check_at_least,
    check_device_name,
    check_positive,
    check_world_model,
    made_for,
    similar,
)
from mirage_sim.errors import InputError, MirageError, RecordingError

if TYPE_CHECKING:
    import gymnasium as gym

RECORDING = "rollout.hdf5"
SHEET = "contact_sheet.png"
SHEET_COLUMNS = 8
SHEET_FRAMES = 16
"""Frames of each episode on the contact sheet, spread evenly from the first to the last."""
IMAGE_KEY = "rgb"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim rollout`."""
    parser.add_argument("--env", default="Mirage/Explore-v1", help="environment id (default: %(default)s)")
    parser.add_argument(
        "--world-model", default="embedded", help='"embedded" or a folder (default: %(default)s)'
    )
    parser.add_argument(
        "--agent", default="out_and_back", choices=sorted(AGENT_NAMES), help="default: %(default)s"
    )
    parser.add_argument("--episodes", type=int, default=1, help="number of episodes (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=64, help="steps of an episode (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first episode; the next has the next"
    )
    parser.add_argument("--out", type=Path, default=Path("out/rollout"), help="folder (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help='"cpu" or "cuda" (default: %(default)s)')
    parser.add_argument(
        "--env-arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="further argument of the environment, VALUE as JSON or plain text; may be repeated",
    )
    parser.add_argument("--fps", type=float, default=10.0, help="frames a second of the videos")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier rollout in the folder")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Walk, record, and make pictures.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Where the files are, and figures of the walk.

    Raises:
        InputError: If an argument is wrong.
        RecordingError: If the files cannot be written.
    """
    for name, least in (("episodes", 1), ("steps", 1), ("seed", 0)):
        check_at_least(f"--{name}", getattr(args, name), least)
    check_positive("--fps", args.fps)
    env_kwargs = parse_env_args(args.env_arg)
    check_env_id(args.env)
    if args.env.split(":")[-1].startswith("Mirage/"):
        env_kwargs = {"world_model": args.world_model, "device": args.device, **env_kwargs}
        check_env_args(args.env, env_kwargs)
    recording = args.out / RECORDING
    if recording.exists() and not args.overwrite:
        raise RecordingError(
            f"--out must be a folder without {RECORDING}, got {args.out}; --overwrite replaces it"
        )
    with made_for("--out", args.out):
        env = open_env(args.env, max_episode_steps=args.steps, **env_kwargs)
        with contextlib.closing(env):
            figures = _walk(env, args, recording)
        figures["files"] = {"recording": str(recording), **make_pictures(recording, args.out, args.fps)}
        return figures


def parse_env_args(pairs: list[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` pairs; a value that is no JSON is text.

    Args:
        pairs: As they came from the command line.

    Returns:
        Keyword arguments.

    Raises:
        InputError: If one has no name or no `=`.
    """
    parsed: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name.isidentifier() and equals):
            raise InputError(f"--env-arg must be NAME=VALUE, got {pair!r}")
        try:
            parsed[name] = json.loads(text)
        except json.JSONDecodeError:
            parsed[name] = text
    return parsed


def check_env_id(env_id: str) -> None:
    """Raise unless an environment is registered, without importing it.

    Args:
        env_id: As `gym.make` takes it.

    Raises:
        InputError: If it is not.
    """
    import gymnasium as gym

    try:
        gym.spec(env_id)
    except (gym.error.Error, ImportError, ValueError) as error:
        known = similar(env_id, gym.registry)
        meant = f"; did you mean {' or '.join(known)}?" if known else ""
        raise InputError(f"--env must be a registered environment, got {env_id!r}{meant}") from error


def check_env_args(env_id: str, env_kwargs: Mapping[str, Any]) -> None:
    """Check the arguments of one of our environments without loading anything.

    Args:
        env_id: For the message.
        env_kwargs: Arguments of `gym.make` and of the environment.

    Raises:
        InputError: If one is unknown or has a wrong value.
        InputTypeError: If one has a wrong type.
        FileFormatError: If there is no such world model.
    """
    import gymnasium as gym

    from mirage_sim.envs.config import ExploreConfig, ExploreConfigV1

    kind = ExploreConfig if env_id.endswith("-v0") else ExploreConfigV1
    ours = {field.name for field in fields(kind)}
    theirs = set(inspect.signature(gym.make).parameters) - {"id", "kwargs"}
    unknown = sorted(set(env_kwargs) - ours - theirs)
    if unknown:
        known = similar(unknown[0], ours)
        meant = f"; did you mean {known[0]}?" if known else ""
        raise InputError(
            f"--env-arg must name arguments of {env_id}: {sorted(ours)}, got {unknown[0]}{meant}"
        )
    config = kind(**{name: value for name, value in env_kwargs.items() if name in ours})
    check_world_model("world_model", str(config.world_model))
    check_device_name("device", config.device)


def open_env(env_id: str, **kwargs: Any) -> gym.Env[Any, Any]:
    """Make an environment.

    Args:
        env_id: A registered id.
        kwargs: Arguments of `gym.make` and of the environment.

    Returns:
        The environment.

    Raises:
        InputError: If the id or an argument is unknown.
    """
    import gymnasium as gym

    try:
        return gym.make(env_id, **kwargs)
    except gym.error.Error as error:
        raise InputError(f"--env must be a registered environment, got {env_id!r}: {error}") from error
    except MirageError:
        raise
    except TypeError as error:
        raise InputError(f"--env-arg must name arguments of {env_id}: {error}") from error


def _walk(env: gym.Env[Any, Any], args: argparse.Namespace, recording: Path) -> dict[str, Any]:
    """Run the episodes under the recorder; an interrupted one is kept up to where it came."""
    from tqdm import tqdm

    from mirage_sim.agents import make_agent
    from mirage_sim.recording import HDF5Reader, RecordHDF5

    agent = make_agent(args.agent, env, steps=args.steps, seed=args.seed)
    if args.overwrite:
        recording.unlink(missing_ok=True)
    rewards, coverage, seconds = [], [], 0.0
    recorder = RecordHDF5(env, recording, metadata={"agent": args.agent})
    try:
        with tqdm(total=args.episodes * args.steps, unit="step", desc=args.agent) as progress:
            for episode in range(args.episodes):
                observation, info = recorder.reset(seed=args.seed + episode)
                agent.reset(observation, info)
                rewards.append(0.0)
                ended = False
                while not ended:
                    action = agent.act(observation, info)
                    begin = time.perf_counter()
                    observation, reward, terminated, truncated, info = recorder.step(action)
                    seconds += time.perf_counter() - begin
                    rewards[-1] += float(reward)
                    coverage.append(float(info.get("coverage", 0.0)))
                    ended = terminated or truncated
                    progress.update()
                    progress.set_postfix(coverage=f"{coverage[-1]:.2f}", refresh=False)
    finally:
        recorder.close()
        if len(HDF5Reader(recording)) == 0:
            recording.unlink()
    steps = len(coverage)
    return {
        "agent": args.agent,
        "env": args.env,
        "episodes": args.episodes,
        "steps": steps,
        "reward": rewards,
        "mean_coverage": sum(coverage) / steps,
        "steps_per_second": steps / seconds,
    }


def make_pictures(recording: Path, folder: Path, fps: float) -> dict[str, Any]:
    """Make a video of every episode and one contact sheet of all.

    Args:
        recording: The HDF5 file.
        folder: Where they go.
        fps: Frames a second.

    Returns:
        `videos` and `contact_sheet`, or nothing if no images were recorded.

    Raises:
        RecordingError: If a file cannot be written.
    """
    import numpy as np

    from mirage_sim.recording import HDF5Reader, contact_sheet, write_mp4, write_png

    videos, rows = [], []
    with HDF5Reader(recording) as reader:
        for number, name in enumerate(reader.episodes):
            if IMAGE_KEY not in reader.keys(name):
                return {}
            frames = reader.frames(name, IMAGE_KEY)
            videos.append(str(write_mp4(folder / f"episode_{number:03d}.mp4", frames, fps)))
            rows.append(contact_sheet(pick_frames(frames, SHEET_FRAMES), SHEET_COLUMNS))
    width = max(row.shape[1] for row in rows)
    gap = np.full((8, width, 3), 255, np.uint8)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    stacked = [part for row in padded for part in (gap, row)][1:]
    sheet = write_png(folder / SHEET, np.concatenate(stacked))
    return {"videos": videos, "contact_sheet": str(sheet)}


def pick_frames(frames: Any, count: int) -> Any:
    """Choose at most `count` of N frames, evenly spread, the first and the last among them.

    Args:
        frames: uint8 [N, H, W, 3].
        count: How many.

    Returns:
        uint8 [min(N, count), H, W, 3].
    """
    import numpy as np

    places = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    return frames[places]
