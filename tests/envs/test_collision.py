from collections.abc import Callable

import numpy as np
import pytest
import torch

from mirage_sim.envs import ExploreEnv
from mirage_sim.envs.collision import CollisionConfig, free_share
from mirage_sim.geometry import from_yaw_pitch
from mirage_sim.model.world_model import WorldModel
from mirage_sim.world import World
from tests.envs.conftest import SIZE

EYE = torch.tensor([0.0, 0.0, 1.4])
START = from_yaw_pitch(EYE, 0.0)
BODY = CollisionConfig()
LENS = torch.tensor([[64.0, 0.0, 16.0], [0.0, 64.0, 16.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def world(model: WorldModel) -> World:
    """A place that remembers one wall, 2 m ahead along +x."""
    made = World(model, 1)
    image = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    depth = np.full((1, SIZE, SIZE), 2.0, np.float32)
    made.reset(image, START[None], LENS, seeds=[0], depth=depth)
    return made


def share(world: World, offset: tuple[float, float, float], start: torch.Tensor = START) -> float:
    end = start.clone()
    end[:3, 3] += torch.tensor(offset)
    everyone = torch.ones(1, dtype=torch.bool)
    return float(free_share(world, start[None], end[None], everyone, BODY)[0])


@pytest.mark.parametrize("distance", [0.1, 1.0, 1.65])
def test_free_up_to_the_margin(world: World, distance: float) -> None:
    assert share(world, (distance, 0.0, 0.0)) == 1.0


@pytest.mark.parametrize("distance", [1.85, 2.0, 5.0])
def test_stops_at_the_margin(world: World, distance: float) -> None:
    assert share(world, (distance, 0.0, 0.0)) * distance == pytest.approx(2.0 - BODY.margin, abs=0.03)


def test_a_camera_at_the_wall_can_leave_and_walk_along_it(world: World) -> None:
    near = from_yaw_pitch(EYE + torch.tensor([2.0 - BODY.margin, 0.0, 0.0]), 0.0)
    assert share(world, (0.2, 0.0, 0.0), near) < 0.05
    for offset in ((-1.0, 0.0, 0.0), (0.0, 0.5, 0.0), (0.0, -0.5, 0.0), (0.0, 0.0, 0.3)):
        assert share(world, offset, near) == 1.0


def test_what_was_never_seen_stops_nobody(world: World) -> None:
    for offset in ((-5.0, 0.0, 0.0), (0.0, 5.0, 0.0), (0.0, 0.0, 5.0), (0.0, 0.0, 0.0)):
        assert share(world, offset) == 1.0


def test_the_environment_stops_where_it_should(make_env: Callable[..., ExploreEnv]) -> None:
    solid, ghost = make_env(collide=True), make_env()
    for env in (solid, ghost):
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        depth = np.full((SIZE, SIZE), 2.0)
        env.reset(seed=0, options={"image": image, "depth": depth, "intrinsics": LENS})
    ahead = np.array([1, 0, 0, 0, 0], np.float32)
    stopped = [solid.step(ahead) for _ in range(9)]
    passed = [ghost.step(ahead) for _ in range(9)]
    assert any(step[4]["collision"] for step in stopped)
    assert "collide" in stopped[-1][4]["timings_ms"]
    assert not any(step[4]["collision"] for step in passed)

    def gone(steps: list[tuple]) -> float:
        return float(np.linalg.norm(steps[-1][0]["cam2world"][:3, 3] - [0.0, 0.0, 1.4]))

    assert gone(stopped) <= 2.0 - BODY.margin + 0.05
    assert gone(passed) == pytest.approx(9 * 0.25, abs=1e-3)
    *_, info = solid.step(-ahead)
    assert not info["collision"], "the flag stays after the wall was left"
