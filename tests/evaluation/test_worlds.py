"""Test worlds: paths, what was seen before, and their independence of how many there are."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mirage_sim.errors import InputError
from mirage_sim.evaluation.config import WorldsConfig
from mirage_sim.evaluation.worlds import forward_path, make_test_worlds, seen_before, warp_first
from mirage_sim.geometry import from_yaw_pitch, make_intrinsics, ray_directions, yaw_pitch
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.scenes import TEST_SEEDS, make_scene

SIZE = (16, 16)
LENS = make_intrinsics(*SIZE, 75.0)


@pytest.fixture(scope="module")
def worlds() -> list:
    return list(make_test_worlds(WorldsConfig(worlds=2, steps=6), LENS, SIZE))


def test_worlds_are_the_first_scenes_of_the_split(worlds: list) -> None:
    assert [world.scene_seed for world in worlds] == list(TEST_SEEDS[:2])
    assert worlds[0].noise_seed != worlds[1].noise_seed
    for world in worlds:
        out, yaw = world.paths["out"], world.paths["yaw"]
        assert out.frames.shape == (7, *SIZE, 3)
        assert yaw.frames.shape == (19, *SIZE, 3)
        assert torch.equal(out.cam2world[0], yaw.cam2world[0])
        np.testing.assert_array_equal(out.frames[0], yaw.frames[0])


def test_first_worlds_do_not_depend_on_how_many_follow(worlds: list) -> None:
    alone = next(make_test_worlds(WorldsConfig(worlds=1, steps=6), LENS, SIZE))
    for name, path in alone.paths.items():
        assert torch.equal(path.cam2world, worlds[0].paths[name].cam2world)
        np.testing.assert_array_equal(path.frames, worlds[0].paths[name].frames)


def test_way_out_is_free_and_takes_steps_of_the_asked_length(worlds: list) -> None:
    for world in worlds:
        points = world.paths["out"].cam2world[:, :3, 3].double().numpy()
        lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
        assert (lengths > 0.079).all()
        assert (lengths < 0.121).all()
        with make_scene(world.scene_seed) as scene:
            assert not any(scene.collides(a, b, 0.3) for a, b in pairwise(points))


def test_turn_is_ninety_degrees_in_steps_of_five_and_back_through_the_same_poses(worlds: list) -> None:
    path = worlds[0].paths["yaw"]
    yaw, pitch = yaw_pitch(path.cam2world)
    turns = torch.rad2deg(torch.remainder(yaw.diff() + math.pi, math.tau) - math.pi)
    torch.testing.assert_close(turns, torch.full((18,), 5.0), rtol=0, atol=1e-3)
    torch.testing.assert_close(pitch, pitch[:1].expand(19), rtol=0, atol=1e-5)
    loop = path.there_and_back
    assert torch.equal(loop, loop.flip(0))
    assert len(loop) == 37


@given(
    yaw=st.floats(-3, 3), pitch=st.floats(-0.3, 0.3), length=st.floats(0.05, 0.2), turn=st.floats(-0.05, 0.05)
)
def test_forward_path_keeps_height_and_pitch_and_faces_the_way(
    yaw: float, pitch: float, length: float, turn: float
) -> None:
    start = from_yaw_pitch(torch.tensor([1.0, -2.0, 1.4]), yaw, pitch).float()
    path = forward_path(start, length, turn, 5)
    assert torch.equal(path[0], start)
    torch.testing.assert_close(path[:, 2, 3], torch.full((6,), 1.4))
    moves = path[:, :3, 3].diff(dim=0)
    torch.testing.assert_close(moves.norm(dim=1), torch.full((5,), length), rtol=1e-4, atol=1e-5)
    heading = torch.nn.functional.normalize(path[:-1, :2, 2], dim=-1)  # level part of the camera's z axis
    facing = (heading * torch.nn.functional.normalize(moves[:, :2], dim=-1)).sum(-1)
    assert (facing > math.cos(0.5 * abs(turn)) - 1e-4).all()


def wall(distance: float) -> torch.Tensor:
    return torch.full(SIZE, distance)


START = from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]), 0.0, 0.0).float()


def test_everything_is_seen_from_the_same_pose_but_the_sky() -> None:
    depth = wall(3.0)
    depth[:4] = 0.0
    seen = seen_before(depth[None], START[None], depth, START, LENS)
    assert torch.equal(seen[0], depth > 0)


def test_nothing_was_seen_behind_the_first_camera() -> None:
    behind = from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]), math.pi, 0.0).float()
    assert not seen_before(wall(3.0)[None], behind[None], wall(3.0), START, LENS).any()


def test_a_turned_camera_has_seen_the_overlap_only() -> None:
    """A level wall at x = 3: after a small turn to the left, what enters on the left was not seen."""
    turned = from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]), math.radians(20), 0.0).float()
    rays = ray_directions(turned, LENS, SIZE)
    depth = 3.0 / rays[..., 0]  # where each ray meets the wall
    seen = seen_before(depth[None], turned[None], wall(3.0), START, LENS)[0]
    middle = seen[SIZE[0] // 2]
    assert not middle[0]
    assert middle[-6:-1].all()


def test_the_first_frame_warped_to_itself_is_itself_and_follows_the_camera(worlds: list) -> None:
    for world in worlds:
        path = world.paths["yaw"]
        warped = warp_first(path, [0, 1], LENS)
        real = frames_to_tensor(path.frames[:2])
        there = path.depth[:2] > 0
        torch.testing.assert_close(warped[0][:, there[0]], real[0][:, there[0]], atol=1e-3, rtol=0)
        seen = seen_before(path.depth[1], path.cam2world[1], path.depth[0], path.cam2world[0], LENS)
        error, still = ((frame - real[1])[:, seen].square().mean() for frame in (warped[1], real[0]))
        assert error < 0.5 * still


def test_surfaces_hidden_in_the_first_frame_do_not_count() -> None:
    """The first frame saw a screen at 1 m; the wall at 3 m behind it was hidden."""
    assert not seen_before(wall(3.0)[None], START[None], wall(1.0), START, LENS).any()
    closer = START.clone()
    closer[0, 3] = 1.0
    assert seen_before(wall(2.0)[None], closer[None], wall(3.0), START, LENS).all()
    assert not seen_before(wall(2.5)[None], closer[None], wall(3.0), START, LENS).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "holdout"}, "split must be one of"),
        ({"worlds": 0}, "worlds must be in"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"yaw_step_degrees": 100.0}, "yaw_step_degrees"),
        ({"shortest_step": 0.5}, "step lengths"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WorldsConfig(**changes)
