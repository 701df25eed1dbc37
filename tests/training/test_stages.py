"""The training stages run on tiny models of the real classes, train what they say, and resume exactly."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim import load_world_model
from mirage_sim.cli.main import main
from mirage_sim.errors import FileFormatError, InputError, StateError
from mirage_sim.geometry import from_yaw_pitch, rescale_intrinsics, yaw_sweep
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.refiner import Refiner, output_scales
from mirage_sim.training.codec import move_first, random_images, random_moves, train_codec
from mirage_sim.training.config import StageConfig
from mirage_sim.training.data import Clips
from mirage_sim.training.depth import train_depth
from mirage_sim.training.distil import landing, train_distil
from mirage_sim.training.generator import prepare_stage, train_generator
from mirage_sim.training.guide import guided, load_guide, train_guide
from mirage_sim.training.loop import learning_rate_factor
from mirage_sim.training.precision import mixed_precision
from mirage_sim.training.refine import Draft, make_drafts, refine_loss, train_refine
from mirage_sim.training.resample import keep_drawn, known_error, train_resample
from mirage_sim.training.samples import LatentClips, SamplesConfig, draw_sample, encode_clips, read_frames
from mirage_sim.training.stages import MODEL_STAGES
from tests.models import tiny_world_model

QUICK = StageConfig(steps=3, batch_size=2, validate_every=3, log_every=1, warmup=1)
NOTHING_KNOWN = SamplesConfig(memory_dropout=1.0)


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
    [
        ("backbone", {"backbone"}),
        ("branch", {"branch"}),
        ("lora", {"branch", "backbone"}),
        ("finetune", {"branch", "backbone"}),
    ],
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
    assert "validation_unknown" in lines[-1]
    assert (tmp_path / f"{stage}.png").stat().st_size > 1000


def pictures(count: int = 2, length: int = 3, size: int = 64) -> Clips:
    rgb = np.random.default_rng(0).integers(0, 256, (count, length, size, size, 3), dtype=np.uint8)
    depth, poses = np.ones((count, length, 8, 8), np.float32), np.zeros((count, length, 4, 4), np.float32)
    return Clips(rgb, depth, poses, np.eye(3, dtype=np.float32), np.arange(count))


def test_the_codec_learns_and_its_latents_are_normalised(tmp_path):
    codec = tiny_world_model().codec
    before = weights(codec.autoencoder)
    train_codec(codec, pictures(), pictures(), QUICK, tmp_path)
    assert changed(before, codec.autoencoder) == {"encoder", "decoder"}
    latents = codec.encode(frames_to_tensor(pictures().rgb[:, 0])[:, None])
    torch.testing.assert_close(latents.mean(dim=(0, 1, 3, 4)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std(dim=(0, 1, 3, 4)), torch.ones(4), atol=1e-2, rtol=0)
    last = json.loads((tmp_path / "codec.jsonl").read_text().splitlines()[-1])
    assert {"validation_psnr", "validation_sharpness"} <= set(last)


def test_latents_are_kept_while_the_encoder_is_the_same(tmp_path):
    model, path = tiny_world_model(), tmp_path / "latents.safetensors"
    first = encode_clips(model, pictures(), path).latents
    made = path.stat().st_mtime_ns
    next(model.codec.autoencoder.decoder.parameters()).add_(1.0)
    assert torch.equal(encode_clips(model, pictures(), path).latents, first)
    assert path.stat().st_mtime_ns == made
    next(model.codec.autoencoder.encoder.parameters()).add_(1.0)
    assert not torch.equal(encode_clips(model, pictures(), path).latents, first)
    with pytest.raises(FileFormatError, match="must hold latents of"):
        encode_clips(model, pictures(count=3), path)


def test_moving_latents_is_moving_pictures():
    moves = random_moves(3, 8, np.random.default_rng(0))
    assert moves[:, 0, 0].log().abs().max() <= math.log(1.3) + 1e-6
    ramp = torch.linspace(-1, 1, 64).expand(3, 1, 64, 64)  # the value is the place
    small = torch.nn.functional.avg_pool2d(ramp, 8)
    moved = torch.nn.functional.avg_pool2d(move_first(ramp, moves), 8)
    inside = (slice(None), slice(None), slice(2, 6), slice(2, 6))
    torch.testing.assert_close(move_first(small, moves)[inside], moved[inside], atol=1e-3, rtol=0)
    assert torch.equal(move_first(ramp, moves[:1])[1:], ramp[1:])


def test_the_refiner_learns_from_unknown_cells_alone(tmp_path):
    model = tiny_world_model()
    before, generator = weights(model.refiner), weights(model.generator)
    train_refine(model, clips(), clips(), QUICK, tmp_path, NOTHING_KNOWN)
    assert changed(before, model.refiner) == {"first", "descend", "shrink", "grow", "ascend", "last"}
    assert changed(generator, model.generator) == set()
    last = json.loads((tmp_path / "refine.jsonl").read_text().splitlines()[-1])
    assert {"validation_draft", "validation_imagined", "validation_contrast"} <= set(last)


def noise_free_draft(count: int = 4) -> tuple[Draft, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, count, 1, 4, 4, 4, generator=rng)
    known = torch.rand(count, 1, 4, 4, generator=rng) < 0.3
    return Draft(target.clone(), known, torch.randn(count, 6, 4, 4, generator=rng), target), noise[:, 0]


def test_all_steps_land_at_what_a_teacher_sure_of_it_says():
    draft, noise = noise_free_draft()
    answer = torch.randn(noise.shape, generator=torch.Generator().manual_seed(1))

    def teacher(noisy, share, latents, known, geometry):
        return torch.where(known, latents, answer)

    expected = teacher(noise, None, draft.latents[:, 0], draft.known, None)
    for passes, left, steps in ((1, 1.0, 1), (1, 1.0, 4), (3, 2 / 3, 3)):
        wanted = landing(teacher, draft, noise, torch.full((4, 1, 1, 1), left), passes, steps)
        torch.testing.assert_close(wanted, expected, atol=1e-4, rtol=1e-4)


def test_one_pass_lands_where_many_small_steps_do():
    refiner = tiny_world_model().refiner
    draft, noise = noise_free_draft()
    fine = refiner.refine(draft.latents, draft.known, draft.geometry, noise[:, None], 200)[:, 0]
    apart = []
    for steps in (1, 8):
        there = noise
        for left in (2, 1):
            wanted = landing(refiner, draft, there, torch.full((4, 1, 1, 1), left / 2), 2, steps)
            there = torch.lerp(wanted, there, (left - 1) / left)
        apart.append(float((there - fine).abs().max()))
    coarse = refiner.refine(draft.latents, draft.known, draft.geometry, noise[:, None], 2)[:, 0]
    apart.append(float((coarse - fine).abs().max()))
    assert apart[1] < 0.1 * apart[2]
    assert apart[1] < 0.5 * apart[0] < 0.5 * apart[2]


def test_the_refiner_learns_to_need_fewer_passes(tmp_path):
    model = tiny_world_model()
    before, generator = weights(model.refiner), weights(model.generator)
    with pytest.raises(FileFormatError, match=r"must hold guide\.safetensors: train the stage `guide` first"):
        train_distil(model, clips(), clips(), QUICK, tmp_path, NOTHING_KNOWN)
    train_guide(model, clips(), clips(), QUICK, tmp_path, NOTHING_KNOWN)
    assert changed(before, model.refiner) == set()
    train_distil(model, clips(), clips(), QUICK, tmp_path, NOTHING_KNOWN)
    assert changed(before, model.refiner) == {"first", "descend", "shrink", "grow", "ascend", "last"}
    assert changed(generator, model.generator) == set()
    lines = [json.loads(line) for line in (tmp_path / "distil.jsonl").read_text().splitlines()]
    assert all(line["loss"] > 0 for line in lines)
    last = lines[-1]
    assert {"validation_imagined", "validation_contrast", "validation_frechet"} <= set(last)
    none = model.with_settings(sampler=replace(model.config.sampler, refine_steps=0))
    with pytest.raises(InputError, match="refine_steps must be at least 1 to be taught, got 0"):
        train_distil(none, clips(), clips(), QUICK, tmp_path)


def test_a_guide_is_kept_as_it_was_trained(tmp_path):
    model = tiny_world_model()
    train_guide(model, clips(), clips(), QUICK, tmp_path, NOTHING_KNOWN)
    kept, again = load_guide(model, tmp_path), load_guide(model, tmp_path)
    assert changed(weights(kept), again) == set()
    assert float(kept.last.weight.abs().max()) > 0  # it was zero before training
    assert sum(p.numel() for p in kept.parameters()) < sum(p.numel() for p in model.refiner.parameters())
    wider = model.with_settings(refiner=replace(model.config.refiner, widths=(16, 16)))
    wider.refiner = Refiner(wider.config.refiner)
    with pytest.raises(FileFormatError, match="must be a guide of this refiner"):
        load_guide(wider, tmp_path)
    path = tmp_path / "guide.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match="must be a guide of this refiner"):
        load_guide(model, tmp_path)


def test_guidance_goes_on_beyond_the_refiner_and_leaves_known_cells_alone():
    model, (draft, noise) = tiny_world_model(), noise_free_draft()
    seen = (noise, torch.full((4, 1, 1, 1), 0.5), draft.latents[:, 0], draft.known, draft.geometry)
    other = tiny_world_model(seed=1).refiner
    ours, theirs = model.refiner(*seen), other(*seen)
    told = guided(model.refiner, other, 2.0)(*seen)
    torch.testing.assert_close(told, ours + (ours - theirs), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(told, ours)
    known = draft.known.expand_as(told)
    assert torch.equal(told[known], draft.latents[:, 0][known])
    assert torch.equal(guided(model.refiner, other, 1.0)(*seen), ours)


def test_crops_are_cut_out_of_frames():
    frames = torch.arange(2 * 3 * 70 * 80 * 3, dtype=torch.int64).remainder(251).to(torch.uint8)
    frames = frames.reshape(2, 3, 70, 80, 3)
    images, _ = random_images(frames, 8, np.random.default_rng(0))
    assert images.shape == (8, 3, 64, 64)
    whole = frames.movedim(-1, -3).flatten(0, 1).unfold(2, 64, 1).unfold(3, 64, 1)  # [6, 3, 7, 17, 64, 64]
    windows = torch.cat([whole, whole.flip(-1)]).movedim(1, 3).flatten(0, 2)  # [N, 3, 64, 64]
    for image in images.add(1).mul(127.5).round().to(torch.uint8):
        assert bool((windows == image).flatten(1).all(dim=1).any())


def test_drafts_are_drawn_once_and_picked_by_row():
    drafts = make_drafts(tiny_world_model(), clips(), 5, 3, SamplesConfig(memory_dropout=0.0), 0)
    assert len(drafts.known) == 6
    assert drafts.target.dtype == torch.float16
    picked = drafts.pick(torch.tensor([0, 2, 5]))
    for part, all_of_it in zip(vars(picked).values(), vars(drafts).values(), strict=True):
        assert torch.equal(part, all_of_it[[0, 2, 5]].to(part.dtype))
    assert picked.known.dtype == torch.bool
    assert 0 < picked.known.float().mean() < 1


def test_the_refiners_loss_is_one_for_the_best_guess_from_noise_alone():
    rng = torch.Generator().manual_seed(0)
    target, noise = torch.randn(2, 64, 1, 4, 8, 8, generator=rng)
    known = torch.rand(64, 1, 8, 8, generator=rng) < 0.5
    draft = Draft(torch.zeros_like(target), known, torch.zeros(64, 6, 8, 8), target)

    def guess(noisy, share, latents, known, geometry):
        return torch.where(known, 99.0, output_scales(share)[0] * noisy)

    share = torch.rand(64, 1, 1, 1, generator=rng)
    noisy = torch.lerp(target[:, 0], noise[:, 0], share)
    loss = refine_loss(guess, draft, noisy, share, target[:, 0])
    assert float(loss) == pytest.approx(1.0, abs=0.03)


def test_the_resampler_learns_from_known_cells_alone(tmp_path):
    model = tiny_world_model()
    before, generator = weights(model.resampler), weights(model.generator)
    train_resample(model, clips(), clips(), QUICK, tmp_path)
    assert changed(before, model.resampler) == {"first", "blocks", "last"}
    assert changed(generator, model.generator) == set()
    last = json.loads((tmp_path / "resample.jsonl").read_text().splitlines()[-1])
    assert last["validation_as_read"] > 0
    read = draw_sample(clips(), 2, SamplesConfig(memory_dropout=0.0), np.random.default_rng(0)).read
    target = read.latents + 1.0
    assert 0 < read.mask.float().mean() < 1
    assert known_error(read.latents, target, read) == 1.0
    wrong = torch.where(read.mask[:, :, None], target, 9.0)
    assert known_error(wrong, target, read) == 0.0


def test_frames_are_kept_as_they_were_drawn_and_read_again():
    data = clips()
    data = replace(data, redrawn=torch.full_like(data.latents, 5.0))
    samples = SamplesConfig(memory_dropout=0.0, redrawn=1.0, token_noise=0.0)
    sample = draw_sample(data, 2, samples, np.random.default_rng(0))
    known = sample.read.mask[:, :, None].expand_as(sample.target)
    assert sample.read.latents[known].unique().tolist() == [5.0]
    keep_drawn(data, sample, sample.target + 1.0)
    kept = data.redrawn[sample.place][:, None].float()
    torch.testing.assert_close(kept[known], sample.target[known] + 1.0, atol=0.01, rtol=0)
    assert torch.equal(kept[~known], sample.target[~known])
    assert (data.redrawn == 5.0).sum() == data.redrawn.numel() - kept.numel()
    with pytest.raises(StateError, match="redrawn"):
        keep_drawn(clips(), sample, sample.target)


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
    assert sample.preceding is not None


def test_with_a_memory_the_preceding_frame_is_left_out():
    sample = draw_sample(clips(), 4, SamplesConfig(memory_dropout=0.0), np.random.default_rng(0))
    assert sample.read.mask.any()
    assert sample.preceding is None


def test_a_revisited_frame_is_remembered_as_it_is():
    config = SamplesConfig(memory_dropout=0.0, revisit=1.0, missing=0.0, depth_noise=0.0, edge_threshold=10.0)
    sample = draw_sample(clips(), 4, config, np.random.default_rng(1))
    exact = (
        sample.read.mask & (sample.read.offset.abs().amax(2) < 0.01) & (sample.read.log_scale.abs() < 0.01)
    )
    assert exact.float().mean() > 0.5
    exact = exact[:, :, None].expand_as(sample.target)
    assert torch.equal(sample.read.latents[exact], sample.target[exact])


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


@pytest.mark.parametrize("native", [True, False])
def test_training_mixes_in_bf16_where_that_is_native(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: native)
    with mixed_precision(torch.device("cpu")):
        product = torch.ones(4, 4) @ torch.ones(4, 4)
    assert product.dtype == (torch.bfloat16 if native else torch.float32)


def test_only_a_run_whose_stages_were_all_trained_is_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["train", "export", "--out", str(out), "--to", str(tmp_path / "to")]
    tiny_world_model().save(out / "model")
    for stage in MODEL_STAGES[:-1]:
        (out / f"{stage}.jsonl").write_text("")
    (out / "codec" / "00000004").mkdir(parents=True)
    (out / "codec" / "00000004" / "run.json").write_text('{"step": 4, "about": {"steps": 9}}')
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "codec (interrupted after 4 of 9 steps), distil; --allow-untrained" in told
    assert not (tmp_path / "to").exists()
    assert main([*words, "--allow-untrained"]) == 0
    assert "distil" in capsys.readouterr().out
    assert load_world_model(tmp_path / "to").config.model_id == "tiny"
    (out / "codec" / "00000004" / "run.json").write_text('{"step": 9, "about": {"steps": 9}}')
    (out / "distil.jsonl").write_text("")
    assert main(words) == 0
