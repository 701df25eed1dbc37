"""Revisits: ways through a flat that come back to poses they have left, planned from the scene and a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.evaluation.config import WorldsConfig
from mirage_sim.evaluation.worlds import plan_out
from mirage_sim.geometry import a_b_c_a, from_yaw_pitch, rescale_intrinsics, yaw_pitch, yaw_sweep
from mirage_sim.scenes import Scene, first_seeds, make_scene

Array = np.ndarray[Any, Any]
Pairs = list[tuple[int, int]]

_ATTEMPTS = 200
_RADIUS = 0.3
_LAPS = 4


@dataclass(frozen=True)
class Revisit:
    """A way and what the simulator saw on it.

    Attributes:
        index: World, its place in the split.
        scene_seed: Seed of the scene.
        noise_seed: Seed of everything that is generated.
        intrinsics: [3, 3] in pixels.
        cam2world: Cameras [P, 4, 4].
        pairs: Places of an earlier and a later visit of the same pose, equal bit for bit.
        places: Places [S] that the simulator drew, the first one among them.
        frames: uint8 [S, H, W, 3].
        depth: float32 [S, H, W], z-depth in metres, 0 for the sky.
    """

    index: int
    scene_seed: int
    noise_seed: int
    intrinsics: Tensor
    cam2world: Tensor
    pairs: Pairs
    places: list[int]
    frames: Array
    depth: Tensor


def plan_revisit(name: str, scene: Scene, seed: int) -> tuple[Tensor, Pairs]:
    """Plan one of the `WAYS`.

    Args:
        name: Of the way.
        scene: The flat.
        seed: Decides the first pose and the way.

    Returns:
        cam2world [P, 4, 4], and the places of equal poses.
    """
    return WAYS[name](scene, np.random.default_rng([scene.seed, seed]))


def _out(steps: int) -> Callable[[Scene, np.random.Generator], tuple[Tensor, Pairs]]:
    def plan(scene: Scene, rng: np.random.Generator) -> tuple[Tensor, Pairs]:
        return there_and_back(plan_out(scene, rng, WorldsConfig(steps=steps)), 1)

    return plan


def _yaw(scene: Scene, rng: np.random.Generator) -> tuple[Tensor, Pairs]:
    start = plan_out(scene, rng, WorldsConfig())[0]
    return there_and_back(yaw_sweep(start, 90.0, 18), 1)


def _laps(scene: Scene, rng: np.random.Generator) -> tuple[Tensor, Pairs]:
    return there_and_back(plan_out(scene, rng, WorldsConfig(steps=16)), _LAPS)


def _a_b_c_a(scene: Scene, rng: np.random.Generator) -> tuple[Tensor, Pairs]:
    """Three poses that see each other's places, in straight legs of 16 steps."""
    start = plan_out(scene, rng, WorldsConfig())[0]
    a = start[:3, 3].double().numpy()
    yaw, pitch = (float(part) for part in yaw_pitch(start.double()))
    stops = [a, a]
    for _ in range(_ATTEMPTS):
        angles, lengths = rng.uniform(-math.pi, math.pi, 2), rng.uniform(0.6, 1.6, 2)
        b, c = (
            a + length * np.array([math.cos(angle), math.sin(angle), 0.0])
            for angle, length in zip(angles, lengths, strict=True)
        )
        legs = ((a, b), (b, c), (c, a))
        if np.linalg.norm(b - c) > 0.6 and not any(scene.collides(one, two, _RADIUS) for one, two in legs):
            stops = [b, c]
            break
    turns = rng.uniform(-math.radians(50), math.radians(50), 2)
    second, third = (
        from_yaw_pitch(torch.from_numpy(stop), yaw + turn, pitch).to(start)
        for stop, turn in zip(stops, turns.tolist(), strict=True)
    )
    path = a_b_c_a(start, second, third, 16)
    return path, [(0, len(path) - 1)]


WAYS: dict[str, Callable[[Scene, np.random.Generator], tuple[Tensor, Pairs]]] = {
    "out-32": _out(32),
    "out-64": _out(64),
    "out-128": _out(128),
    "yaw": _yaw,
    "abca": _a_b_c_a,
    "laps": _laps,
}
"""Out and back (too long to go straight: along a planned walk), turn and return, A-B-C-A, four laps."""


def there_and_back(out: Tensor, laps: int) -> tuple[Tensor, Pairs]:
    """Go out and back through the same poses, so many times.

    Args:
        out: Cameras of the way out [L + 1, 4, 4].
        laps: How often.

    Returns:
        Cameras [2 L laps + 1, 4, 4], and every later visit of a pose with the first one.
    """
    turn = len(out) - 1
    place = torch.arange(2 * turn * laps + 1) % (2 * turn)
    place = turn - (place - turn).abs()
    pairs = [(int(first), now) for now, first in enumerate(place.tolist()) if now > turn]
    return out[place], [(first, now) for first, now in pairs if first != now]


def make_revisits(
    name: str,
    config: WorldsConfig,
    intrinsics: Tensor,
    hw: tuple[int, int],
    every: int,
    worlds: Sequence[int],
) -> Iterator[Revisit]:
    """Plan a way through every world and draw what is compared.

    Args:
        name: One of `WAYS`.
        config: Split, worlds and seed.
        intrinsics: [3, 3] in pixels of an image of size `hw`.
        hw: Height and width of the pictures.
        every: Places between those that the simulator draws.
        worlds: Which of the worlds.

    Yields:
        One a world.
    """
    seeds = first_seeds(config.split, config.worlds)
    for index in worlds:
        with make_scene(seeds[index]) as scene:
            cameras, pairs = plan_revisit(name, scene, config.seed)
            last = min((later for _, later in pairs), default=len(cameras)) - 1
            places = list(range(0, last + 1, every))
            views = [scene.render(cameras[place], intrinsics, hw) for place in places]
        yield Revisit(
            index,
            seeds[index],
            1000 * config.seed + index,
            intrinsics,
            cameras,
            pairs,
            places,
            np.stack([view.rgb for view in views]),
            torch.from_numpy(np.stack([view.depth for view in views])),
        )


def cell_depths(world: Revisit, stride: int) -> Tensor:
    """Draw the true depths of every place of a way.

    Args:
        world: Which way.
        stride: Pixels per cell.

    Returns:
        z-depth [P, h, w] in metres at latent resolution, 0 for the sky.
    """
    lens = rescale_intrinsics(world.intrinsics, 1.0 / stride)
    hw = (world.frames.shape[1] // stride, world.frames.shape[2] // stride)
    drawn: dict[bytes, Array] = {}
    with make_scene(world.scene_seed) as scene:
        for camera in world.cam2world:
            pose = camera.numpy().tobytes()
            if pose not in drawn:
                drawn[pose] = scene.render(camera, lens, hw).depth
    return torch.from_numpy(np.stack([drawn[camera.numpy().tobytes()] for camera in world.cam2world]))
