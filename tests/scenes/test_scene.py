"""A flat is what it says: the same from its seed, sealed, and with true depth."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from mirage_sim.errors import InputError, StateError
from mirage_sim.geometry.cameras import make_intrinsics, ray_directions, rescale_intrinsics
from mirage_sim.geometry.poses import from_yaw_pitch
from mirage_sim.scenes import SKY_ID, Scene, make_scene
from mirage_sim.scenes.layout import WALL_THICKNESS
from mirage_sim.scenes.mesh import Mesh

SIZE = 96
HW = (SIZE, SIZE)
INTRINSICS = make_intrinsics(SIZE, SIZE, 75.0)


def digest(seed: int) -> str:
    """A fingerprint of a walk through a flat and of everything seen on it."""
    parts = hashlib.sha256()
    with make_scene(seed) as scene:
        for cam2world in scene.plan_walk(np.random.default_rng(seed), 12)[::4]:
            view = scene.render(cam2world, make_intrinsics(48, 48, 75.0), (48, 48))
            for array in (cam2world.numpy(), view.rgb, view.depth, view.segmentation):
                parts.update(array.tobytes())
    return parts.hexdigest()


@pytest.fixture(scope="module", params=[0, 3, 8, 110_002])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with make_scene(request.param) as flat:
        yield flat


def test_same_seed_gives_the_same_bytes_in_another_process() -> None:
    code = "from tests.scenes.test_scene import digest; print(digest(4), digest(5))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split()[-2:] == [digest(4), digest(5)]
    assert digest(4) != digest(5)


def test_view_has_the_promised_shapes_and_types(scene: Scene) -> None:
    view = scene.render(scene.sample_pose(np.random.default_rng(0)), make_intrinsics(40, 64, 75.0), (40, 64))
    assert view.rgb.shape == (40, 64, 3)
    assert view.rgb.dtype == np.uint8
    assert view.depth.shape == (40, 64)
    assert view.depth.dtype == np.float32
    assert view.segmentation.shape == (40, 64)
    assert view.segmentation.dtype == np.int32
    assert np.isfinite(view.depth).all()


def test_walls_floor_and_ceiling_are_where_the_plan_says(scene: Scene) -> None:
    rng = np.random.default_rng(1)
    room_faces = [(room.x, room.y) for room in scene.rooms]
    checked = 0
    for _ in range(6):
        cam2world = scene.sample_pose(rng)
        view = scene.render(cam2world, INTRINSICS, HW)
        rays = ray_directions(cam2world, INTRINSICS, HW).numpy()
        points = cam2world[:3, 3].numpy() + rays * view.depth[..., None]
        names = np.vectorize(scene.labels.__getitem__)(view.segmentation)
        assert np.abs(points[names == "floor"][:, 2]).max(initial=0.0) < 5e-3
        assert np.abs(points[names == "ceiling"][:, 2] - scene.layout.height).max(initial=0.0) < 5e-3
        on_walls = points[names == "wall"]
        gaps = np.stack(
            [
                np.abs(on_walls[:, axis] - face[axis][end])
                for face in room_faces
                for axis in (0, 1)
                for end in (0, 1)
            ]
        )
        assert gaps.min(axis=0).max(initial=0.0) < 5e-3
        checked += len(on_walls)
    assert checked > 1000


def test_sky_is_seen_only_through_windows(scene: Scene) -> None:
    rng = np.random.default_rng(2)
    width, depth = scene.layout.width, scene.layout.depth
    seen = 0
    for _ in range(10):
        cam2world = scene.sample_pose(rng)
        view = scene.render(cam2world, INTRINSICS, HW)
        sky = view.segmentation == SKY_ID
        np.testing.assert_array_equal(sky, view.depth == 0)
        eye = cam2world[:3, 3].double().numpy()
        for ray in ray_directions(cam2world, INTRINSICS, HW).double().numpy()[sky]:
            assert _leaves_by_window(scene, eye, ray, width, depth)
        seen += int(sky.sum())
    assert seen > 0


def _leaves_by_window(scene: Scene, eye: np.ndarray, ray: np.ndarray, width: float, depth: float) -> bool:
    """Whether a ray from indoors meets the inner face of the outer walls inside a window."""
    low = np.array([WALL_THICKNESS, WALL_THICKNESS])
    high = np.array([width, depth]) - WALL_THICKNESS
    with np.errstate(divide="ignore"):
        times = np.maximum((low - eye[:2]) / ray[:2], (high - eye[:2]) / ray[:2])
    x, y, z = eye + times.min() * ray
    for room in scene.rooms:
        for wall in range(4):
            for hole in room.openings[wall]:
                a, b = room.wall_point(wall, hole.u0), room.wall_point(wall, hole.u1)
                beside = max(
                    min(a[0], b[0]) - x, x - max(a[0], b[0]), min(a[1], b[1]) - y, y - max(a[1], b[1])
                )
                if hole.kind == "window" and beside < 0.02 and hole.v0 - 0.02 < z < hole.v1 + 0.02:
                    return True
    return False


def test_sky_stands_still_when_the_camera_moves_but_does_not_turn() -> None:
    with make_scene(0) as scene:
        rng = np.random.default_rng(3)
        for _ in range(20):
            first = scene.sample_pose(rng)
            second = first.clone()
            second[:2, 3] += 0.02
            views = [scene.render(pose, INTRINSICS, HW) for pose in (first, second)]
            both = binary_erosion((views[0].depth == 0) & (views[1].depth == 0), np.ones((3, 3)))
            np.testing.assert_array_equal(views[0].rgb[both], views[1].rgb[both])


def test_colours_are_means_over_pixels_and_depth_is_that_of_their_centres(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    pose = scene.sample_pose(np.random.default_rng(1))
    view = scene.render(pose, INTRINSICS, HW)
    monkeypatch.setattr("mirage_sim.scenes.cpu_renderer.SAMPLES", 1)
    jagged = scene.render(pose, INTRINSICS, HW)
    fine = scene.render(pose, rescale_intrinsics(INTRINSICS, 2.0), (2 * SIZE, 2 * SIZE)).rgb
    means = fine.reshape(SIZE, 2, SIZE, 2, 3).mean(axis=(1, 3))
    assert np.abs(view.rgb - means).max() <= 0.5
    assert not np.array_equal(view.rgb, jagged.rgb)
    np.testing.assert_array_equal(view.depth, jagged.depth)
    np.testing.assert_array_equal(view.segmentation, jagged.segmentation)


def test_every_id_in_an_image_has_a_name_and_rooms_are_furnished(scene: Scene) -> None:
    view = scene.render(scene.sample_pose(np.random.default_rng(4)), INTRINSICS, HW)
    assert set(np.unique(view.segmentation).tolist()) <= set(scene.labels)
    shell = {"wall", "floor", "ceiling", "sky", "door frame", "window frame", "picture", "rug"}
    assert sum(name not in shell for name in scene.labels.values()) >= 4
    assert scene.labels[SKY_ID] == "sky"


def test_walls_facing_different_ways_differ_in_brightness() -> None:
    with make_scene(1) as scene:
        x, y = scene.rooms[0].centre
        means = []
        for yaw in (0.0, np.pi / 2, np.pi, -np.pi / 2):
            view = scene.render(from_yaw_pitch(torch.tensor([x, y, 1.4]), yaw, 0.6), INTRINSICS, HW)
            wall = np.vectorize(scene.labels.__getitem__)(view.segmentation) == "wall"
            means.append(float(view.rgb[wall].mean()))
        assert np.ptp(means) > 8


def test_bad_calls_are_refused() -> None:
    with pytest.raises(InputError, match="seed"):
        make_scene(-1)
    scene = make_scene(0)
    with pytest.raises(InputError, match="cam2world"):
        scene.render(torch.eye(3), INTRINSICS, HW)
    with pytest.raises(InputError, match="intrinsics"):
        scene.render(torch.eye(4), torch.eye(4), HW)
    with pytest.raises(InputError, match="pose"):
        scene.place_body(0, torch.eye(3))
    scene.close()
    scene.close()
    for call in (
        lambda: scene.render(torch.eye(4), INTRINSICS, HW),
        lambda: scene.add_body("ball", Mesh()),
        lambda: scene.place_body(0, torch.eye(4)),
    ):
        with pytest.raises(StateError, match="closed"):
            call()


@pytest.mark.slow
def test_closed_scenes_give_their_memory_back() -> None:
    code = """
import resource
from mirage_sim.scenes import make_scene
peaks = []
for index in range(18):
    make_scene(3).close()
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print((peaks[-1] - peaks[5]) // 1024)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 25
