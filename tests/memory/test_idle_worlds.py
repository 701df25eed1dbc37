"""What may not move: the memories of worlds that rest, and any memory that is only looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mirage_sim.agents import survey_world
from mirage_sim.baselines.memories import VOXELS, make_memory
from mirage_sim.envs.body import BodyConfig, swept_share
from mirage_sim.envs.collision import CollisionConfig, free_share
from mirage_sim.geometry import from_yaw_pitch
from mirage_sim.model.world_model import WorldModel
from mirage_sim.world import World
from tests.memory.rooms import HW, box_depth, camera, intrinsics, latents, memory
from tests.models import tiny_world_model

SIZE = 32
BASELINES = ["appended", "retrieved", *VOXELS]


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return tiny_world_model(SIZE, SIZE, references=2)


def begun(model: WorldModel, name: str | None = None) -> World:
    """Two worlds, of which each has seen a wall."""
    make: Any = None
    if name is not None:
        make = lambda worlds: make_memory(name, model.codec, model.config.memory, worlds)  # noqa: E731
    world = World(model, 2, make_memory=make)
    image = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    pose = from_yaw_pitch((0.0, 0.0, 1.4), 0.0).float().expand(2, 4, 4)
    world.reset(image, pose, seeds=[1, 2], depth=np.full((2, SIZE, SIZE), 2.0, np.float32))
    return world


def state(world: World) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in world.memory.state_dict().items()}


def unchanged(world: World, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in world.memory.state_dict().items())


@pytest.mark.parametrize("name", [None, *BASELINES])
def test_idle_worlds_rest(model: WorldModel, name: str | None) -> None:
    world = begun(model, name)
    before = world.memory.fork([1]).state_dict()
    poses = torch.stack([from_yaw_pitch((0.0, 0.0, 1.4), 0.1 * step).float() for step in range(3)])
    for pose in poses:
        world.step(pose.expand(2, 1, 4, 4), worlds=torch.tensor([True, False]))
    after = world.memory.fork([1]).state_dict()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_references_are_no_use() -> None:
    kept, pose = memory(2), camera()[None, None].expand(2, 1, 4, 4)
    kept.write(latents(0, 2, 1), box_depth(pose), pose, intrinsics(2, 1))
    before = kept.state_dict()
    both = kept.references(pose[:, 0], intrinsics(2), HW, 2)
    one = kept.references(pose[:, 0], intrinsics(2), HW, 2, worlds=torch.tensor([True, False]))
    assert both.valid[:, 0].all()
    assert one.valid[:, 0].tolist() == [True, False]
    assert torch.equal(one.index[0], both.index[0])
    untouched = kept.read(pose, intrinsics(2, 1), HW, touch=False)
    assert all(torch.equal(value, before[name]) for name, value in kept.state_dict().items())
    read = kept.read(pose, intrinsics(2, 1), HW)
    assert torch.equal(read.latents, untouched.latents)
    assert not torch.equal(kept.state_dict()["clock"], before["clock"])


LOOKS: dict[str, Callable[[World, Tensor, Tensor], Any]] = {
    "probe": lambda world, here, there: free_share(
        world, here, there, torch.ones(2, dtype=torch.bool), CollisionConfig()
    ),
    "body": lambda world, here, there: swept_share(
        world, here, there, torch.ones(2, dtype=torch.bool), BodyConfig()
    ),
    "survey": lambda world, here, there: survey_world(world, 1)(torch.cat([here, there])),
}


@pytest.mark.parametrize("look", sorted(LOOKS))
def test_looks_leave_no_trace(model: WorldModel, look: str) -> None:
    world = begun(model)
    here = world.cam2world
    there = here.clone()
    there[:, 0, 3] += 3.0
    before = state(world)
    LOOKS[look](world, here, there)
    assert unchanged(world, before)
    if look == "body":
        assert bool(
            (swept_share(world, here, there, torch.ones(2, dtype=torch.bool), BodyConfig()) < 1.0).all()
        )


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_give_their_points(model: WorldModel, name: str) -> None:
    patches = begun(model, name).memory.patches(0)
    assert (len(patches.positions) > 0) is (name != "retrieved")
    assert patches.footprint.shape == patches.positions.shape[:1]
    assert patches.view_dir.shape == patches.positions.shape
