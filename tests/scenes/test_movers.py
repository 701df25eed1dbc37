"""Movers: they are seen, they move with the time alone, and they touch nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from mirage_sim.errors import StateError
from mirage_sim.geometry import make_intrinsics
from mirage_sim.scenes import SPLITS, Scene, make_scene
from mirage_sim.scenes.movers import RADIUS, Movers

HW = (48, 48)
LENS = make_intrinsics(*HW, 75.0)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with make_scene(SPLITS["validation"][1]) as made:
        yield made


def begin(scene: Scene, seed: int = 0) -> tuple[Tensor, Movers]:
    """A camera that movers have room before."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        pose = scene.sample_pose(rng)
        try:
            return pose, Movers(scene, pose, rng)
        except StateError:
            continue
    raise AssertionError("no camera with room before it")


def test_movers_are_seen_move_and_come_back_with_the_time(scene: Scene) -> None:
    before = scene.render(scene.sample_pose(np.random.default_rng(3)), LENS, HW)
    pose, movers = begin(scene)
    views = []
    for time in (0.0, 1.0, 2.0, 0.0):
        movers.place(time)
        views.append(scene.render(pose, LENS, HW))
    assert any(movers.mask(view).any() for view in views)
    assert not np.array_equal(views[0].rgb, views[1].rgb)
    assert np.array_equal(views[0].rgb, views[3].rgb)
    assert np.array_equal(views[0].depth, views[3].depth)
    assert {scene.labels[body] for body in movers.bodies} <= {"ball", "robot"}
    movers.hide()
    still = scene.render(pose, LENS, HW)
    assert not movers.mask(still).any()
    outside = ~(movers.mask(views[0]) | movers.mask(still))
    assert np.allclose(still.depth[outside], views[0].depth[outside], atol=1e-3)
    assert np.array_equal(before.rgb, scene.render(scene.sample_pose(np.random.default_rng(3)), LENS, HW).rgb)


def test_ways_are_free(scene: Scene) -> None:
    _, movers = begin(scene)
    for mover in movers._movers:
        for time in np.linspace(0.0, 20.0, 80):
            point, _, _ = mover._way.at(float(time))
            assert scene.is_free(point, RADIUS - 1e-6)


def test_without_room_there_is_an_error(scene: Scene) -> None:
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([500.0, 500.0, 1.4])
    with pytest.raises(StateError, match="nothing has room"):
        Movers(scene, pose, np.random.default_rng(0))
