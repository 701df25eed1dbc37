"""The baselines behind the memory protocol: what they keep, what they show, and that they run in a world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.baselines.appended import AppendedTokens
from mirage_sim.baselines.colour_points import ColourPoints
from mirage_sim.baselines.config import KINDS
from mirage_sim.baselines.memories import VOXELS, make_memory
from mirage_sim.baselines.retrieved import RetrievedFrames
from mirage_sim.baselines.stores import StoredMemory
from mirage_sim.baselines.weights import load_baseline, save_baseline, shared_digest, with_own_parts
from mirage_sim.checkpoints import load_world_model
from mirage_sim.errors import FileFormatError, InputError, StateError
from mirage_sim.geometry import rescale_intrinsics
from mirage_sim.memory import MemoryConfig
from mirage_sim.model.world_model import WorldModel
from mirage_sim.world import World
from tests.memory.rooms import CHANNELS, HW, box_depth, camera, circle, intrinsics, latents
from tests.models import tiny_world_model

POSE = camera()[None, None]
SIZE = 8 * HW[0]


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return tiny_world_model(SIZE, SIZE)


def make(kind: str, model: WorldModel, worlds: int = 1) -> StoredMemory:
    if kind != "colours":
        made = AppendedTokens if kind == "appended" else RetrievedFrames
        return made(MemoryConfig(channels=CHANNELS), worlds, "cpu")
    return ColourPoints(model.codec, model.config.memory, worlds, "cpu", 0.02)


def write(memory: StoredMemory, poses: torch.Tensor, seed: int = 0) -> None:
    """Write views [T, 4, 4] of the box to every world."""
    cameras = poses[None].expand(memory.num_worlds, *poses.shape)
    lens = intrinsics(*cameras.shape[:2])
    pixels = rescale_intrinsics(lens[0, 0], 8.0)
    fine = box_depth(cameras, hw=(SIZE, SIZE), matrix=pixels)
    chance = torch.Generator().manual_seed(seed)
    frames = 2 * torch.rand(*cameras.shape[:2], 3, SIZE, SIZE, generator=chance) - 1
    told = latents(seed, *cameras.shape[:2])
    memory.write(told, box_depth(cameras), cameras, lens, frames=frames, frame_depth=fine)


def test_memories_are_made_by_name(model: WorldModel) -> None:
    kinds = {"appended": AppendedTokens, "retrieved": RetrievedFrames, **dict.fromkeys(VOXELS, ColourPoints)}
    for name, kind in kinds.items():
        memory = make_memory(name, model.codec, model.config.memory, 2)
        assert type(memory) is kind
        assert memory.num_worlds == 2
    with pytest.raises(InputError, match=r"name must be among .*, got 'latent'"):
        make_memory("latent", model.codec, model.config.memory, 2)


def test_appended_tokens_come_back_as_written_and_are_never_told_exactly(model: WorldModel) -> None:
    memory = make("appended", model)
    write(memory, POSE[0])
    read = memory.read(POSE, intrinsics(1, 1), HW)
    assert torch.equal(read.latents, latents(0, 1, 1))
    assert bool(read.mask.all())
    assert torch.allclose(read.depth, box_depth(POSE), atol=1e-4)
    assert not read.view_cos.any()
    write(memory, POSE[0], seed=1)
    assert int(memory.stats().entries) == 2 * HW[0] * HW[1]
    assert int(memory.stats().bytes) == 2 * HW[0] * HW[1] * (2 * CHANNELS + 12)


def test_colour_points_show_the_picture_and_stop_growing(model: WorldModel) -> None:
    memory = make("colours", model)
    walk = circle(12)
    sizes = []
    for lap in range(3):
        write(memory, walk, seed=lap)
        sizes.append(int(memory.stats().entries))
    assert sizes[0] == sizes[1] == sizes[2]
    assert int(memory.stats().bytes) == 15 * sizes[0]
    again = make("colours", model)
    write(again, POSE[0])
    pixels = rescale_intrinsics(intrinsics(1, 1), 8.0)
    view = again.draw(POSE, pixels, (SIZE, SIZE), torch.ones(1, dtype=torch.bool))  # type: ignore[attr-defined]
    assert float(view.hit.float().mean()) > 0.7
    true = box_depth(POSE, hw=(SIZE, SIZE), matrix=pixels[0, 0])
    assert torch.allclose(view.depth[view.hit], true[view.hit], rtol=0.05)
    read = again.read(POSE, intrinsics(1, 1), HW)
    assert bool(read.mask.all())
    assert torch.allclose(read.latents, model.codec.encode(view.picture), atol=1e-5)


def test_a_nearer_look_counts_as_finer(model: WorldModel) -> None:
    """Half as far from a wall, its points fall into a quarter of the pixels: a log scale of log 2."""
    memory = make("colours", model)
    write(memory, camera()[None])
    near = camera(2.0)[None, None]
    scale = memory.read(near, intrinsics(1, 1), HW).log_scale[0, 0, 7:9, 7:9]
    assert float(scale.mean()) == pytest.approx(np.log(2.0), abs=0.25)


def test_colour_points_need_pictures(model: WorldModel) -> None:
    with pytest.raises(StateError, match="colour points need frames"):
        make("colours", model).write(latents(0, 1, 1), box_depth(POSE), POSE, intrinsics(1, 1))
    with pytest.raises(InputError, match="voxel must be positive"):
        ColourPoints(model.codec, model.config.memory, 1, "cpu", 0.0)


def test_frames_are_retrieved_by_what_they_see(model: WorldModel) -> None:
    memory = make("retrieved", model)
    turn = torch.stack([camera(yaw=0.5 * step) for step in range(6)])
    write(memory, turn)
    write(memory, turn[2:3], seed=1)  # seen from there before
    assert int(memory.stats().entries) == 6
    found = memory.references(camera(yaw=0.9)[None], intrinsics(1), HW, 2)
    assert found.index[0].tolist() == [2, 1]
    assert torch.equal(found.views[0, 2], latents(0, 1, 6)[0, 2])
    away = memory.references(camera(yaw=-1.8)[None], intrinsics(1), HW, 2)
    assert not away.valid.any()
    assert not make("retrieved", model).references(camera()[None], intrinsics(1), HW, 2).valid.any()


@pytest.mark.parametrize("kind", KINDS)
def test_worlds_do_not_depend_on_each_other(kind: str, model: WorldModel) -> None:
    both = make(kind, model, 2)
    write(both, POSE[0])
    one = both.fork([1, 1, 0])
    both.reset(torch.tensor([False, True]))
    assert both.stats().entries.tolist() == [one.stats().entries[0], 0]
    lens = intrinsics(2, 1)
    read = both.read(POSE.expand(2, 1, 4, 4), lens, HW)
    assert read.mask.flatten(1).any(dim=1).tolist() == [kind != "retrieved", False]
    both.load_state_dict(one.fork([0, 2]).state_dict())
    assert torch.equal(both.read(POSE.expand(2, 1, 4, 4), lens, HW).latents[1], read.latents[0])
    with pytest.raises(InputError, match="state must hold"):
        both.load_state_dict({})
    with pytest.raises(InputError, match="as many different worlds"):
        both.assign([0, 0], one, [0, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_world_runs_is_saved_and_goes_on(kind: str, model: WorldModel, tmp_path: Path) -> None:
    def begin() -> World:
        settings = model.with_settings(references=1)
        return World(settings, 2, make_memory=lambda count: make(kind, model, count))

    world = begin()
    rng = np.random.default_rng(0)
    start = camera().expand(2, 4, 4)
    depth = box_depth(start, hw=(SIZE, SIZE), matrix=model.intrinsics())
    world.reset(rng.integers(0, 255, (2, SIZE, SIZE, 3), dtype=np.uint8), start, depth=depth)
    ahead = camera(0.2, yaw=0.1).expand(2, 1, 4, 4)
    segment = world.step(ahead)
    assert (float(segment.coverage.mean()) > 0.5) == (kind != "retrieved")
    other = begin()
    for row in range(2):
        world.save(tmp_path / str(row), row)
        other.load(tmp_path / str(row), row)
    beyond = camera(0.4, yaw=0.2).expand(2, 1, 4, 4)
    assert np.array_equal(world.step(beyond).frames, other.step(beyond).frames)
    assert torch.equal(world.fork([0, 1]).step(ahead).latents, world.step(ahead).latents)


def test_own_weights_come_back_and_others_are_refused(model: WorldModel, tmp_path: Path) -> None:
    own = with_own_parts(model, "colours")
    with torch.no_grad():
        own.resampler.last.weight.add_(1.0)
    assert not torch.equal(own.resampler.last.weight, model.resampler.last.weight)
    path = tmp_path / "colours.safetensors"
    save_baseline(own, "colours", shared_digest(model), path)
    loaded = load_baseline(model, "colours", path)
    for name, tensor in loaded.resampler.state_dict().items():
        assert torch.allclose(tensor, own.resampler.state_dict()[name], rtol=1e-2), name
    assert loaded.codec is model.codec
    with pytest.raises(FileFormatError, match="must belong to this model's codec and backbone"):
        load_baseline(tiny_world_model(SIZE, SIZE, seed=1), "colours", path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FileFormatError, match="must hold the weights of the baseline 'colours'"):
        load_baseline(model, "colours", path)


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_weights_belong_to_the_embedded_model(kind: str) -> None:
    model = load_world_model("embedded")
    own = load_baseline(model, kind)
    assert own.config.extras == (kind != "appended")
    assert own.config.references == (kind == "retrieved")
    assert (own.generator.backbone is model.generator.backbone) == (kind != "retrieved")
    assert (own.generator.branch is model.generator.branch) == (kind == "retrieved")
