"""A world of the full size's kind: overlap, hints on what precedes, four pictures a latent frame, prompts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mirage_sim.checkpoints import load_world_model
from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.geometry import from_yaw_pitch, yaw_sweep
from mirage_sim.memory import MemoryRead
from mirage_sim.model.condition import published_condition
from mirage_sim.model.world_model import WorldModel
from mirage_sim.text import save_embeddings
from mirage_sim.world import World
from tests.checkpoints.official import write_official
from tests.full_size import SMALL, TOKENS, write_full_size

PICTURE = np.random.default_rng(0).integers(0, 255, (1, 32, 64, 3), dtype=np.uint8)
WALL = np.full((1, 32, 64), 2.0, np.float32)
POSE = from_yaw_pitch(torch.tensor([[0.0, 0.0, 1.4]]), torch.zeros(1))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> WorldModel:
    home = tmp_path_factory.mktemp("full")
    official = write_official(home / "official")
    files = {"branch": official / "branch.safetensors", "adapters": official / "adapters.safetensors"}
    return load_world_model(write_full_size(home / "model"), dtype=torch.float32, **files, **SMALL)


def started(model: WorldModel, worlds: int = 1, **given: object) -> World:
    world = World(model, worlds)
    every = {"first_frame": PICTURE, "cam2world": POSE, "depth": WALL}
    repeated = {name: value.repeat(worlds, 0) for name, value in every.items() if name != "cam2world"}
    world.reset(**repeated, cam2world=POSE.repeat(worlds, 1, 1), seeds=range(1, worlds + 1), **given)
    return world


def turn(steps: int = 2, worlds: int = 1) -> torch.Tensor:
    """Cameras [steps, B, 2, 4, 4] that turn to the left."""
    sweep = yaw_sweep(POSE[0], 40.0, 2 * steps)[1 : 2 * steps + 1]
    return sweep.unflatten(0, (steps, 1, 2)).expand(-1, worlds, -1, -1, -1)


@pytest.fixture
def calls(model, monkeypatch):
    """What the generator is given."""
    told = []
    forward = model.generator.forward

    def listen(*given):
        told.append([part.clone() if isinstance(part, torch.Tensor) else part for part in given])
        return forward(*given)

    monkeypatch.setattr(model.generator, "forward", listen)
    return told


def test_the_sequence_is_the_papers(model, calls):
    world = started(model)
    before = world.snapshot().context
    world.step(turn()[0])
    target, sigma, context, preceding, references, condition, scale = calls[0]
    assert target.shape == (1, 1 + 2, 4, 4, 8)  # the last one made, and two to come
    assert torch.equal(target[:, 0], before.latents[:, -1])
    assert (sigma[:, 0] == 0).all()
    assert (sigma[:, 1:] > 0).all()
    assert torch.equal(preceding, before.latents[:, :2])
    assert context.shape == (1, TOKENS, 16)
    assert condition.shape == (1, 3 + 2, 8, 4, 8)
    assert scale == 1.0
    assert all(torch.equal(call[0][:, 0], before.latents[:, -1]) for call in calls)  # it stays clean
    assert references is None or references.shape[0] == 1


def test_the_memory_is_hinted_at_where_the_camera_was(model, calls):
    """The clean frame and what precedes look at the wall that was written: all of it is known there."""
    world = started(model)
    world.step(turn()[0])
    read = calls[0][5][:, :, :4]  # the half that was read
    known = (read != 0).any(dim=2).float().mean(dim=(2, 3))[0]  # of each frame
    assert (known[[0, 3, 4]] == 1).all()
    assert (known[1:3] < 1).all()
    constant = calls[0][5][0, :, 4:]
    assert torch.equal(constant, model.constant(5))


def test_hints_have_a_scale(model):
    """Without any the branch might as well not be there; a part of them is something between."""
    frames = [
        started(model.with_settings(hint_scale=scale)).step(turn()[0]).latents for scale in (0.0, 0.5, 1.0)
    ]
    without = model.with_settings()
    without.generator = copy.deepcopy(model.generator)
    for project in without.generator.branch.after_proj:
        project.weight.zero_()
        project.bias.zero_()
    torch.testing.assert_close(started(without).step(turn()[0]).latents, frames[0])
    assert not torch.allclose(frames[0], frames[1])
    assert not torch.allclose(frames[1], frames[2])


def test_the_constant_is_the_codec_of_white(model):
    white = model.codec.encode(torch.ones(1, 1 + 4 * 4, 3, 32, 64))[0].float()
    assert torch.equal(model.constant(5), white)
    assert model.constant(5) is model.constant(5)
    nothing = MemoryRead.nothing(1, 5, model.latent_shape, model.device)
    told = published_condition(nothing, model.constant(5))
    assert (told[:, :, :4] == 0).all()
    assert torch.equal(told[0, :, 4:], white)


def test_four_pictures_a_latent_frame_and_a_first_one_at_rest(model):
    world = started(model)
    first = world.restart(POSE)
    assert first.frames.shape == (1, 8, 32, 64, 3)
    again = World(model).reset(PICTURE, POSE, depth=WALL)
    assert again.frames.shape == (1, 4, 32, 64, 3)
    assert (again.frames[:, :1] == again.frames).all()


def test_what_precedes_a_first_frame_is_the_codec_of_a_video_at_rest(model):
    context = started(model).snapshot().context
    still = torch.from_numpy(PICTURE).permute(0, 3, 1, 2)[:, None].float() / 127.5 - 1.0
    latents = model.codec.encode(still.expand(-1, 9, -1, -1, -1)).float()
    torch.testing.assert_close(context.latents, latents, atol=1e-4, rtol=1e-4)


def test_depth_is_told_from_the_last_picture_of_each_latent_frame(model, monkeypatch):
    seen = []
    estimate = model.estimator.estimate
    monkeypatch.setattr(model.estimator, "estimate", lambda given: (seen.append(given), estimate(given))[1])
    world = started(model)
    frames = world.step(turn()[0]).frames
    pictures = ((seen[-1].frames + 1.0) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    assert np.abs(pictures.astype(int) - frames[0, [3, 7]]).max() <= 1
    lens = model.intrinsics()
    assert torch.equal(seen[-1].intrinsics, lens.expand(2, 3, 3))


def test_what_may_move_is_not_remembered(model, monkeypatch):
    whole = started(model).memory.stats().entries
    everything = torch.ones(1, 4, 8, dtype=torch.bool)
    told = type("Told", (), {"sky": ~everything, "movable": everything})
    monkeypatch.setattr(model.segmenter, "segment", lambda frames, hw: told)
    assert whole.item() > 20
    assert started(model).memory.stats().entries.tolist() == [0]


def test_a_world_goes_on_from_disk_bit_for_bit(model, tmp_path):
    world = started(model, prompts="a kitchen")
    world.step(turn()[0])
    world.save(tmp_path / "saved")
    other = World(model)
    other.load(tmp_path / "saved")
    assert np.array_equal(world.step(turn()[1]).frames, other.step(turn()[1]).frames)


def test_worlds_do_not_depend_on_each_other(model):
    together, alone = started(model, 2), started(model)
    for pair, one in zip(turn(worlds=2), turn(), strict=True):
        frames = together.step(pair).frames[:1], alone.step(one).frames
        assert np.abs(np.subtract(*(each.astype(int) for each in frames))).max() <= 1


def test_a_camera_at_rest_draws_every_frame_anew(model):
    from mirage_sim.world.noise import view_noise

    noise = view_noise(3, POSE.expand(3, 4, 4), (4, 4, 8))
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1], noise[2])
    assert torch.equal(noise[0], view_noise(3, POSE, (4, 4, 8))[0])


def test_a_prompt_changes_what_is_seen_and_may_be_stored(model, tmp_path):
    path = tmp_path / "prompt.safetensors"
    save_embeddings(path, model.text_encoder.encode(["a kitchen"])[0], "a kitchen")
    frames = [started(model, prompts=told).step(turn()[0]).frames for told in (None, "", "a kitchen", path)]
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[1], frames[2])
    assert np.array_equal(frames[2], frames[3])


def test_each_world_may_have_its_own_prompt(model):
    world = started(model, 2, prompts=["a kitchen", torch.zeros(2, 16)])
    prompt = world.snapshot().context.prompt
    assert torch.equal(prompt[0], model.text_encoder.encode(["a kitchen"])[0])
    assert (prompt[1] == 0).all()


@pytest.mark.parametrize(
    ("prompts", "error", "message"),
    [
        (["a", "b"], InputError, "one for each of 1 worlds, got 2"),
        ([3], InputTypeError, "prompts must be texts or embeddings"),
        (torch.zeros(2, 5), InputError, r"embeddings must be \[L, 16\]"),
        (torch.zeros(TOKENS + 1, 16), InputError, "at most 6 tokens"),
    ],
)
def test_prompts_that_do_not_fit_leave_the_world_alone(model, prompts, error, message):
    world = started(model)
    entries = world.memory.stats().entries
    with pytest.raises(error, match=message):
        world.reset(PICTURE, POSE, prompts=prompts)
    assert torch.equal(world.memory.stats().entries, entries)
