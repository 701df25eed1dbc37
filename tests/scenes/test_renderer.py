"""The renderer of the flats against a slow ray caster and against PyBullet's software renderer."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from mirage_sim.errors import InputError, StateError
from mirage_sim.geometry import from_yaw_pitch, make_intrinsics
from mirage_sim.scenes import RENDERER, SKY_ID, Scene, View, make_scene
from mirage_sim.scenes.cpu_renderer import CpuRenderer
from mirage_sim.scenes.mesh import Mesh
from mirage_sim.scenes.movers import Movers
from tests.oracles.bullet import TinyRenderer, import_pybullet
from tests.oracles.ray_caster import RayCaster

SKY = (0.55, 0.3)
SMALL = (10, 14)
WHITE = np.full((2, 2, 3), 255, np.uint8)
SKEWED = torch.tensor([[9.0, 1.5, 4.0], [0.0, 8.0, 7.0], [0.0, 0.0, 1.0]])
"""Intrinsics of a small image with skew and its principal point aside."""


def hard_poses(scene: Scene, rng: np.random.Generator, count: int) -> list[Tensor]:
    """Cameras 0.2 m before a wall, 0.25 to 1.9 m high, tilted by up to 60 degrees and rolled."""
    poses = []
    for _ in range(count):
        room = scene.rooms[int(rng.integers(len(scene.rooms)))]
        place = [float(rng.uniform(*room.x)), room.y[0] + 0.2, float(rng.uniform(0.25, 1.9))]
        pose = from_yaw_pitch(place, float(rng.uniform(-3.1, 3.1)), float(rng.uniform(-1.05, 1.05))).float()
        roll = float(rng.uniform(-0.5, 0.5))
        turn = torch.eye(4)
        turn[:2, :2] = torch.tensor([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]])
        poses.append(pose @ turn)
    return poses


def assert_equal(view: View, expected: View) -> None:
    np.testing.assert_array_equal(view.segmentation, expected.segmentation)
    np.testing.assert_array_equal(view.rgb, expected.rgb)
    np.testing.assert_allclose(view.depth, expected.depth, atol=1e-5)


def test_views_equal_those_of_a_ray_caster() -> None:
    rng = np.random.default_rng(0)
    with make_scene(3) as scene, make_scene(3, RayCaster) as oracle:
        pose, lens = scene.sample_pose(rng), make_intrinsics(*SMALL, 75.0)
        assert_equal(scene.render(pose, lens, SMALL), oracle.render(pose, lens, SMALL))
    with make_scene(110_001) as scene, make_scene(110_001, RayCaster) as oracle:
        (pose,) = hard_poses(scene, rng, 1)
        assert_equal(scene.render(pose, SKEWED, SMALL), oracle.render(pose, SKEWED, SMALL))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_hard_views_equal_those_of_a_ray_caster(seed: int) -> None:
    with make_scene(seed) as scene, make_scene(seed, RayCaster) as oracle:
        for pose in hard_poses(scene, np.random.default_rng(seed), 4):
            for intrinsics in (make_intrinsics(*SMALL, 100.0), SKEWED):
                assert_equal(scene.render(pose, intrinsics, SMALL), oracle.render(pose, intrinsics, SMALL))


def test_moved_bodies_equal_those_of_a_ray_caster() -> None:
    pose = from_yaw_pitch([0.0, 0.0, 1.0], 0.0, -0.4).float()
    renderers = [CpuRenderer(SKY), RayCaster(SKY)]
    mesh = Mesh()
    mesh.ball((0.0, 0.0, 0.0), 0.4, 0.7, (1.0, 0.2, 0.1))
    mesh.box((0.0, 0.3, 0.0), (0.3, 0.8, 0.1), (0.1, 0.2, 1.0))
    checker = np.indices((4, 4)).sum(axis=0)[..., None] % 2 * np.full(3, 200, np.uint8)
    turn = from_yaw_pitch([1.2, 0.2, 0.4], 0.7, 0.5).double().numpy()
    views = []
    for renderer in renderers:
        vertices = np.concatenate(mesh.vertices)
        body = renderer.add(vertices, np.tile([0.3, 0.6], (len(vertices), 1)), WHITE // 2)
        floor = np.array([[0, -2, 0], [4, -2, 0], [4, 2, 0], [0, 2, 0]], dtype=np.float64)
        uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float64)
        renderer.add(floor, uvs, checker.astype(np.uint8))
        before = renderer.render(pose.double().numpy()[None], SKEWED.double().numpy(), SMALL)[0]
        renderer.place(body, turn)
        views.append(
            [before, renderer.render(pose.double().numpy()[None], SKEWED.double().numpy(), SMALL)[0]]
        )
    for view, expected in zip(*views, strict=True):
        assert_equal(view, expected)
    assert not np.array_equal(views[0][0].segmentation, views[0][1].segmentation)
    assert set(np.unique(views[0][1].segmentation)) == {SKY_ID, 0, 1}


def _plane(cuts: int) -> np.ndarray:
    """Corners of a wall 1 m ahead of a camera at the origin, cut into uneven quads [4 * quads, 3]."""
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.uniform(-3, 3, (2, cuts)))
    quads = [
        [(x[i], y[j], 1.0), (x[i], y[j + 1], 1.0), (x[i + 1], y[j + 1], 1.0), (x[i + 1], y[j], 1.0)]
        for i in range(cuts - 1)
        for j in range(cuts - 1)
    ]
    return np.array(quads).reshape(-1, 3)


def test_no_pixel_is_lost_between_faces_that_share_an_edge() -> None:
    renderer, vertices = CpuRenderer(SKY), _plane(40)
    renderer.add(vertices, np.full((len(vertices), 2), 0.5), WHITE)
    rng = np.random.default_rng(1)
    for _ in range(20):
        pose = from_yaw_pitch([0.0, 0.0, 0.0], *rng.uniform(-0.2, 0.2, 2).tolist()).double().numpy()
        pose = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]]).T @ pose
        view = renderer.render(pose[None], make_intrinsics(64, 64, 75.0).double().numpy(), (64, 64))[0]
        assert (view.segmentation == 0).all()
        assert (view.rgb == 255).all()


def test_of_faces_at_the_same_depth_the_first_is_seen_and_backs_are_not() -> None:
    lens = make_intrinsics(16, 16, 75.0).double().numpy()
    vertices = np.array([[-9, -9, 1], [-9, 9, 1], [9, 9, 1], [9, -9, 1]], dtype=np.float64)
    half = np.full((4, 2), 0.5)
    for first, second in ((vertices, vertices), (vertices[::-1], vertices)):
        renderer = CpuRenderer(SKY)
        for mesh in (first, second):
            renderer.add(np.ascontiguousarray(mesh), half, WHITE)
        seen = set(np.unique(renderer.render(np.eye(4)[None], lens, (16, 16))[0].segmentation))
        assert seen == ({0} if first is vertices else {1})


def test_parts_nearer_than_the_near_plane_are_open() -> None:
    """A floor that reaches behind the camera, which stands 2 cm above it and looks ahead."""
    floor = np.array([[-5, -5, 0], [5, -5, 0], [5, 5, 0], [-5, 5, 0]], dtype=np.float64)
    renderer = CpuRenderer(SKY)
    renderer.add(floor, np.full((4, 2), 0.5), WHITE)
    lens = make_intrinsics(64, 64, 75.0)
    pose = from_yaw_pitch([0.0, 0.0, 0.02], 0.3)
    depth = renderer.render(pose.double().numpy()[None], lens.double().numpy(), (64, 64))[0].depth
    below = (np.arange(64) + 0.5 - 32) / float(lens[1, 1])
    with np.errstate(divide="ignore"):
        wanted = np.where(below > 0, 0.02 / below, 0.0)
    shown = (wanted >= 0.05) & (wanted <= 4.0)
    np.testing.assert_allclose(depth[shown], np.repeat(wanted[shown, None], 64, 1), rtol=1e-5)
    assert (depth[(wanted > 0) & (wanted < 0.05)] == 0).all()


def test_a_camera_that_looks_away_sees_the_sky() -> None:
    with make_scene(0) as scene:
        pose = from_yaw_pitch([-3.0, -3.0, 1.0], -2.4)
        view = scene.render(pose, make_intrinsics(*SMALL, 75.0), SMALL)
        assert (view.segmentation == SKY_ID).all()
        assert (view.depth == 0).all()
        assert np.unique(view.rgb.reshape(-1, 3), axis=0).shape[0] > 5


def test_bent_quads_bent_textures_and_too_few_or_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = CpuRenderer(SKY)
    with pytest.raises(StateError, match="without bodies"):
        renderer.render(np.eye(4)[None], np.eye(3), (4, 4))
    flat = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float64)
    bent = flat.copy()
    bent[2, 2] = 0.1
    bent_uvs = flat[:, :2] * np.array([[1, 1], [1, 1], [0.5, 1], [1, 1]])
    for vertices, uvs in ((bent, flat[:, :2]), (flat, bent_uvs)):
        with pytest.raises(InputError, match="flat quads with a linear texture"):
            renderer.add(vertices, uvs, WHITE)
    renderer.add(np.concatenate([flat, flat]), np.zeros((8, 2)), WHITE)
    monkeypatch.setattr("mirage_sim.scenes.cpu_renderer.NO_FACE", 2)
    with pytest.raises(InputError, match="fewer than 2 quads, got 2"):
        renderer.render(np.eye(4)[None], np.eye(3), (4, 4))


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
def test_defaults_of_torch_change_nothing(default: torch.dtype) -> None:
    lens = make_intrinsics(24, 24, 75.0)

    def poses(scene: Scene) -> Tensor:
        walk = scene.plan_walk(np.random.default_rng(0), 2)
        return torch.cat([walk, scene.sample_pose(np.random.default_rng(1))[None]])

    with make_scene(5) as scene:
        expected, before = poses(scene), torch.get_default_dtype()
        view = scene.render(expected[2], lens, (24, 24))
        torch.set_default_dtype(default)
        try:
            with torch.inference_mode():
                assert torch.equal(poses(scene), expected)
                with torch.device("meta"):
                    assert_equal(scene.render(expected[2], lens, (24, 24)), view)
        finally:
            torch.set_default_dtype(before)


def test_flats_are_drawn_where_pybullet_is_absent() -> None:
    code = """
import sys
sys.modules["pybullet"] = None
import numpy as np
from mirage_sim.geometry import make_intrinsics
from mirage_sim.scenes import make_scene
with make_scene(1) as scene:
    scene.render(scene.sample_pose(np.random.default_rng(0)), make_intrinsics(16, 16, 75.0), (16, 16))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert RENDERER.startswith("cpu-raster ")


def psnr(view: View, expected: View) -> float:
    error = np.mean((view.rgb.astype(np.float64) - expected.rgb) ** 2)
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))


class Comparison:
    """A flat drawn by our renderer, by TinyRenderer, and where they differ by a ray caster."""

    def __init__(self, seed: int) -> None:
        self.scene, self.bullet, self.rays = (
            make_scene(seed, maker) for maker in (CpuRenderer, TinyRenderer, RayCaster)
        )

    def close(self) -> None:
        for scene in (self.scene, self.bullet, self.rays):
            scene.close()

    def compare(self, pose: Tensor, intrinsics: Tensor, hw: tuple[int, int]) -> float:
        """Check that the views agree where rounding cannot decide, and give their PSNR in decibels."""
        view, expected = (scene.render(pose, intrinsics, hw) for scene in (self.scene, self.bullet))
        beside = np.abs(view.depth - expected.depth) > 1e-3
        beside |= (np.abs(view.rgb.astype(int) - expected.rgb) > 3).any(axis=-1)
        beside |= view.segmentation != expected.segmentation
        for row, column in np.argwhere(beside):
            assert self._by_a_hair(pose, intrinsics, int(row), int(column)), (row, column)
        return psnr(view, expected)

    def _by_a_hair(self, pose: Tensor, intrinsics: Tensor, row: int, column: int) -> bool:
        """Whether a sample of a pixel lies within 0.01 pixels of an edge or meets two faces in one place."""
        caster = self.rays._renderer
        assert isinstance(caster, RayCaster)
        offset = np.array(
            [(x, y) for x in (0.25, 0.5, 0.75) for y in (0.25, 0.5, 0.75) if (x == 0.5) == (y == 0.5)]
        )
        near = offset[:, None] + 0.01 * np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])  # [5, 5, 2]
        x, y = near.reshape(-1, 2).T + np.array([[column], [row]])
        hits = caster.cast(pose.double().numpy(), intrinsics.double().numpy(), x, y, tie=2e-4)
        seen = np.concatenate([hits.colour, hits.body[:, None]], axis=1).reshape(*near.shape[:2], 4)
        return bool(hits.rival.any() or (seen != seen[:, :1]).any())


def test_views_equal_those_of_tiny_renderer() -> None:
    import_pybullet()
    lens = make_intrinsics(64, 64, 75.0)
    for seed in (3, 17):
        both, rng = Comparison(seed), np.random.default_rng(seed)
        poses = [both.scene.sample_pose(rng), *hard_poses(both.scene, rng, 2)]
        assert min(both.compare(pose, lens, (64, 64)) for pose in poses) >= 60
        both.close()


@pytest.mark.slow
def test_views_of_many_flats_equal_those_of_tiny_renderer() -> None:
    """At 128 x 128: 60 dB and more, but where a flat has two faces in one place (the stripe on some beds)."""
    import_pybullet()
    lens, levels = make_intrinsics(128, 128, 75.0), []
    for seed in (0, 3, 17, 41, 96, 1000, 100_002, 100_005, 100_011, 110_000, 110_001, 110_007):
        both, rng = Comparison(seed), np.random.default_rng(seed)
        poses = [both.scene.sample_pose(rng) for _ in range(4)] + hard_poses(both.scene, rng, 4)
        levels += [both.compare(pose, lens, (128, 128)) for pose in poses]
        both.close()
    assert len(levels) == 96
    assert sum(level >= 60 for level in levels) >= 80
    assert min(levels) >= 40
    assert float(np.median(levels)) >= 90


def test_movers_equal_those_of_tiny_renderer() -> None:
    import_pybullet()
    both, lens, rng = Comparison(100_001), make_intrinsics(64, 64, 75.0), np.random.default_rng(0)
    movers: list[Movers] = []
    while not movers:
        pose = both.scene.sample_pose(rng)
        with contextlib.suppress(StateError):
            movers = [
                Movers(scene, pose, np.random.default_rng(1))
                for scene in (both.scene, both.bullet, both.rays)
            ]
    for time in (0.0, 0.7, 1.5):
        for placed in movers:
            placed.place(time)
        both.compare(pose, lens, (64, 64))
        assert movers[0].mask(both.scene.render(pose, lens, (64, 64))).any()
    both.close()
