"""The training stages run on tiny models of the real classes, train what they say, and resume exactly."""

import json
import math

import numpy as np
import pytest
import torch

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.geometry import from_yaw_pitch, rescale_intrinsics, yaw_sweep
from mirage_sim.training.depth import train_depth
from mirage_sim.training.generator import prepare_stage, train_generator
from mirage_sim.training.loop import StageConfig, learning_rate_factor
from mirage_sim.training.samples import LatentClips, SamplesConfig, draw_sample, read_frames
from tests.models import tiny_world_model

QUICK = StageConfig(steps=3, batch_size=2, validate_every=3, log_every=1, warmup=1)


def clips(count: int = 3, length: int = 12) -> LatentClips:
    rng = torch.Generator().manual_seed(0)
    turn = yaw_sweep(from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]), torch.tensor(0.0)), 60.0, length - 1)
    return LatentClips(
        torch.randn(count, length, 4, 4, 4, generator=rng).half(),
        1.0 + 3.0 * torch.rand(count, length, 4, 4, generator=rng),
        turn.expand(count, -1, -1, -1),
        rescale_intrinsics(tiny_world_model().intrinsics(), 1 / 8),
    )


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, torch.Tensor], module: torch.nn.Module) -> set[str]:
    after = module.state_dict()
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize(
    ("stage", "trained"),
    [("backbone", {"backbone"}), ("branch", {"branch"}), ("lora", {"branch", "backbone"})],
)
def test_each_stage_trains_what_it_says(tmp_path, stage, trained):
    model = tiny_world_model()
    model.generator.branch.start_from(model.generator.backbone)
    before = weights(model.generator)
    train_generator(stage, model, clips(), clips(), QUICK, tmp_path)
    assert changed(before, model.generator) == trained
    lines = [json.loads(line) for line in (tmp_path / f"{stage}.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert {"validation_known", "validation_unknown"} <= set(lines[-1])
    assert (tmp_path / f"{stage}.png").stat().st_size > 1000


def test_an_interrupted_stage_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    straight = tiny_world_model()
    train_depth(straight, clips(), clips(), QUICK, tmp_path / "a")

    broken = tiny_world_model()
    always = StageConfig(
        steps=3, batch_size=2, validate_every=3, log_every=1, warmup=1, checkpoint_seconds=0.0
    )
    calls = []
    real = draw_sample

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("mirage_sim.training.depth.draw_sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_depth(broken, clips(), clips(), always, tmp_path / "b")
    monkeypatch.setattr("mirage_sim.training.depth.draw_sample", real)
    fresh = tiny_world_model()
    train_depth(fresh, clips(), clips(), always, tmp_path / "b")
    for name, value in fresh.depth_head.state_dict().items():
        torch.testing.assert_close(value, straight.depth_head.state_dict()[name])


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    train_depth(tiny_world_model(), clips(), clips(), QUICK, tmp_path)
    other = StageConfig(steps=4, batch_size=2)
    with pytest.raises(FileFormatError, match="another folder"):
        train_depth(tiny_world_model(), clips(), clips(), other, tmp_path)


def test_samples_are_drawn_from_the_seed_alone():
    first, second = (draw_sample(clips(), 4, SamplesConfig(), np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first.read.latents, second.read.latents)
    assert torch.equal(first.target, second.target)


def test_memory_dropout_leaves_nothing_to_read():
    sample = draw_sample(clips(), 4, SamplesConfig(memory_dropout=1.0), np.random.default_rng(0))
    assert not sample.read.mask.any()


def test_reading_the_very_frame_gives_its_tokens_back():
    given = clips()
    latents, pose = given.latents[:2, :1].float(), given.cam2world[:2, :1]
    read = read_frames(latents, given.depth[:2, :1], pose, pose, given.intrinsics)
    known = read.mask[:, :, None].expand_as(latents)
    assert read.mask.float().mean() > 0.5
    assert torch.equal(read.latents[known], latents[known])


def test_the_rate_rises_then_falls():
    config = StageConfig(steps=100, warmup=10)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 0.06


def test_unknown_stages_are_named():
    with pytest.raises(InputError, match="stage must be one of"):
        prepare_stage(tiny_world_model(), "magic")
