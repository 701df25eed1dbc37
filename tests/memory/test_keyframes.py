"""The ring of keyframes and the choice of references by overlap."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.memory import Keyframes, KeyframesConfig, SpatialMemory
from mirage_sim.memory.overlap import voxel_iou
from tests.memory.rooms import CHANNELS, HW, box_depth, camera, intrinsics, latents, memory


def add(ring: Keyframes, pose: Tensor, seed: int = 0) -> bool:
    return bool(ring.add(latents(seed, 1), box_depth(pose)[None], pose[None], intrinsics(1)))


def ring(count: int = 4) -> Keyframes:
    return Keyframes(KeyframesConfig(count=count), 1, CHANNELS, torch.float16, torch.device("cpu"))


def look_around(steps: int, **options: object) -> SpatialMemory:
    kept = memory(**options)
    for step in range(steps):
        pose = camera(yaw=math.tau * step / steps)[None, None]
        kept.write(latents(step, 1, 1), box_depth(pose), pose, intrinsics(1, 1))
    return kept


def test_only_new_views_are_kept() -> None:
    kept = ring()
    assert add(kept, camera())
    assert not add(kept, camera(0.2, 0.0, 0.1))
    assert add(kept, camera(0.6))
    assert add(kept, camera(yaw=0.5))
    assert not add(kept, camera(0.1, 0.0, 0.5))
    assert kept.views.valid.tolist() == [[True, True, True, False]]


def test_a_full_ring_replaces_its_oldest() -> None:
    kept = ring(3)
    for step in range(5):
        assert add(kept, camera(float(step - 2)), seed=step)
    assert kept.views.order.tolist() == [[3, 4, 2]]
    assert torch.equal(kept.views.latents[0, 1].float(), latents(4, 1)[0])
    assert torch.equal(kept.views.cam2world[0, 2], camera(0.0))
    assert add(kept, camera(-2.0))  # forgotten, hence new again


def test_a_ring_of_none_keeps_none() -> None:
    kept = ring(0)
    assert not add(kept, camera())
    everything = memory(keyframes={"count": 0})
    pose = camera()[None, None]
    everything.write(latents(0, 1, 1), box_depth(pose), pose, intrinsics(1, 1))
    found = everything.references(pose[:, 0], intrinsics(1), HW, 2)
    assert found.index.shape == found.valid.shape == (1, 2)
    assert not found.valid.any()


def test_another_frame_size_is_refused() -> None:
    kept = ring()
    add(kept, camera())
    with pytest.raises(InputError, match=r"latents must keep the size \[16, 16\]"):
        kept.add(torch.zeros(1, CHANNELS, 8, 8), torch.ones(1, 8, 8), camera()[None], intrinsics(1))


@given(st.integers(0, 1000), st.integers(0, 40), st.integers(0, 40))
def test_iou_is_that_of_sets(seed: int, first: int, second: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(2, first, 3, generator=generator) - 0.5
    b = torch.rand(2, 3, second, 3, generator=generator) - 0.5
    a_mask, b_mask = (torch.rand(part.shape[:-1], generator=generator) < 0.8 for part in (a, b))

    def voxels(points: Tensor, mask: Tensor) -> set[tuple[int, ...]]:
        return {tuple(point) for point in (points[mask] / 0.25).floor().int().tolist()}

    iou = voxel_iou(a, a_mask, b, b_mask, 0.25)
    for world in range(2):
        ours = voxels(a[world], a_mask[world])
        for k in range(3):
            theirs = voxels(b[world, k], b_mask[world, k])
            expected = len(ours & theirs) / max(len(ours | theirs), 1)
            assert float(iou[world, k]) == pytest.approx(expected)


def test_references_are_the_views_of_the_same_place() -> None:
    kept = look_around(12)
    found = kept.references(camera(yaw=math.tau / 3)[None], intrinsics(1), HW, 4, voxel=0.3)
    assert int(found.index[0, 0]) == 4
    assert set(found.index[0, 1:3].tolist()) == {3, 5}
    assert found.valid.tolist() == [[True, True, True, True]]
    assert torch.equal(found.views, kept.keyframes.views.latents)
    assert not memory().references(camera()[None], intrinsics(1), HW, 4).valid.any()


def test_references_below_the_threshold_are_none() -> None:
    kept = look_around(12)
    target = (camera()[None], intrinsics(1), HW, 6)
    loose = kept.references(*target, voxel=0.3, threshold=0.01).valid
    strict = kept.references(*target, voxel=0.3, threshold=0.9).valid
    assert strict.tolist() == [[True] + [False] * 5]
    assert int(loose.sum()) > 1
    assert not kept.read(camera(yaw=0.1)[None, None], intrinsics(1, 1), HW).mask.logical_not().all()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="translation and rotation_deg must be 0 or more"):
        KeyframesConfig(translation=-1.0)
    points, mask = torch.zeros(1, 2, 3), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(InputError, match="voxel must be positive"):
        voxel_iou(points, mask, points[:, None], mask[:, None], 0.0)
    with pytest.raises(InputError, match="count must be 0 or more"):
        memory().references(camera()[None], intrinsics(1), HW, -1)
