"""Episodes whose content follows from their number, so that a reader can tell that nothing got lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mirage_sim.recording import Episode, HDF5Writer, make_env_args

ENV_ARGS = make_env_args("Toy/Walk-v0", {"size": 8})
INTRINSICS = np.array([[80, 0, 4], [0, 80, 4], [0, 0, 1]], np.float32)


def observation(number: int, step: int, size: int = 8) -> dict[str, Any]:
    rng = np.random.default_rng([number, step])
    pose = np.eye(4, dtype=np.float32)
    pose[:3, 3] = number, step, 1.5
    return {
        "rgb": rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        "depth": np.where(rng.random((4, 4)) < 0.2, np.nan, rng.random((4, 4))).astype(np.float16),
        "cam2world": pose,
        "intrinsics": INTRINSICS,
    }


def action(number: int, step: int) -> np.ndarray[Any, Any]:
    return np.full(5, number + step / 1000, np.float32)


def steps_of(number: int) -> int:
    return 3 + number % 4


def record(writer: HDF5Writer, number: int, size: int = 8) -> str | None:
    """Record episode `number` whole."""
    writer.begin_episode(seed=number, reset_options={"keep_world": number % 2 == 0})
    steps = steps_of(number)
    for step in range(steps):
        writer.append(
            observation(number, step, size),
            action(number, step),
            float(step),
            step == steps - 1,
            False,
            observation(number, step + 1, size),
            {"coverage": step / steps},
        )
    return writer.end_episode(success=True)


def write_file(path: Path, episodes: int, **options: Any) -> Path:
    """Record a file of so many episodes."""
    with HDF5Writer(path, env_args=ENV_ARGS, fsync=False, **options) as writer:
        for number in range(episodes):
            record(writer, number)
    return path


def check_episode(episode: Episode, number: int, size: int = 8) -> None:
    """Compare an episode with what `record` wrote, bit for bit."""
    steps = steps_of(number)
    assert len(episode) == steps
    assert episode.seed == number
    for step in range(steps + 1):
        expected = observation(number, step, size)
        for key in ("rgb", "depth", "cam2world"):
            value = episode.frames[key][step]
            assert value.dtype == expected[key].dtype
            assert value.tobytes() == expected[key].tobytes()
    assert np.array_equal(episode.actions, np.stack([action(number, step) for step in range(steps)]))
    assert episode.rewards.tolist() == list(range(steps))
    assert episode.terminated.tolist() == [False] * (steps - 1) + [True]
    assert not episode.truncated.any()
    assert episode.extras["coverage"].tolist() == [step / steps for step in range(steps)]
    assert np.array_equal(episode.intrinsics, INTRINSICS)
