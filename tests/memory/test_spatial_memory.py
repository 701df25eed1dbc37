"""Writing and reading: round trips, the bound, growth, eviction, independence of worlds and of copies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryConfig, SpatialMemory, WriteReport
from mirage_sim.memory.config import DTYPES
from tests.memory.rooms import HW, box_depth, camera, circle, intrinsics, latents, memory


def write(kept: SpatialMemory, poses: Tensor, seed: int = 0, **options: Tensor) -> WriteReport:
    """Write what the cameras `[B, T, 4, 4]` see of the box room, with random latents."""
    tokens = latents(seed, *poses.shape[:2])
    return kept.write(tokens, box_depth(poses), poses, intrinsics(*poses.shape[:2]), **options)


def walk(kept: SpatialMemory, poses: Tensor, seed: int = 0) -> float:
    """Write one frame after another of a walk `[T, 4, 4]` in one world; the new area."""
    return sum(float(write(kept, pose[None, None], seed + step).new_area) for step, pose in enumerate(poses))


def assert_same_state(a: SpatialMemory, b: SpatialMemory) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value.double(), theirs[name].double()), name


@pytest.mark.parametrize("dtype", ["float8", "float16", "bfloat16", "float32"])
def test_a_view_written_is_read_back(dtype: str) -> None:
    kept = memory(dtype=dtype)
    pose = camera(0.5, -1.0, 0.7, -0.1)[None, None]
    tokens = latents(0, 1, 1)
    report = kept.write(tokens, box_depth(pose), pose, intrinsics(1, 1))
    assert report.written.all()
    read = kept.read(pose, intrinsics(1, 1), HW)
    assert read.mask.all()
    assert torch.equal(read.latents, tokens.to(DTYPES[dtype]).float())
    torch.testing.assert_close(read.depth, box_depth(pose), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(read.offset, torch.zeros_like(read.offset), rtol=0, atol=1e-4)
    torch.testing.assert_close(read.log_scale, torch.zeros_like(read.log_scale), rtol=0, atol=1e-3)
    torch.testing.assert_close(read.view_cos, torch.ones_like(read.view_cos), rtol=0, atol=1e-4)


def test_frames_of_one_call_equal_frames_of_many() -> None:
    poses = circle(12)[:4]
    tokens, depth = latents(3, 1, 4), box_depth(poses)[None]
    at_once = memory(filter_free_space=False)
    together = at_once.write(tokens, depth, poses[None], intrinsics(1, 4))
    one_by_one = memory(filter_free_space=False)
    apart = [
        one_by_one.write(tokens[:, t : t + 1], depth[:, t : t + 1], poses[None, t : t + 1], intrinsics(1, 1))
        for t in range(4)
    ]
    assert_same_state(at_once, one_by_one)
    assert torch.equal(together.written, torch.cat([report.written for report in apart], dim=1))
    torch.testing.assert_close(together.new_area, torch.stack([report.new_area for report in apart]).sum(0))


def test_walking_in_circles_does_not_grow() -> None:
    kept = memory()
    first_area = walk(kept, circle(36))
    first = int(kept.stats().entries)
    second_area = walk(kept, circle(36), seed=100)
    assert int(kept.stats().entries) - first <= 0.01 * first
    assert second_area <= 0.01 * first_area
    beside = circle(36)
    beside[:, :3, 3] += 0.05 * torch.randn(36, 3, generator=torch.Generator().manual_seed(0))
    walk(kept, beside, seed=200)
    assert int(kept.stats().entries) - first <= 0.25 * first  # gaps between tokens are filled once ...
    filled = int(kept.stats().entries)
    walk(kept, beside, seed=300)
    assert int(kept.stats().entries) - filled <= 0.01 * first  # ... and not again


def test_a_well_seen_token_is_never_replaced() -> None:
    kept = memory()
    pose = camera()[None, None]
    write(kept, pose, seed=0)
    before = kept.read(pose, intrinsics(1, 1), HW).latents
    for seed in range(1, 6):
        assert not write(kept, pose, seed=seed).written.any()
    assert torch.equal(kept.read(pose, intrinsics(1, 1), HW).latents, before)


def test_a_finer_view_is_added_and_read_from_near_and_the_coarse_one_from_far() -> None:
    kept = memory()
    far, near = camera(-3.0)[None, None], camera(2.0)[None, None]
    write(kept, far, seed=0)
    assert not write(kept, camera(-2.0)[None, None], seed=1).written[0, 0, 5:11, 5:11].all()
    assert write(kept, near, seed=2).written[0, 0, 5:11, 5:11].all()
    from_near = kept.read(near, intrinsics(1, 1), HW)
    assert torch.equal(from_near.latents[0, 0, :, 5:11, 5:11], latents(2, 1, 1)[0, 0, :, 5:11, 5:11])
    from_far = kept.read(far, intrinsics(1, 1), HW)
    assert torch.equal(from_far.latents, latents(0, 1, 1))


def test_new_area_is_the_surface_seen() -> None:
    kept = memory()
    area = walk(kept, torch.stack([camera(yaw=math.tau * i / 24) for i in range(24)]))
    walls = 4 * 8.0 * 3.0  # seen whole, at most 45 degrees oblique; what faces the camera is less than that
    assert 0.7 * walls < area < walls + 2 * 64
    small = camera(yaw=0.01)[None, None]
    assert float(write(kept, small).new_area) < 0.01 * area


def test_grows_by_doubling_without_changing_anything() -> None:
    small, large = memory(initial_capacity=16), memory(initial_capacity=8192)
    poses = circle(20)
    walk(small, poses)
    walk(large, poses)
    assert_same_state(small, large)
    capacity = small._entries.capacity
    assert capacity & (capacity - 1) == 0
    assert capacity >= int(small.stats().entries) > 16


def test_the_least_recently_read_leave_at_the_maximum() -> None:
    kept = memory(initial_capacity=64, max_capacity=700, keyframes={"count": 0})
    ahead, left, back = (camera(yaw=yaw)[None, None] for yaw in (0.0, 1.8, 3.6))
    write(kept, ahead, seed=0)
    write(kept, left, seed=1)
    first = int(kept.stats().entries)
    assert first <= 512
    kept.read(ahead, intrinsics(1, 1), HW)  # so that `left` is now the one longest unread
    write(kept, back, seed=2)
    assert int(kept.stats().entries) <= 700
    assert kept.read(ahead, intrinsics(1, 1), HW).mask.all()
    assert kept.read(back, intrinsics(1, 1), HW).mask.all()
    assert not kept.read(left, intrinsics(1, 1), HW).mask.all()


def test_the_oldest_leave_first_among_equals() -> None:
    kept = memory(initial_capacity=256, max_capacity=256, keyframes={"count": 0})
    first, second = camera()[None, None], camera(yaw=math.pi)[None, None]
    write(kept, first, seed=0)
    top = torch.zeros(1, 1, *HW, dtype=torch.bool)
    top[:, :, :1] = True
    write(kept, second, seed=1, keep_mask=top)  # 16 tokens: the 16 oldest leave, the first row of the frame
    remembered = kept.read(first, intrinsics(1, 1), HW).mask[0, 0]
    assert not remembered[0].any()
    assert remembered[1:].all()
    assert int(kept.stats().entries) == 256


def test_a_frame_larger_than_the_memory_is_refused() -> None:
    kept = memory(initial_capacity=100, max_capacity=100)
    with pytest.raises(InputError, match="latents must have at most 100 cells"):
        write(kept, camera()[None, None])
    assert int(kept.stats().entries) == 0


def test_never_exceeds_its_maximum_and_stays_deterministic() -> None:
    runs = []
    for _ in range(2):
        kept = memory(initial_capacity=32, max_capacity=600)
        for step, pose in enumerate(circle(24)):
            write(kept, pose[None, None], step)
            assert int(kept.stats().entries) <= 600
        runs.append(kept)
    assert_same_state(*runs)


def test_worlds_do_not_depend_on_their_batch_mates() -> None:
    poses = torch.stack([circle(8, 1.0), circle(8, 2.0, 1), circle(8, 0.5, 5)])  # [3, 8, 4, 4]
    together = memory(3, initial_capacity=64, max_capacity=900)
    alone = [memory(1, initial_capacity=64, max_capacity=900) for _ in range(3)]
    for step in range(8):
        active = torch.tensor([True, step % 2 == 0, step < 5])
        tokens, pose = latents(step, 3, 1), poses[:, step : step + 1]
        depth = box_depth(pose)
        report = together.write(tokens, depth, pose, intrinsics(3, 1), worlds=active)
        read = together.read(pose, intrinsics(3, 1), HW, worlds=active)
        for world in range(3):
            own = slice(world, world + 1)
            if not active[world]:
                assert not report.written[own].any()
                assert float(report.new_area[world]) == 0
                assert not read.mask[own].any()
                continue
            single = alone[world].write(tokens[own], depth[own], pose[own], intrinsics(1, 1))
            assert torch.equal(single.written, report.written[own])
            assert torch.equal(single.new_area, report.new_area[own])
            for name, value in vars(alone[world].read(pose[own], intrinsics(1, 1), HW)).items():
                assert torch.equal(value, getattr(read, name)[own]), name
    for world in range(3):
        assert_same_state(together.fork([world]), alone[world])
        assert together.stats().bytes[world] == alone[world].stats().bytes[0]


def test_reset_forgets_only_the_worlds_asked_for() -> None:
    kept = memory(2)
    pose = camera().expand(2, 1, 4, 4)
    write(kept, pose)
    kept.reset(torch.tensor([True, False]))
    assert kept.stats().entries.tolist() == [0, 256]
    assert kept.read(pose, intrinsics(2, 1), HW).mask.flatten(1).all(1).tolist() == [False, True]
    kept.reset()
    assert kept.stats().entries.tolist() == [0, 0]
    fresh = memory(2)
    for each in (kept, fresh):
        write(each, camera(yaw=1.0).expand(2, 1, 4, 4), seed=5)
    assert_same_state(kept, fresh)


def test_forks_are_independent_and_hold_the_same() -> None:
    kept = memory(2, initial_capacity=64)
    write(kept, torch.stack([camera(), camera(1.0, 1.0, 2.0)])[:, None])
    copies = kept.fork(torch.tensor([1, 1, 0]))
    assert copies.stats().entries.tolist() == kept.stats().entries[[1, 1, 0]].tolist()
    before = kept.state_dict()
    pose = camera(yaw=3.0).expand(3, 1, 4, 4)
    write(copies, pose, worlds=torch.tensor([True, False, True]))
    copies.reset(torch.tensor([False, False, True]))
    after = kept.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert_same_state(copies.fork([1]), kept.fork([1]))


def test_worlds_are_replaced_by_copies() -> None:
    kept, other = memory(2), memory(1)
    write(kept, camera().expand(2, 1, 4, 4))
    write(other, camera(yaw=2.0)[None, None], seed=7)
    kept.assign([1], other, [0])
    assert_same_state(kept.fork([1]), other)
    kept.assign([0, 1], kept, [1, 0])
    assert_same_state(kept.fork([0]), other)
    with pytest.raises(InputError, match="source must have the configuration"):
        kept.assign([0], memory(1, dtype="float32"), [0])
    with pytest.raises(InputError, match=r"worlds must hold worlds in 0\.\.1"):
        kept.assign([2], other, [0])
    with pytest.raises(InputError, match="as many different worlds"):
        kept.assign([0, 0], kept, [0, 1])


def test_reading_leaves_no_trace_but_the_clock() -> None:
    kept = memory()
    write(kept, camera()[None, None])
    before = kept.state_dict()
    kept.read(camera(yaw=0.2)[None, None], intrinsics(1, 1), HW)
    after = kept.state_dict()
    clocks = ("clock", "entries.last_seen")
    assert all(torch.equal(before[name], after[name]) for name in before if name not in clocks)


def test_stats_count_entries_and_bytes() -> None:
    kept = memory()
    assert kept.stats().bytes.tolist() == [0]
    write(kept, camera()[None, None])
    view = 4 * 256 * 2 + 256 * 4 + 16 * 4 + 9 * 4 + 8
    assert kept.stats().bytes.tolist() == [256 * (4 * 2 + 3 * 4 + 2 + 4 + 4) + view]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be positive"),
        ({"initial_capacity": 0}, "initial_capacity must be positive"),
        ({"initial_capacity": 10, "max_capacity": 9}, "at most max_capacity"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"depth_tolerance": -1.0}, "depth_tolerance must be positive"),
        ({"min_depth": 2.0, "max_depth": 1.0}, "min_depth and max_depth must be increasing"),
        ({"keyframes": {"count": -1}}, "count must be 0 or more"),
    ],
)
def test_wrong_configurations_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MemoryConfig(**{"channels": 4, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": torch.zeros(1, 1, 3, *HW)}, r"latents must be \[1, 1, 4, h, w\], got"),
        ({"latents": torch.full((1, 1, 4, *HW), math.nan)}, "latents must be finite"),
        ({"depth": torch.zeros(1, 1, 8, 8)}, r"depth must be \[1, 1, 16, 16\], got"),
        ({"cam2world": torch.full((1, 1, 4, 4), math.inf)}, "cam2world must be finite"),
        ({"intrinsics": torch.zeros(1, 2, 3, 3)}, r"intrinsics must be \[1, 1, 3, 3\]"),
        ({"keep_mask": torch.ones(1, 1, *HW)}, "keep_mask must be bool"),
        ({"worlds": torch.ones(2, dtype=torch.bool)}, r"worlds must be \[1\]"),
    ],
)
def test_wrong_arguments_are_named_and_change_nothing(change: dict[str, Tensor], message: str) -> None:
    kept = memory()
    arguments = {
        "latents": latents(0, 1, 1),
        "depth": torch.ones(1, 1, *HW),
        "cam2world": camera()[None, None],
        "intrinsics": intrinsics(1, 1),
    }
    with pytest.raises(InputError, match=message):
        kept.write(**{**arguments, **change})
    assert int(kept.stats().entries) == 0


def test_what_has_no_place_in_space_is_shown_to_the_same_camera_alone() -> None:
    kept, pose = memory(), camera(0.5, -1.0, 0.7, -0.1)[None, None]
    placed = torch.zeros(1, 1, *HW, dtype=torch.bool)
    placed[..., ::2] = True
    everything = torch.ones_like(placed)
    tokens = latents(0, 1, 1)
    write(kept, pose, keep_mask=placed, imagined=everything)
    write(kept, pose, seed=1, keep_mask=~everything, imagined=everything)  # what was shown first stays
    for cameras, same in ((pose, True), (camera(0.5, -0.9, 0.7, -0.1)[None, None], False)):
        read = kept.read(cameras, intrinsics(1, 1), HW)
        shown = kept.recall(read, cameras)
        if same:
            assert shown.mask.all()
            assert torch.equal(shown.latents, tokens.half().float())
            assert not shown.offset[:, :, :, ~placed[0, 0]].any()
            torch.testing.assert_close(shown.depth, box_depth(pose), rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(shown.latents, read.latents)
            assert torch.equal(shown.mask, read.mask)
    copy = kept.fork([0])
    kept.reset()
    assert not kept.recall(kept.read(pose, intrinsics(1, 1), HW), pose).mask.any()
    assert copy.recall(copy.read(pose, intrinsics(1, 1), HW), pose).mask.all()


def test_without_glimpses_a_read_is_all_there_is() -> None:
    kept, pose = memory(glimpses=0), camera(0.5, -1.0, 0.7, -0.1)[None, None]
    everything = torch.ones(1, 1, *HW, dtype=torch.bool)
    write(kept, pose, keep_mask=~everything, imagined=everything)
    assert not kept.recall(kept.read(pose, intrinsics(1, 1), HW), pose).mask.any()


def test_without_fusion_every_token_is_an_entry() -> None:
    pose = camera()[None, None]
    kept, all_of_them = memory(), memory(fuse=False)
    for each in (kept, all_of_them):
        for seed in range(3):
            each.write(latents(seed, 1, 1), box_depth(pose), pose, intrinsics(1, 1))
    assert int(all_of_them.stats().entries) == 3 * int(kept.stats().entries)
