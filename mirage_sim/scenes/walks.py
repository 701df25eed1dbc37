"""Collision-free walks through a flat: the camera motion of training and test clips.

A walk strings together short actions: go to a place, look around, step sideways, step back the way it came.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from mirage_sim.errors import InputError, StateError
from mirage_sim.geometry.poses import from_yaw_pitch
from mirage_sim.scenes.obstacles import FreeSpace

if TYPE_CHECKING:
    from mirage_sim.scenes.scene import Scene

Point = NDArray[np.float64]
_AHEAD = 5


@dataclass(frozen=True)
class WalkConfig:
    """How a walk moves."""

    step_length: float = 0.12
    """Longest move between two poses, metres."""
    max_turn_deg: float = 6.0
    """Largest change of yaw between two poses, degrees."""
    clearance: float = 0.35
    """Distance kept from walls and furniture, metres."""
    low_eye: float = 1.2
    """Lowest eye height, metres; each walk draws its own."""
    high_eye: float = 1.6
    """Highest eye height, metres."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("step_length", "max_turn_deg", "clearance"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 < self.low_eye <= self.high_eye:
            raise InputError(f"0 < low_eye <= high_eye must hold, got {self.low_eye} and {self.high_eye}")


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


class _Router:
    """Shortest ways over the free cells of a flat."""

    def __init__(self, space: FreeSpace) -> None:
        self.space = space
        cells = np.argwhere(space.free)
        self.centres = space.centres()[space.free]
        number = np.full(space.free.shape, -1)
        number[space.free] = np.arange(len(cells))
        self.roomy = space.clearance[space.free] > 0.5
        padded = np.pad(number, 1, constant_values=-1)
        starts, ends, costs = [], [], []
        near_wall = 1.0 + 1.5 * np.clip(0.7 - space.clearance[space.free], 0.0, None)
        for dr in (-1, 0, 1):
            for dc in (-1, 0, 1):
                if dr == dc == 0:
                    continue
                rows, columns = cells[:, 0] + 1, cells[:, 1] + 1
                there = padded[rows + dr, columns + dc]
                ok = there >= 0
                if dr and dc:
                    ok &= (padded[rows + dr, columns] >= 0) & (padded[rows, columns + dc] >= 0)
                starts.append(np.flatnonzero(ok))
                ends.append(there[ok])
                costs.append(math.hypot(dr, dc) * space.cell * near_wall[there[ok]])
        size = (len(cells), len(cells))
        links = (np.concatenate(starts), np.concatenate(ends))
        self.graph = csr_matrix((np.concatenate(costs), links), shape=size)

    def nearest(self, point: Point) -> int:
        """Number of the free cell closest to a point."""
        return int(((self.centres - point) ** 2).sum(1).argmin())

    def route(self, goal: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Next cell on the way to `goal` (negative where there is none) and the cost, for every cell."""
        costs, following = dijkstra(self.graph.T.tocsr(), indices=goal, return_predecessors=True)
        return following, costs


class _Walker:
    """State of one walk while it is planned."""

    def __init__(self, scene: Scene, rng: np.random.Generator, config: WalkConfig) -> None:
        self.scene, self.rng, self.config = scene, rng, config
        self.router = _Router(scene.free_space(config.clearance + 0.03))
        if len(self.router.centres) == 0:
            raise StateError(f"the flat has no place with a clearance of {config.clearance} m")
        self.point = self._start()
        self.yaw = float(rng.uniform(-math.pi, math.pi))
        self.pitch = float(rng.uniform(-0.15, 0.0))
        self.pitch_goal = self.pitch
        self.turn_rate = 0.0
        self.path: NDArray[np.int32] | None = None
        self.goal = 0
        self.trail: deque[Point] = deque(maxlen=40)
        self.mode, self.left = "go", 0
        self.look_goal = self.yaw
        self.slide = np.zeros(2)
        self._choose_goal()
        self.yaw = self._heading()

    def _start(self) -> Point:
        costs = dijkstra(self.router.graph, indices=int(self.rng.integers(len(self.router.centres))))
        reachable = np.flatnonzero(np.isfinite(costs))
        start: Point = self.router.centres[int(self.rng.choice(reachable))].copy()
        return start

    def _choose_goal(self) -> None:
        here = self.router.nearest(self.point)
        _, costs = self.router.route(here)
        far = np.flatnonzero(np.isfinite(costs) & (costs > 1.0) & self.router.roomy)
        if len(far) == 0:
            far = np.flatnonzero(np.isfinite(costs))
        self.goal = int(self.rng.choice(far))
        self.path, _ = self.router.route(self.goal)

    def _target(self) -> Point:
        """A point some cells ahead on the way to the goal."""
        cell = self.router.nearest(self.point)
        target: Point = self.router.centres[cell]
        for _ in range(_AHEAD):
            if self.path is None or cell == self.goal or self.path[cell] < 0:
                break
            cell = int(self.path[cell])
            if self.scene.collides(self.point, self.router.centres[cell], self.config.clearance):
                break
            target = self.router.centres[cell]
        return target

    def _heading(self) -> float:
        ahead = self._target() - self.point
        return math.atan2(ahead[1], ahead[0]) if float(np.hypot(*ahead)) > 1e-6 else self.yaw

    def _turn(self, wanted: float) -> None:
        """Turn towards a yaw, with a bounded rate that itself changes gradually."""
        top = math.radians(self.config.max_turn_deg)
        rate = float(np.clip(_wrap(wanted - self.yaw) * 0.4, -top, top))
        self.turn_rate += float(np.clip(rate - self.turn_rate, -top / 2, top / 2))
        self.yaw = _wrap(self.yaw + self.turn_rate)

    def _move(self, offset: Point) -> bool:
        length = float(np.hypot(*offset))
        if length > self.config.step_length:
            offset = offset * (self.config.step_length / length)
        wanted = self.point + offset
        if self.scene.collides(self.point, wanted, self.config.clearance):
            return False
        self.trail.append(self.point.copy())
        self.point = wanted
        return True

    def _next_mode(self) -> None:
        rng = self.rng
        pick = float(rng.random())
        self.pitch_goal = float(rng.uniform(-0.22, 0.06))
        if pick < 0.54 or (pick >= 0.87 and len(self.trail) < 6):
            self.mode, self.left = "go", int(rng.integers(12, 40))
        elif pick < 0.75:
            self.mode, self.left = "look", int(rng.integers(8, 26))
            turns = np.radians(rng.uniform(35, 130, 3)) * rng.choice([-1, 1], 3)
            self.look_goal = max(
                (self.yaw + turns).tolist(), key=lambda yaw: self.scene.open_view(self.point, yaw)
            )
        elif pick < 0.87:
            self.mode, self.left = "slide", int(rng.integers(5, 14))
            side = float(rng.choice([-1, 1])) * float(rng.uniform(0.5, 1.0)) * self.config.step_length
            self.slide = side * np.array([-math.sin(self.yaw), math.cos(self.yaw)])
        else:
            self.mode, self.left = "back", int(rng.integers(8, 26))

    def step(self) -> None:
        """Advance by one pose."""
        if self.left <= 0:
            self._next_mode()
        self.left -= 1
        if self.mode == "go":
            self._go()
        elif self.mode == "look":
            self._turn(self.look_goal)
            if abs(_wrap(self.look_goal - self.yaw)) < 0.03:
                self.left = 0
        elif self.mode == "back":
            self._turn(self.yaw)
            if not self.trail:
                self.left = 0
            else:
                back = self.trail.pop()
                self._move(back - self.point)
                if self.trail:
                    self.trail.pop()
        else:
            self._turn(self.yaw)
            if not self._move(self.slide):
                self.left = 0
        self.pitch += float(np.clip(self.pitch_goal - self.pitch, -0.012, 0.012))

    def _go(self) -> None:
        if float(np.hypot(*(self.router.centres[self.goal] - self.point))) < 0.25:
            self._choose_goal()
        heading = self._heading()
        self._turn(heading)
        if abs(_wrap(heading - self.yaw)) > math.radians(50):
            return
        ahead = self._target() - self.point
        length = max(float(np.hypot(*ahead)), 1e-9)
        pace = min(self.config.step_length * max(0.4, math.cos(heading - self.yaw)), max(length, 0.02))
        if not self._move(ahead / length * pace):
            self._choose_goal()


def plan_walk(scene: Scene, rng: np.random.Generator, steps: int, config: WalkConfig | None = None) -> Tensor:
    """Plan a walk that touches nothing.

    Args:
        scene: The flat.
        rng: Source of every choice.
        steps: Number of poses.
        config: How to move.

    Returns:
        cam2world, [steps, 4, 4] float32; the camera keeps one eye height.

    Raises:
        InputError: If `steps` is below 1.
        StateError: If the flat has no room to walk.

    Source: ours.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    config = config or WalkConfig()
    walker = _Walker(scene, rng, config)
    eye = float(rng.uniform(config.low_eye, config.high_eye))
    states = []
    for _ in range(steps):
        states.append((walker.point[0], walker.point[1], walker.yaw, walker.pitch))
        walker.step()
    table = torch.tensor(np.array(states), dtype=torch.float32, device="cpu")  # [steps, 4]
    position = torch.cat([table[:, :2], torch.full_like(table[:, :1], eye)], dim=1)
    return from_yaw_pitch(position, table[:, 2], table[:, 3])
