"""What stops the body, patch by patch."""

import math

import pytest
import torch

from mirage_sim.envs.body import BodyConfig, free_of_patches
from mirage_sim.evaluation.crossings import crossed_patches
from mirage_sim.memory import SurfacePatches

BODY = BodyConfig()
EYE = torch.tensor([0.0, 0.0, 1.4], dtype=torch.float64)


def patches(
    *rows: tuple[float, float, float, float], view: tuple[float, float, float] = (1.0, 0.0, 0.0)
) -> SurfacePatches:
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return SurfacePatches(table[:, :3], table[:, 3], torch.tensor(view).expand(len(table), 3))


def wall(x: float = 1.0, low: float = 0.2, high: float = 2.4) -> SurfacePatches:
    cells = [(x, 0.2 * column, low + 0.2 * row, 0.2) for column in range(-5, 6) for row in range(12)]
    return patches(*(cell for cell in cells if cell[2] <= high))


def share(held: SurfacePatches, motion: tuple[float, float, float], eye: torch.Tensor = EYE) -> float:
    return free_of_patches(held, eye, torch.tensor(motion, dtype=torch.float64), BODY)


def test_a_wall_stops_and_lets_along_and_away() -> None:
    room = 1.0 - BODY.radius - BODY.thickness
    assert share(wall(), (0.5, 0.0, 0.0)) == 1.0
    assert share(wall(), (2.0, 0.0, 0.0)) * 2.0 == pytest.approx(room, abs=0.01)
    near = EYE + torch.tensor([room - 0.001, 0.0, 0.0])
    assert share(wall(), (0.3, 0.0, 0.0), near) < 0.02
    for motion in ((0.0, 0.3, 0.0), (0.0, -0.3, 0.0), (-0.3, 0.0, 0.0)):
        assert share(wall(), motion, near) == 1.0


def test_a_body_too_near_may_come_no_nearer() -> None:
    near = EYE + torch.tensor([0.97, 0.0, 0.0])
    assert share(wall(), (0.3, 0.0, 0.0), near) < 0.01
    assert share(wall(), (0.0, 0.3, 0.0), near) == 1.0
    assert share(wall(), (-0.3, 0.0, 0.0), near) == 1.0


def test_heights_that_count() -> None:
    for height, free in ((0.05, True), (0.15, False), (0.8, False), (1.55, False), (1.65, True), (2.4, True)):
        assert (share(patches((1.0, 0.0, height, 0.3)), (2.0, 0.0, 0.0)) == 1.0) is free, height
    raised = EYE + torch.tensor([0.0, 0.0, 0.6])
    assert share(patches((1.0, 0.0, 2.0, 0.3)), (2.0, 0.0, 0.0), raised) < 1.0


def test_the_sill_of_a_window_stops_as_a_wall_does() -> None:
    below, above = wall(low=0.2, high=0.8), wall(low=2.2, high=2.4)
    assert share(above, (2.0, 0.0, 0.0)) == 1.0
    assert share(below, (2.0, 0.0, 0.0)) == share(wall(), (2.0, 0.0, 0.0))


def test_a_doorway_lets_the_body_through() -> None:
    cells = [(1.0, y, 1.0, 0.2) for y in (-0.9, -0.7, 0.7, 0.9)]
    assert share(patches(*cells), (2.0, 0.0, 0.0)) == 1.0
    beside = EYE + torch.tensor([0.0, 0.5, 0.0])
    assert share(patches(*cells), (2.0, 0.0, 0.0), beside) < 0.5


def test_ceilings_and_the_floor_bound_the_camera() -> None:
    ceiling = patches((0.0, 0.0, 2.5, 0.6), (0.5, 0.0, 2.5, 0.6), view=(0.6, 0.0, 0.8))
    assert share(ceiling, (0.0, 0.0, 3.0)) * 3.0 == pytest.approx(2.5 - BODY.above - 1.4, abs=0.01)
    assert share(ceiling, (0.5, 0.0, 0.1)) == 1.0
    assert share(patches(), (0.0, 0.0, -3.0)) * 3.0 == pytest.approx(1.4 - BODY.lowest)


def test_a_long_fast_motion_tunnels_through_nothing() -> None:
    assert share(wall(5.0), (100.0, 0.0, 0.0)) * 100.0 == pytest.approx(4.75, abs=0.01)
    assert share(patches(), (100.0, 0.0, 0.0)) == 1.0


def test_the_judge_agrees_and_can_fail() -> None:
    rng = torch.Generator().manual_seed(0)
    failed = 0
    for _ in range(300):
        angle = float(torch.rand((), generator=rng)) * math.tau
        slope = float(torch.rand((), generator=rng)) - 0.5
        flat = math.sqrt(1 - slope**2)
        table = torch.rand(12, 4, generator=rng) * torch.tensor([4.0, 4.0, 2.0, 0.8]) - torch.tensor(
            [2.0, 2.0, 0, 0]
        )
        view = torch.tensor([math.cos(angle) * flat, math.sin(angle) * flat, slope])
        held = SurfacePatches(table[:, :3], table[:, 3] + 0.05, view.expand(12, 3))
        motion = torch.rand(3, generator=rng, dtype=torch.float64) * 3.0 - 1.5
        motion[2] = 0.0
        end = EYE + free_of_patches(held, EYE, motion, BODY) * motion
        assert crossed_patches(held, EYE.tolist(), end.tolist()) == []
        failed += bool(crossed_patches(held, EYE.tolist(), (EYE + motion).tolist()))
    assert failed > 50
