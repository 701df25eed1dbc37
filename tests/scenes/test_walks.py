"""Walks touch nothing, keep their limits, and collision agrees with a brute-force oracle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mirage_sim.errors import InputError
from mirage_sim.geometry.poses import yaw_pitch
from mirage_sim.scenes import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, make_scene, split_of
from mirage_sim.scenes.layout import make_layout
from mirage_sim.scenes.obstacles import Obstacles
from mirage_sim.scenes.walks import WalkConfig

CLEARANCE = 0.35


@pytest.mark.parametrize("seed", [1, 2, 7, 100_003, 110_001])
def test_walk_keeps_clear_and_within_its_limits(seed: int) -> None:
    with make_scene(seed) as scene:
        walk = scene.plan_walk(np.random.default_rng(seed), 160, step_length=0.1, max_turn_deg=5.0)
        assert walk.shape == (160, 4, 4)
        assert walk.dtype == torch.float32
        where = walk[:, :3, 3].numpy()
        assert all(scene.is_free(point, CLEARANCE - 1e-4) for point in where)
        assert not any(scene.collides(a, b, CLEARANCE - 1e-4) for a, b in itertools.pairwise(where))
        assert np.linalg.norm(np.diff(where, axis=0), axis=1).max() < 0.1 + 1e-4
        assert np.ptp(where[:, 2]) == 0
        assert 1.2 <= where[0, 2] <= 1.6
        yaw, pitch = yaw_pitch(walk)
        turns = np.degrees(np.abs(np.diff(np.unwrap(yaw.numpy()))))
        assert turns.max() < 5.0 + 1e-2
        assert np.degrees(np.abs(pitch.numpy())).max() < 15
        assert turns.sum() > 90


def test_walks_together_hold_every_kind_of_motion() -> None:
    forward = backward = aside = turning = revisits = 0
    for seed in range(6):
        with make_scene(seed) as scene:
            walk = scene.plan_walk(np.random.default_rng(seed), 120)
        step = (walk[:-1, :3, :3].transpose(1, 2) @ (walk[1:, :3, 3] - walk[:-1, :3, 3])[..., None])[..., 0]
        right, ahead = step[:, 0], step[:, 2]
        forward += int((ahead > 0.05).sum())
        backward += int((ahead < -0.05).sum())
        aside += int((right.abs() > 0.04).sum())
        turning += int((step.norm(dim=-1) < 1e-4).sum())
        where = walk[:, :2, 3]
        near = torch.cdist(where, where) < 0.05
        revisits += int(torch.triu(near, diagonal=20).any(dim=0).sum())
    assert min(forward, backward, aside, turning, revisits) > 20


def test_doors_are_walkable_and_join_all_rooms() -> None:
    for seed in range(12):
        with make_scene(seed) as scene:
            space = scene.free_space(CLEARANCE)
            labels, _ = ndimage.label(space.free)
            doors = {
                int(labels[space.index(np.array([sum(door.x) / 2, sum(door.y) / 2]))])
                for door in scene.layout.doorways
            }
            assert len(doors) == 1
            assert 0 not in doors
            assert 2 <= len(scene.rooms) <= 4
            joined = {0}
            for _ in scene.rooms:
                joined |= {
                    r for door in scene.layout.doorways if joined & set(door.rooms) for r in door.rooms
                }
            assert joined == set(range(len(scene.rooms)))


def test_free_space_agrees_with_is_free() -> None:
    with make_scene(11) as scene:
        space = scene.free_space(0.3)
        centres = space.centres()
        rng = np.random.default_rng(0)
        for row, column in rng.integers((0, 0), space.free.shape, (300, 2)).tolist():
            assert bool(space.free[row, column]) == scene.is_free(centres[row, column], 0.3)
            assert space.index(centres[row, column]) == (row, column)
        assert 0.1 < space.free.mean() < 0.9


def test_moves_through_walls_and_out_of_the_flat_collide() -> None:
    with make_scene(2) as scene:
        door = scene.layout.doorways[0]
        first, second = (scene.rooms[index] for index in door.rooms)
        outside = (-1.0, -1.0)
        assert not scene.is_free(outside, 0.0)
        assert scene.collides(first.centre, outside, 0.0)
        middle = (sum(door.x) / 2, sum(door.y) / 2)
        through_x = door.x[1] - door.x[0] < door.y[1] - door.y[0]
        offset = np.array([0.5, 0.0]) if through_x else np.array([0.0, 0.5])
        assert not scene.collides(middle - offset, middle + offset, CLEARANCE)
        along = np.array([0.0, 1.0]) if through_x else np.array([1.0, 0.0])
        span = (door.y if through_x else door.x)[1] - (door.y if through_x else door.x)[0]
        shifted = np.array(middle) + along * (span / 2 + 0.1)
        assert scene.collides(shifted - offset, shifted + offset, 0.05)
        assert first is not second


box = st.tuples(
    st.floats(-2, 2), st.floats(-2, 2), st.floats(0.05, 1), st.floats(0.05, 1), st.floats(-3.2, 3.2)
)
point = st.tuples(st.floats(-3, 3), st.floats(-3, 3))


@settings(max_examples=60)
@given(boxes=st.lists(box, min_size=1, max_size=4), a=point, b=point)
def test_segment_distance_matches_dense_samples(
    boxes: list[tuple[float, ...]], a: tuple[float, float], b: tuple[float, float]
) -> None:
    obstacles = Obstacles(np.array(boxes))
    start, end = np.array(a), np.array(b)
    fractions = np.linspace(0, 1, 401)[:, None]
    sampled = float(obstacles.distance(start + (end - start) * fractions).min())
    exact = obstacles.segment_distance(start, end)
    half_gap = float(np.linalg.norm(end - start)) / 800
    assert exact <= sampled + 1e-9
    assert sampled - exact <= half_gap + 1e-9


@settings(max_examples=60)
@given(seed=st.integers(0, 200_000))
def test_layouts_have_sound_rooms_and_openings(seed: int) -> None:
    layout = make_layout(np.random.default_rng(seed))
    assert 2 <= len(layout.rooms) <= 4
    assert len(layout.doorways) >= len(layout.rooms) - 1
    for room in layout.rooms:
        assert min(room.size) > 2.4
        for wall in range(4):
            spans = sorted((hole.u0, hole.u1) for hole in room.openings[wall])
            assert all(0 < u0 < u1 < room.wall_length(wall) for u0, u1 in spans)
            assert all(left[1] < right[0] for left, right in itertools.pairwise(spans))


def test_walk_settings_are_checked() -> None:
    with make_scene(0) as scene, pytest.raises(InputError, match="steps"):
        scene.plan_walk(np.random.default_rng(0), 0)
    with pytest.raises(InputError, match="step_length"):
        WalkConfig(step_length=0.0)
    with pytest.raises(InputError, match="eye"):
        WalkConfig(low_eye=1.5, high_eye=1.0)


def test_splits_are_disjoint_and_named() -> None:
    splits = [TRAIN_SEEDS, VALIDATION_SEEDS, TEST_SEEDS]
    assert sum(len(part) for part in splits) == len(set().union(*splits)) == 120_000
    assert [split_of(part[0]) for part in splits] == ["train", "validation", "test"]
    assert [split_of(part[-1]) for part in splits] == ["train", "validation", "test"]
    for seed in (-1, 120_000):
        with pytest.raises(InputError, match="seed"):
            split_of(seed)
