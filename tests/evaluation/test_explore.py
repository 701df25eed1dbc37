"""What exploring earns and what holds the agent; the figures of sixteen flats come from `eval explore`."""

from __future__ import annotations

import math

import pytest
import torch

from mirage_sim.checkpoints import load_world_model
from mirage_sim.errors import InputError
from mirage_sim.evaluation.crossings import crossed_patches, segments_cross
from mirage_sim.evaluation.explore import (
    ExploreRunConfig,
    evaluate_explore,
    explore_table,
    facing_a_window,
    seen_windows,
)
from mirage_sim.geometry import make_intrinsics, yaw_pitch
from mirage_sim.memory import SurfacePatches
from mirage_sim.scenes import make_scene
from tests.models import tiny_world_model


def patch(
    x: float, z: float, size: float, view: tuple[float, float, float] = (1.0, 0.0, 0.0)
) -> SurfacePatches:
    return SurfacePatches(torch.tensor([[x, 0.0, z]]), torch.tensor([size]), torch.tensor([view]))


def test_segments_that_cross() -> None:
    assert segments_cross((0, 0), (2, 0), (1, -1), (1, 1))
    assert not segments_cross((0, 0), (0.9, 0), (1, -1), (1, 1))
    assert not segments_cross((0, 2), (2, 2), (1, -1), (1, 1))
    assert not segments_cross((0, 0), (1, 0), (1, -1), (1, 1)), "reaching it is not passing it"


def test_the_judge_sees_what_is_passed() -> None:
    through, beside = ((0.0, 0.0), (2.0, 0.0)), ((0.0, 0.3), (2.0, 0.3))
    wall = patch(1.0, 1.0, 0.4)
    assert crossed_patches(wall, *through) == [0]
    assert crossed_patches(wall, *beside) == []
    assert crossed_patches(wall, (0.0, 0.0), (0.9, 0.0)) == []
    for height in (0.05, 1.7):
        assert crossed_patches(patch(1.0, height, 0.4), *through) == []
    table = patch(1.0, 0.7, 0.4, (math.sqrt(0.5), 0.0, -math.sqrt(0.5)))
    assert crossed_patches(table, (0.0, 0.0), (1.0, 0.0)) == [0]
    assert crossed_patches(table, (1.0, 0.0), (2.0, 0.0)) == [], "out of it is no crossing"


def test_windows_are_found_and_faced() -> None:
    with make_scene(0) as scene:
        pose = facing_a_window(scene)
        assert pose is not None
        lens = make_intrinsics(128, 128, 75.0)
        seen = seen_windows(scene, pose, lens, (128, 128))
        yaw = float(yaw_pitch(pose)[0])
        x, y = pose[:2, 3].tolist()
        out = (x + 4 * math.cos(yaw), y + 4 * math.sin(yaw))
        assert any(segments_cross((x, y), out, *ends) for ends in seen)


def test_a_tiny_run() -> None:
    config = ExploreRunConfig(worlds=1, steps=2, random_steps=3)
    result = evaluate_explore(tiny_world_model(32, 32), config)
    assert (result["random_steps"], result["random_ends"], result["surfaces_crossed"]) == (3, 0, 0)
    assert result["steps_judged"] == 3 + 2 + 16 * result["walks_at_windows"]
    assert "walk over turns" in explore_table(result)
    with pytest.raises(InputError, match="steps must be at least 1, got 0"):
        ExploreRunConfig(steps=0)


@pytest.mark.slow
def test_exploring_pays_and_walls_hold_and_the_judge_can_fail() -> None:
    model = load_world_model("embedded")
    result = evaluate_explore(model, ExploreRunConfig(worlds=2))
    assert result["walk_over_turn"] >= 2.0
    assert result["random_ends"] == result["surfaces_crossed"] == result["windows_crossed"] == 0
    free = evaluate_explore(model, ExploreRunConfig(worlds=1, steps=1, random_steps=1, collide=False))
    assert free["surfaces_crossed"] > 0
    assert free["windows_crossed"] == free["walks_at_windows"] == 1
