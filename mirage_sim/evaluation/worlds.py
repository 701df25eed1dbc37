"""Test worlds: first frames, collision-free paths and ground truth from the scenes of a split, by index.

Nothing is picked: world i is scene i of the split, its first pose the first of a seeded sequence that leaves
room for the path out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mirage_sim.evaluation.config import WorldsConfig
from mirage_sim.geometry import from_yaw_pitch, project, unproject, yaw_pitch, yaw_sweep
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.scenes import Scene, first_seeds, make_scene

Array = np.ndarray[Any, Any]

_ATTEMPTS = 400
_RADIUS = 0.3


@dataclass(frozen=True)
class Path:
    """One way through a world, seen by the simulator.

    Attributes:
        cam2world: Cameras [P, 4, 4] of the way out, the first frame's included.
        frames: uint8 [P, H, W, 3].
        depth: float32 [P, H, W], z-depth in metres, 0 for the sky.
    """

    cam2world: Tensor
    frames: Array
    depth: Tensor

    @property
    def there_and_back(self) -> Tensor:
        """Cameras [2 P - 1, 4, 4]: out, and back through the same poses bit for bit."""
        return torch.cat([self.cam2world, self.cam2world[:-1].flip(0)])


@dataclass(frozen=True)
class TestWorld:
    """A scene with a first pose and paths that begin there.

    Attributes:
        index: Place in the split.
        scene_seed: Seed of the scene.
        noise_seed: Seed of everything that is generated.
        intrinsics: [3, 3] in pixels.
        paths: "out" (forward with a slight turn) and "yaw" (on the spot).
    """

    __test__ = False

    index: int
    scene_seed: int
    noise_seed: int
    intrinsics: Tensor
    paths: dict[str, Path]


def make_test_worlds(
    config: WorldsConfig, intrinsics: Tensor, hw: tuple[int, int], paths: tuple[str, ...] = ("out", "yaw")
) -> Iterator[TestWorld]:
    """Build worlds one after the other, so that only those in use take memory.

    Args:
        config: Which worlds.
        intrinsics: [3, 3] in pixels of an image of size `hw`.
        hw: Height and width of the pictures.
        paths: Which of "out" and "yaw" are rendered.

    Yields:
        Worlds in the order of the split.

    Source: ours.
    """
    for index, scene_seed in enumerate(first_seeds(config.split, config.worlds)):
        with make_scene(scene_seed) as scene:
            out = plan_out(scene, np.random.default_rng([scene_seed, config.seed]), config)
            cameras = {"out": out, "yaw": yaw_sweep(out[0], config.yaw_degrees, config.yaw_steps)}
            rendered = {name: render_path(scene, cameras[name], intrinsics, hw) for name in paths}
        yield TestWorld(index, scene_seed, 1000 * config.seed + index, intrinsics, rendered)


def batches(worlds: Iterator[TestWorld], size: int) -> Iterator[list[TestWorld]]:
    """Group worlds into lists of `size`, the last one perhaps shorter."""
    group: list[TestWorld] = []
    for world in worlds:
        group.append(world)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def render_path(scene: Scene, cam2world: Tensor, intrinsics: Tensor, hw: tuple[int, int]) -> Path:
    """Render what the simulator sees from cameras [P, 4, 4]."""
    views = [scene.render(pose, intrinsics, hw) for pose in cam2world]
    depth = torch.from_numpy(np.stack([view.depth for view in views]))
    return Path(cam2world, np.stack([view.rgb for view in views]), depth)


def plan_out(scene: Scene, rng: np.random.Generator, config: WorldsConfig) -> Tensor:
    """Find a way forward, with a slight turn, that touches nothing.

    Where no such way is found, steps shorten to the least, and at last a planned walk is taken.

    Args:
        scene: The flat.
        rng: Source of every choice.
        config: Number, length and turn of the steps.

    Returns:
        cam2world [steps + 1, 4, 4].
    """
    for attempt in range(_ATTEMPTS):
        start = scene.sample_pose(rng)
        longest = config.longest_step if attempt < _ATTEMPTS // 2 else config.shortest_step
        length = float(rng.uniform(config.shortest_step, longest))
        turn = math.radians(float(rng.uniform(-config.turn_degrees, config.turn_degrees)))
        path = forward_path(start, length, turn, config.steps)
        points = path[:, :3, 3].double().numpy()
        if not any(scene.collides(a, b, _RADIUS) for a, b in pairwise(points)):
            return path
    return scene.plan_walk(rng, config.steps + 1, config.shortest_step)


def forward_path(start: Tensor, length: float, turn: float, steps: int) -> Tensor:
    """Walk level along a slight bend, facing the way ahead.

    Args:
        start: First camera [4, 4].
        length: Metres of a step.
        turn: Radians that each step turns to the left.
        steps: Number of steps.

    Returns:
        cam2world [steps + 1, 4, 4], the first of them `start`.
    """
    yaw, pitch = yaw_pitch(start.double())
    yaws = yaw + turn * torch.arange(steps + 1, dtype=torch.float64)  # [P]
    middle = yaws[:-1] + 0.5 * turn  # each step is the chord of an arc
    moves = length * torch.stack([middle.cos(), middle.sin(), torch.zeros_like(middle)], dim=-1)  # [steps, 3]
    positions = start[:3, 3].double() + torch.cat([moves.new_zeros(1, 3), moves.cumsum(dim=0)])
    path = from_yaw_pitch(positions, yaws, pitch.expand(steps + 1)).to(start)
    path[0] = start
    return path


def seen_before(
    depth: Tensor,  # [..., H, W]
    cam2world: Tensor,  # [..., 4, 4]
    first_depth: Tensor,  # [H, W]
    first_cam2world: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    tolerance: float = 0.05,
) -> Tensor:
    """Tell which pixels show a surface that the first frame saw too.

    Args:
        depth: True z-depth of later frames, metres, 0 for the sky.
        cam2world: Their cameras.
        first_depth: True z-depth of the first frame.
        first_cam2world: Its camera.
        intrinsics: In pixels, of all frames.
        tolerance: Largest difference from the first frame's depth, as a fraction of it, and at least this
            many metres.

    Returns:
        bool [..., H, W]; the sky never counts.

    Source: ours.
    """
    height, width = first_depth.shape
    lens = intrinsics.expand(*depth.shape[:-2], 3, 3)
    points = unproject(depth, cam2world, lens).flatten(-3, -2)  # [..., H*W, 3]
    places, there = project(points, first_cam2world.expand_as(cam2world), lens)  # [..., H*W, 2], [..., H*W]
    column, row = places.floor().long().unbind(-1)
    inside = (there > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    cell = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    first = first_depth.flatten()[cell]  # [..., H*W]
    same = (there - first).abs() <= tolerance * first.clamp(min=1.0)
    return (inside & same & (first > 0)).reshape(depth.shape) & (depth > 0)


def warp_first(path: Path, steps: list[int], intrinsics: Tensor) -> Tensor:
    """Look up in the first frame, by true depths, what later frames see: perfect geometry and no network.

    Args:
        path: What the simulator saw.
        steps: Places of the later frames.
        intrinsics: [3, 3] in pixels.

    Returns:
        float32 [S, 3, H, W]; meaningless where the first frame saw something else (`seen_before`).

    Source: ours.
    """
    depth, cameras = path.depth[steps], path.cam2world[steps]
    lens = intrinsics.expand(len(steps), 3, 3)
    points = unproject(depth, cameras, lens).flatten(-3, -2)  # [S, H*W, 3]
    places, _ = project(points, path.cam2world[:1].expand_as(cameras), lens)  # [S, H*W, 2]
    height, width = depth.shape[-2:]
    grid = (2.0 * places / torch.tensor([width, height]) - 1.0).reshape(len(steps), height, width, 2)
    first = frames_to_tensor(path.frames[:1]).expand(len(steps), -1, -1, -1)
    return grid_sample(first, grid.nan_to_num(), padding_mode="border", align_corners=False)
