"""Clips: what is refused, the stretch of a video, a world turned upright, and resizing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_sim.errors import InputError
from mirage_sim.geometry import from_yaw_pitch, project, relative
from mirage_sim.sources import resized
from mirage_sim.sources.clip import frame_numbers, upright
from tests.sources.layouts import make_clip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros((2, 8, 8, 3), np.float32)}, "frames must be uint8"),
        ({"frames": np.zeros((0, 8, 8, 3), np.uint8)}, "frames must not be empty"),
        ({"depth": np.zeros((9, 8, 8), np.float32)}, r"depth must be \[9, 32, 48\]"),
        ({"depth": np.full((9, 32, 48), -1.0, np.float32)}, "depth must be 0"),
        ({"depth": np.full((9, 32, 48), np.nan, np.float32)}, "depth must be finite"),
        ({"movable": np.zeros((9, 32, 48), np.uint8)}, "movable must be bool"),
        ({"cam2world": np.zeros((9, 4, 4), np.float32)}, "cam2world must have the bottom row"),
        ({"cam2world": np.zeros((8, 4, 4), np.float32)}, r"cam2world must be \[9, 4, 4\]"),
        ({"intrinsics": np.zeros((9, 3, 3), np.float32)}, "intrinsics must have positive focal"),
        ({"fps": 0.0}, "fps must be positive"),
    ],
)
def test_what_is_no_clip_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(make_clip(), **changes)


def test_a_stretch_stays_within_its_video() -> None:
    assert list(frame_numbers("a", 10, 1, 3, 4)) == [1, 5, 9]
    for start, frames, step in ((2, 3, 4), (-1, 2, 1), (0, 0, 1), (0, 1, 0)):
        with pytest.raises(InputError):
            frame_numbers("a", 10, start, frames, step)


@given(st.integers(0, 10_000), st.floats(-1.5, 1.5))
def test_a_tilted_world_is_turned_upright(seed: int, pitch: float) -> None:
    """Level cameras, seen in a world turned at random, are level again and stand alike."""
    chance = torch.Generator().manual_seed(seed)
    yaw = 3.0 * torch.randn(6, generator=chance)
    level = from_yaw_pitch(torch.randn(6, 3, generator=chance), yaw, 0.0)
    tilt = from_yaw_pitch(torch.randn(3, generator=chance), float(yaw[0]), pitch)
    turned = torch.from_numpy(upright((tilt @ level).numpy()))
    torch.testing.assert_close(turned[:, 2, 1], -torch.ones(6), atol=1e-5, rtol=0)  # "down" is -z
    expected, actual = (relative(poses[:1].expand_as(poses), poses) for poses in (level, turned))
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=0)


def test_a_world_that_hangs_head_down_and_one_without_direction() -> None:
    poses = make_clip(2).cam2world
    down = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
    np.testing.assert_allclose(upright(down @ poses)[:, 2, 1], -1.0, atol=1e-6)
    np.testing.assert_array_equal(upright(poses), poses)
    rolled = poses.copy()
    rolled[1, :3, :2] *= -1
    np.testing.assert_allclose(upright(rolled)[:, 2, 1], [-1.0, 1.0], atol=1e-6)


@settings(max_examples=40)
@given(st.integers(6, 60), st.integers(6, 60), st.integers(6, 60), st.integers(6, 60), st.integers(0, 999))
def test_a_point_lands_on_the_same_place_of_the_picture(h: int, w: int, h2: int, w2: int, seed: int) -> None:
    """The pixel that a point falls on before is, after, taken from there: within half of the larger pixel."""
    rng = np.random.default_rng(seed)
    # Every pixel tells its place, in depth because that is not smoothed.
    place = (1 + np.arange(h)[:, None] * w + np.arange(w)).astype(np.float32)
    clip = make_clip(1, (h, w), depth=place[None], movable=(place % 2 == 0)[None])
    small = resized(clip, (h2, w2))
    assert small.hw == (h2, w2)
    assert small.depth is not None
    assert small.movable is not None
    assert set(small.depth.ravel()) <= set(place.ravel())
    np.testing.assert_array_equal(small.movable, small.depth % 2 == 0)
    ratio = max(h2 / h, w2 / w)
    inside = np.array([w2, h2]) * rng.uniform(0.001, 0.999, (20, 2))
    rays = np.concatenate([inside, np.ones((20, 1))], axis=1) @ np.linalg.inv(small.intrinsics[0]).T
    pose = torch.from_numpy(clip.cam2world[0])
    points = torch.from_numpy(rays * rng.uniform(1, 9, (20, 1))).float() @ pose[:3, :3].T + pose[:3, 3]
    (before, _), (after, _) = (
        project(points, pose, torch.from_numpy(c.intrinsics[0])) for c in (clip, small)
    )
    np.testing.assert_allclose(after, inside, atol=2e-3)
    seen = small.depth[0][after[:, 1].long().clamp(0, h2 - 1), after[:, 0].long().clamp(0, w2 - 1)] - 1
    found = np.stack([seen % w, seen // w], axis=-1) + 0.5
    assert np.abs(found - before.numpy()).max() <= 0.5 + 0.5 * max(1.0, 1.0 / ratio) + 1e-2


def test_pictures_are_cut_where_the_lens_says() -> None:
    """A ramp along x keeps its colours: red is four times the column that a pixel comes from."""
    clip = make_clip(1, (32, 48))
    small = resized(clip, (16, 16))  # the middle 32 columns, at half the size
    columns = 8 + 2 * (np.arange(16) + 0.5)
    np.testing.assert_allclose(
        small.frames[0, :, 2:-2, 0], np.tile(4 * (columns - 0.5), (16, 1))[:, 2:-2], atol=1
    )
    np.testing.assert_allclose(small.intrinsics[0], [[20, 0, 8], [0, 20, 8], [0, 0, 1]])
    assert resized(clip, (32, 48)) is clip
    with pytest.raises(InputError, match="hw must be positive"):
        resized(clip, (0, 4))
