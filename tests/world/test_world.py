"""The world's state machine, on a tiny model of the real classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mirage_sim.errors import FileFormatError, InputError, InputTypeError, StateError
from mirage_sim.evaluation.variants import TrueDepth
from mirage_sim.geometry import from_yaw_pitch, yaw_sweep
from mirage_sim.world import World
from tests.models import tiny_world_model

SIZE = 32


@pytest.fixture(scope="module", params=[0, 2], ids=["no references", "references"])
def model(request):
    return tiny_world_model(SIZE, SIZE, references=request.param)


def first_frames(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, SIZE, SIZE, 3), dtype=np.uint8)


def first_poses(count: int) -> torch.Tensor:
    return from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]).expand(count, 3), torch.arange(count).float())


def started(model, count: int = 1, memory: bool = True) -> World:
    world = World(model, count, memory=memory)
    wall = np.full((count, SIZE, SIZE), 2.0, np.float32)
    world.reset(first_frames(count), first_poses(count), seeds=range(5, 5 + count), depth=wall)
    return world


def turns(count: int, steps: int = 4) -> torch.Tensor:
    """Poses [steps, B, 1, 4, 4] that turn to the left."""
    sweeps = [yaw_sweep(pose, 40.0, steps)[1:] for pose in first_poses(count)]
    return torch.stack(sweeps, dim=1)[:, :, None]


def test_a_world_depends_on_its_batch_mates_by_rounding_only(model):
    together = started(model, 3)
    alone = World(model, 1)
    wall = np.full((1, SIZE, SIZE), 2.0, np.float32)
    alone.reset(first_frames(3)[1:2], first_poses(3)[1:2], seeds=[6], depth=wall)
    for poses in turns(3):
        whole, single = together.step(poses), alone.step(poses[1:2])
        torch.testing.assert_close(whole.latents[1], single.latents[0], atol=1e-3, rtol=1e-3)
        assert np.abs(whole.frames[1].astype(int) - single.frames[0]).max() <= 1
        assert torch.equal(whole.known[1], single.known[0])


def test_what_its_batch_mates_see_changes_a_world_by_rounding_only(model):
    frames = []
    for other in (0, 200):
        pictures = first_frames(2)
        pictures[1] = other
        world = World(model, 2)
        world.reset(pictures, first_poses(2), seeds=[5, other])
        frames.append([world.step(poses).frames[0].astype(int) for poses in turns(2)])
    # it decides which worlds share a pass through the network
    assert np.abs(np.subtract(*frames)).max() <= 1


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(model):
    poses = turns(1)[0]
    frames = []
    for seed in (3, 3, 4):
        world = World(model)
        world.reset(first_frames(1), first_poses(1), seeds=[seed])
        frames.append(world.step(poses).frames)
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


@pytest.mark.parametrize("sky_depth", [60.0, 0.0])
def test_the_sky_is_remembered_but_is_no_surface(sky_depth):
    model = tiny_world_model(SIZE, SIZE)
    model = model.with_settings(memory=replace(model.config.memory, sky_depth=sky_depth))
    model.depth_head.last.weight.zero_()
    model.depth_head.last.bias.copy_(
        torch.tensor([0.0, 0.0, -9.0])
    )  # all that is not known to be near is sky
    depth = np.full((1, SIZE, SIZE), 2.0, np.float32)
    depth[:, : SIZE // 2] = 0.0
    world = World(model)
    first = world.reset(first_frames(1), first_poses(1), seeds=[5], depth=depth)
    assert (first.depth[0, 0, :2] == 0).all()
    assert (first.depth[0, 0, 2:] == 2).all()
    lens = model.intrinsics()
    wall = SIZE * (SIZE / 2) * 2.0**2 / (lens[0, 0] * lens[1, 1])  # m^2 of the lower half
    torch.testing.assert_close(first.new_area, wall[None])
    again = world.step(first_poses(1)[:, None])
    assert again.known[0, 0, 2:].all()
    assert again.known[0, 0, :2].all() == (sky_depth > 0)
    assert (again.depth[0, 0, :2] == 0).all()
    assert world.memory.stats().entries.tolist() == [16 if sky_depth else 8]
    if sky_depth:
        assert torch.equal(again.latents, first.latents.half().float())  # read just as it was written
        aside = first_poses(1)
        aside[:, 1, 3] += 0.2
        assert world.step(aside[:, None]).known[0, 0, :2].all()  # no parallax


def edge_loop(glimpses: int, given: bool) -> float:
    """Look at the edge of something near, away and back; how much it has changed."""
    model = tiny_world_model(SIZE, 2 * SIZE)
    model = model.with_settings(memory=replace(model.config.memory, glimpses=glimpses))
    depth = np.full((1, SIZE, 2 * SIZE), 3.0, np.float32)
    depth[..., :24], depth[..., 24:32] = 0.7, 1.1
    cells = torch.from_numpy(depth[:, ::8, ::8].copy())
    steps = list(turns(1))
    model.depth_head = TrueDepth()
    model.depth_head.begin(torch.stack([cells, *(torch.full_like(cells, 3.0) for _ in steps), cells], dim=1))
    world, pictures = World(model, 1), np.repeat(first_frames(1), 2, axis=2)
    first = world.reset(pictures, first_poses(1), seeds=[5], depth=depth if given else None)
    for pose in steps:
        world.step(pose)
    again = world.step(first_poses(1)[:, None])
    return float((again.latents - first.latents).abs().max())


def test_a_camera_that_looks_again_sees_what_it_saw_at_the_edges_of_things():
    assert edge_loop(glimpses=64, given=False) < 2e-3  # half precision
    assert edge_loop(glimpses=0, given=False) > 0.1
    assert edge_loop(glimpses=0, given=True) < 2e-3  # true depths hang nothing in the air


def test_coverage_counts_what_was_remembered(model):
    world = started(model)
    behind = from_yaw_pitch(torch.tensor([[0.0, 0.0, 1.4]]), torch.tensor([3.14]))
    assert world.step(behind[:, None]).coverage.item() == 0.0
    back = world.step(first_poses(1)[:, None])
    assert back.coverage.item() > 0.5
    assert torch.equal(back.coverage, back.known.float().mean(dim=(2, 3)))


def test_without_memory_nothing_is_known_and_nothing_is_kept(model):
    world = started(model, memory=False)
    segment = world.step(first_poses(1)[:, None])
    assert not segment.known.any()
    assert segment.new_area.item() == 0.0
    assert world.memory.stats().entries.item() == 0


def test_true_depth_of_the_first_frame_is_what_the_memory_keeps(model):
    world = World(model)
    segment = world.reset(first_frames(1), first_poses(1), depth=np.full((1, SIZE, SIZE), 2.5, np.float32))
    assert torch.equal(segment.depth, torch.full_like(segment.depth, 2.5))
    read = world.step(first_poses(1)[:, None])
    assert torch.allclose(read.depth[read.known], torch.tensor(2.5))


def test_latents_alone_are_the_same_without_decoding(model):
    world = started(model)
    state = world.snapshot()
    decoded = world.step(turns(1)[0])
    world.restore(state)
    plain = world.step(turns(1)[0], decode=False)
    assert plain.frames is None
    assert torch.equal(plain.latents, decoded.latents)


def test_restore_goes_back_exactly_and_only_for_the_worlds_asked(model):
    world = started(model, 2)
    state = world.snapshot(torch.tensor([True, False]))
    first = world.step(turns(2)[0])
    world.restore(state, torch.tensor([True, False]))
    again = world.step(turns(2)[0])
    assert np.array_equal(first.frames[0], again.frames[0])
    assert not np.array_equal(first.frames[1], again.frames[1])


def test_a_fork_starts_equal_and_goes_its_own_way(model):
    world = started(model)
    fork = world.fork([0, 0])
    poses = turns(1)
    ours, theirs = world.step(poses[0]), fork.step(poses[0].expand(2, -1, -1, -1))
    assert np.abs(ours.frames[0].astype(int) - theirs.frames[0]).max() <= 1
    entries = world.memory.stats().entries.clone()
    fork.step(poses[3].expand(2, -1, -1, -1))
    assert torch.equal(world.memory.stats().entries, entries)


def test_a_saved_world_goes_on_bit_for_bit(model, tmp_path):
    world = started(model)
    world.step(turns(1)[0])
    world.save(tmp_path / "w", extra={"note": "hall"})
    ahead = world.step(turns(1)[1])
    other = World(model)
    assert other.load(tmp_path / "w") == {"note": "hall"}
    assert np.array_equal(other.step(turns(1)[1]).frames, ahead.frames)


def test_a_world_of_another_model_is_refused(model, tmp_path):
    started(model).save(tmp_path / "w")
    other = tiny_world_model(SIZE, SIZE)
    other.weights_hash = "another"
    with pytest.raises(FileFormatError, match="must hold a world of model"):
        World(other).load(tmp_path / "w")


def test_only_asked_worlds_move(model):
    world = started(model, 2)
    before = world.cam2world
    segment = world.step(turns(2)[0], worlds=torch.tensor([False, True]))
    assert torch.equal(world.cam2world[0], before[0])
    assert not torch.equal(world.cam2world[1], before[1])
    assert not segment.frames[0].any()


def test_restart_keeps_the_memory(model):
    world = started(model)
    for poses in turns(1):
        world.step(poses)
    entries = world.memory.stats().entries
    segment = world.restart(first_poses(1))
    assert segment.coverage.item() > 0.5
    assert (world.memory.stats().entries >= entries).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first_frame": np.zeros((1, 16, 16, 3), np.uint8)}, "first_frame must be"),
        ({"cam2world": 2 * torch.eye(4)[None]}, "cam2world"),
        ({"cam2world": torch.full((1, 4, 4), float("nan"))}, "cam2world"),
        ({"intrinsics": torch.zeros(3, 3)}, "intrinsics"),
        ({"depth": np.zeros((1, SIZE, SIZE), np.float32)}, "depth"),
        ({"depth": np.ones((1, 8, 8), np.float32)}, "depth must be"),
        ({"seeds": [1, 2]}, "seeds must hold 1"),
    ],
)
def test_bad_first_frames_are_named_and_change_nothing(model, change, message):
    world = started(model)
    given = {"first_frame": first_frames(1), "cam2world": first_poses(1), "seeds": [5]} | change
    pose, entries = world.cam2world, world.memory.stats().entries
    with pytest.raises(InputError, match=message):
        world.reset(**given)
    assert torch.equal(world.cam2world, pose)
    assert torch.equal(world.memory.stats().entries, entries)


def test_wrong_types_and_states_are_named(model):
    with pytest.raises(InputTypeError, match="first_frame must be a uint8"):
        World(model).reset(first_frames(1).astype(np.float32), first_poses(1))
    with pytest.raises(StateError, match="call reset first"):
        World(model).step(first_poses(1)[:, None])
    with pytest.raises(InputError, match="cam2world must be"):
        started(model).step(first_poses(1))
