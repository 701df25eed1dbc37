"""Movers: things that move through a flat, balls that roll and a robot that walks, each to and fro."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirage_sim.errors import StateError
from mirage_sim.scenes.mesh import Mesh
from mirage_sim.scenes.renderer import View
from mirage_sim.scenes.scene import Scene
from mirage_sim.scenes.textures import hsv

RADIUS = 0.3  # metres that a mover keeps free around it
STRIDE = 0.45  # metres of two steps of the robot
_ATTEMPTS = 400
_NEAR, _FAR, _SIDE = 1.0, 3.5, 0.45  # metres ahead of the camera, radians aside
_SHORTEST, _LONGEST = 0.8, 2.5  # metres of a way

Point = NDArray[np.float64]


class Movers:
    """Balls and a robot in a scene; where they are depends on the time alone."""

    def __init__(self, scene: Scene, cam2world: Tensor, rng: np.random.Generator, count: int = 2) -> None:
        """Add movers in front of a camera, as many as find a way there.

        Args:
            scene: Receives them.
            cam2world: Camera [4, 4] that is to see them.
            rng: Source of ways, speeds and colours.
            count: How many at most; the first is a ball, the second a robot, and so on.

        Raises:
            StateError: If there is no room for a single one.
        """
        self.scene = scene
        self._movers: list[_Ball | _Robot] = []
        for number in range(count):
            way = _find_way(scene, cam2world, rng)
            if way is not None:
                self._movers.append((_Robot if number % 2 else _Ball)(scene, way, rng))
        if not self._movers:
            raise StateError("nothing has room to move before this camera")
        self.bodies = [body for mover in self._movers for body in mover.bodies]
        self.place(0.0)

    def place(self, time: float) -> None:
        """Move all to where they are at a time, in seconds."""
        for mover in self._movers:
            mover.place(time)

    def hide(self) -> None:
        """Take all out of sight."""
        for body in self.bodies:
            self.scene.place_body(body, _pose(np.array([0.0, 0.0, -100.0]), np.eye(3)))

    def mask(self, view: View) -> NDArray[np.bool_]:
        """Tell which pixels [H, W] of a view show a mover."""
        return np.isin(view.segmentation, self.bodies)


class _Way:
    """To and fro between two points, at one speed."""

    def __init__(self, start: Point, end: Point, speed: float, phase: float) -> None:
        self.start, self.end, self.speed, self.phase = start, end, speed, phase
        self.length = float(np.linalg.norm(end - start))

    def at(self, time: float) -> tuple[Point, float, float]:
        """Where it is [2], the heading in radians, and the metres gone."""
        gone = self.speed * time + self.phase * 2.0 * self.length
        place = gone % (2.0 * self.length)
        back = place > self.length
        share = (2.0 * self.length - place if back else place) / self.length
        ahead = (self.start - self.end) if back else (self.end - self.start)
        return self.start + share * (self.end - self.start), math.atan2(ahead[1], ahead[0]), gone


def _find_way(scene: Scene, cam2world: Tensor, rng: np.random.Generator) -> _Way | None:
    eye = cam2world[:2, 3].double().numpy()
    forward = math.atan2(float(cam2world[1, 2]), float(cam2world[0, 2]))
    for _ in range(_ATTEMPTS):
        angle, length = forward + rng.uniform(-_SIDE, _SIDE, 2), rng.uniform(_NEAR, _FAR, 2)
        a, b = (
            eye + far * np.array([math.cos(turn), math.sin(turn)])
            for turn, far in zip(angle, length, strict=True)
        )
        far_enough = _SHORTEST <= float(np.linalg.norm(b - a)) <= _LONGEST
        if far_enough and not scene.collides(a, b, RADIUS) and not scene.collides(eye, a, 0.05):
            return _Way(a, b, float(rng.uniform(0.5, 1.0)), float(rng.random()))
    return None


class _Ball:
    """A striped ball that rolls."""

    def __init__(self, scene: Scene, way: _Way, rng: np.random.Generator) -> None:
        self._scene, self._way, self._radius = scene, way, float(rng.uniform(0.15, 0.25))
        hue, mesh = float(rng.random()), Mesh()
        mesh.ball((0.0, 0.0, 0.0), self._radius, 2 * self._radius, hsv(hue, 0.8, 0.9), sides=12)
        mesh.cylinder((0.0, 0.0), 1.01 * self._radius, (-0.04, 0.04), hsv(hue + 0.5, 0.8, 0.9), sides=12)
        self.bodies = [scene.add_body("ball", mesh)]

    def place(self, time: float) -> None:
        (x, y), heading, gone = self._way.at(time)
        rolled = _turn_z(heading) @ _turn_y(gone / self._radius)
        self._scene.place_body(self.bodies[0], _pose(np.array([x, y, self._radius]), rolled))


class _Robot:
    """A robot whose legs swing as it walks."""

    def __init__(self, scene: Scene, way: _Way, rng: np.random.Generator) -> None:
        self._scene, self._way = scene, way
        paint = hsv(float(rng.random()), 0.6, 0.85)
        body, leg = Mesh(), Mesh()
        body.box((0.0, 0.0, 0.62), (0.26, 0.34, 0.44), paint)
        body.box((0.0, 0.0, 0.96), (0.2, 0.22, 0.2), (0.85, 0.85, 0.88))
        body.box((0.1, 0.0, 0.98), (0.03, 0.16, 0.06), (0.1, 0.1, 0.12))
        for side in (-0.21, 0.21):
            body.box((0.0, side, 0.6), (0.09, 0.07, 0.4), (0.4, 0.4, 0.45))
        leg.box((0.0, 0.0, -0.2), (0.1, 0.1, 0.4), (0.4, 0.4, 0.45))
        self.bodies = [scene.add_body("robot", mesh) for mesh in (body, leg, leg)]

    def place(self, time: float) -> None:
        (x, y), heading, gone = self._way.at(time)
        stand, turn = np.array([x, y, 0.0]), _turn_z(heading)
        swing = 0.5 * math.sin(2.0 * math.pi * gone / STRIDE)
        self._scene.place_body(self.bodies[0], _pose(stand, turn))
        for body, side, way in ((self.bodies[1], -0.09, swing), (self.bodies[2], 0.09, -swing)):
            hip = stand + turn @ np.array([0.0, side, 0.4])
            self._scene.place_body(body, _pose(hip, turn @ _turn_y(way)))


def _turn_z(angle: float) -> Any:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _turn_y(angle: float) -> Any:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def _pose(position: Point, rotation: Any) -> Tensor:
    pose = torch.eye(4, dtype=torch.float64, device="cpu")
    pose[:3, :3], pose[:3, 3] = torch.from_numpy(rotation), torch.from_numpy(position)
    return pose
