"""Training at full size: tiny networks of the real classes on clips that their codec encoded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mirage_sim import load_world_model
from mirage_sim.checkpoints import build_codec, open_checkpoint, save_checkpoint
from mirage_sim.errors import FileFormatError, InputError, StateError
from mirage_sim.evaluation.whole_size import Room, walk
from mirage_sim.geometry import interpolate_poses, make_intrinsics
from mirage_sim.model.config import LoRAConfig
from mirage_sim.perception import Seen
from mirage_sim.sources import EncodeConfig, encode_source
from mirage_sim.sources.latents import LatentFile
from mirage_sim.text.stored import save_embeddings
from mirage_sim.training import full_size
from mirage_sim.training.config import FullSizeConfig, SequencesConfig, StageConfig
from mirage_sim.training.full_size import DepthIsKnown, open_to_train, train_full_size
from mirage_sim.training.sequences import Sequences
from tests.full_size import write_full_size
from tests.sources.layouts import Memory, make_clip

HW, FRAMES = (64, 96), 33
CONFIG = StageConfig(steps=2, batch_size=1, warmup=1, ema=0.0, log_every=1, validate_every=2)
QUIET = FullSizeConfig(recompute=False)


def room_clip(name: str, seed: int, depth: bool = True) -> Any:
    """A walk through an empty room, in noise."""
    cameras = interpolate_poses(walk(8), torch.arange(9), torch.linspace(0.0, 8.0, FRAMES))
    lens = make_intrinsics(*HW, 75.0).expand(FRAMES, 3, 3)
    room = Room()
    room.cameras = cameras
    pixels = torch.zeros(FRAMES, 1, *HW)
    told = room.estimate(Seen(pixels, pixels, pixels[:, 0], pixels[:, 0] > 0, None, lens)).depth
    clip = make_clip(FRAMES, HW, name, depth=told.numpy() if depth else None)
    frames = np.random.default_rng(seed).integers(0, 256, (FRAMES, *HW, 3), dtype=np.uint8)
    return replace(clip, frames=frames, cam2world=cameras.numpy(), intrinsics=lens.contiguous().numpy())


def encode(folder: Path, path: Path, *clips: Any) -> Path:
    codec = build_codec(open_checkpoint(folder), "cpu", torch.float32)
    encode_source(Memory(*clips), "test", codec, EncodeConfig(*HW, frames=FRAMES), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("full")
    folder = write_full_size(place / "wan")
    return folder, encode(folder, place / "clips.h5", room_clip("a", 0), room_clip("b c/d", 1))


def opened(files: tuple[Path, Path], length: int = 2, branch: Path | None = None) -> Any:
    return open_to_train(*files, branch=branch, segment_length=length, prompt_tokens=6)


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_a_sequence_is_what_a_world_would_see(files):
    model, clips = opened(files)
    drawn = Sequences(model, clips)
    clip, first = clips.clip(0), 4
    sequence = drawn.lay_out([clip], [first], np.random.default_rng(3))
    assert torch.equal(sequence.preceding[0], clip.latents[1:3].float())
    assert torch.equal(sequence.overlap[0], clip.latents[3:4].float())
    assert torch.equal(sequence.target[0], clip.latents[4:6].float())
    assert sequence.condition.shape[:2] == (1, 1 + 2 + 2)
    assert sequence.context.shape == (1, 6, model.config.generator.context_dim)
    # Where it stood last, the memory shows tokens of frames that were there, as far as 8 bit can tell.
    read = sequence.condition[0, 0, : model.config.generator.channels]
    known = read.abs().sum(dim=0) > 0
    assert float(known.float().mean()) > 0.9
    held = clip.latents[[0, 1, 2, 3, 6, 7, 8]].float().movedim(1, -1).flatten(0, 2)  # [N, C]
    apart = (read[:, known].T[:, None] - held[None]).abs() / held.abs().clamp(min=0.1)
    assert float(apart.amax(dim=-1).amin(dim=1).max()) < 1 / 16


def test_before_its_first_frame_a_clip_is_at_rest(files):
    model, clips = opened(files)
    clip, channels = clips.clip(0), model.config.generator.channels
    sequence = Sequences(model, clips).lay_out([clip], [1], np.random.default_rng(1))
    still = clip.latents[[0, 0]].float()
    assert torch.equal(sequence.preceding[0], still)
    assert torch.equal(sequence.overlap[0], still[:1])
    assert torch.equal(sequence.target[0], clip.latents[1:3].float())
    resting = sequence.condition[0, [0, 3, 4], :channels]  # the frame that overlaps, and both before it
    assert torch.equal(resting[0], resting[1])
    assert torch.equal(resting[0], resting[2])


def test_what_is_to_be_learnt_is_not_in_the_memory(files):
    model, clips = opened(files)
    clip = clips.clip(0)
    marked = clip.latents.clone()
    marked[4:6] = 100.0
    drawn = Sequences(model, clips)
    for seed in range(4):
        sequence = drawn.lay_out([replace(clip, latents=marked)], [4], np.random.default_rng(seed))
        assert float(sequence.condition[:, :, : model.config.generator.channels].abs().max()) < 50.0
        assert sequence.references is None or float(sequence.references.abs().max()) < 50.0


def test_a_batch_sees_as_many_references_as_its_poorest(files):
    model, clips = opened(files)
    drawn, rich = Sequences(model, clips), clips.clip(0)
    poor = replace(rich, depth=torch.zeros_like(rich.depth))
    alone = drawn.lay_out([rich], [5], np.random.default_rng(0))
    assert alone.references is not None
    assert drawn.lay_out([rich, poor], [5, 5], np.random.default_rng(0)).references is None
    both = drawn.lay_out([rich, rich], [5, 5], np.random.default_rng(0))
    assert both.references is not None
    assert both.references.shape[0] == 2


@pytest.mark.parametrize("stage", ["branch", "lora"])
def test_a_stage_trains_its_part_and_exports_it(files, tmp_path, stage):
    model, clips = opened(files)
    if stage == "lora":
        torch.nn.init.normal_(model.generator.branch.after_proj[0].weight, std=0.1)
    before = state(model.generator)
    written = train_full_size(stage, model, clips, clips, CONFIG, tmp_path, QUIET)
    after = {name.replace(".base_layer.", "."): value for name, value in state(model.generator).items()}
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert all(name.startswith("branch.") for name in changed)
    assert bool(changed) == (stage == "branch")
    again = load_world_model(
        files[0],
        depth=DepthIsKnown(),
        height=HW[0],
        width=HW[1],
        prompt_tokens=6,
        **{"branch": written} if stage == "branch" else {"adapters": written},
    )
    if stage == "lora":
        again.generator.branch.load_state_dict(model.generator.branch.state_dict())
    model.cast(model.dtype).eval()
    given = Sequences(model, clips).draw(1, np.random.default_rng(0))
    rest = (given.context, given.preceding, None, given.condition)
    whole = torch.cat([given.overlap, given.target], dim=1)
    sigma = torch.ones(1, 3, *model.generator.token_grid(model.latent_hw))
    ours, theirs = (m.generator(whole, sigma, *rest) for m in (model, again))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    log = [json.loads(line) for line in (tmp_path / f"{stage}.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2]
    assert np.isfinite([log[1][name] for name in ("loss", "validation", "rollout_psnr")]).all()
    assert (tmp_path / f"{stage}-rollout.png").stat().st_size > 1000
    assert (tmp_path / f"{stage}.png").is_file()


def test_a_new_branch_may_see_what_the_published_one_does(files, tmp_path):
    model, clips = open_to_train(*files, published=True, segment_length=2, prompt_tokens=6)
    channels = model.config.generator.channels
    sequence = Sequences(model, clips).draw(1, np.random.default_rng(0))
    assert sequence.condition.shape[2] == 2 * channels
    assert torch.equal(sequence.condition[0, :, channels:], model.constant(5))
    written = train_full_size("branch", model, clips, None, CONFIG, tmp_path, QUIET)
    again, _ = open_to_train(*files, branch=written, segment_length=2, prompt_tokens=6)
    assert again.config.published_condition
    assert load_file(written)["vace_patch_embedding.weight"].shape[1] == 2 * channels


def test_weights_divided_another_way_are_refused(files, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    model, clips = opened(files)
    with pytest.raises(InputError, match="accelerate must be started without FSDP"):
        train_full_size("branch", model, clips, None, CONFIG, tmp_path, QUIET)


def test_recomputed_activations_give_the_same_gradients(files):
    gradients = []
    for recompute in (False, True):
        model, clips = opened(files)
        model.generator.recompute = recompute
        model.generator.branch.requires_grad_(True)
        sequence = Sequences(model, clips).draw(1, np.random.default_rng(0))
        loss = full_size.sequence_loss(model, model.generator, sequence, np.random.default_rng(0))
        loss.backward()
        gradients.append(model.generator.branch.after_proj[1].weight.grad)
    assert float(gradients[0].abs().max()) > 0
    assert torch.equal(*gradients)


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(files, tmp_path, monkeypatch):
    config = replace(CONFIG, steps=4, checkpoint_seconds=0.0, accumulate=2)
    dropout = replace(QUIET, lora=replace(QUIET.lora, dropout=0.5))
    runs = []
    for name, stop in (("whole", None), ("broken", 5)):
        calls = []
        told = full_size.sequence_loss

        def counted(*given: Any, calls=calls, stop=stop, told=told) -> torch.Tensor:
            calls.append(1)
            if len(calls) == stop:
                raise KeyboardInterrupt
            return told(*given)

        def run(place: Path) -> Path:
            model, clips = opened(files)
            return train_full_size("lora", model, clips, None, config, place, dropout)

        with monkeypatch.context() as patched:
            patched.setattr(full_size, "sequence_loss", counted)
            if stop is None:
                runs.append(run(tmp_path / name).read_bytes())
                continue
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / name)
        assert [place.name for place in (tmp_path / name / "lora").iterdir()] == ["00000002"]
        runs.append(run(tmp_path / name).read_bytes())
    assert runs[0] == runs[1]
    logs = [(tmp_path / name / "lora.jsonl").read_text() for name in ("whole", "broken")]
    assert logs[0] == logs[1]


def test_a_run_goes_on_as_it_was_begun_or_not_at_all(files, tmp_path):
    def run(lora: LoRAConfig = QUIET.lora, length: int = 2, **changes: Any) -> Path:
        model, clips = opened(files, length)
        how = replace(QUIET, lora=lora)
        return train_full_size("lora", model, clips, None, replace(CONFIG, **changes), tmp_path, how)

    done = run().read_bytes()
    assert run().read_bytes() == done  # nothing is left to do
    for name, change in (
        ("lora", {"lora": LoRAConfig(32, 64, 0.05)}),
        ("model", {"length": 1}),
        ("warmup", {"warmup": 2}),
    ):
        with pytest.raises(FileFormatError, match=rf"written by another run, .*'{name}'"):
            run(**change)
    kept = tmp_path / "lora" / "00000002" / "0.safetensors"
    kept.write_bytes(kept.read_bytes()[:-100])
    with pytest.raises(FileFormatError, match="00000002 must be a whole checkpoint of a run"):
        run()


def test_weights_with_adapters_are_not_trained_further(files, tmp_path):
    model, clips = opened(files)
    adapters = train_full_size("lora", model, clips, None, CONFIG, tmp_path, QUIET)
    save_checkpoint(open_checkpoint(files[0], adapters=adapters), tmp_path / "ours")
    with pytest.raises(InputError, match="world_model must be without adapters"):
        open_to_train(tmp_path / "ours", files[1])


def test_prompts_are_stored_embeddings_by_video(files, tmp_path):
    model, clips = opened(files)
    width = model.config.generator.context_dim
    for name, value in (("a", 1.0), ("b c%2Fd", 2.0)):
        save_embeddings(tmp_path / f"{name}.safetensors", torch.full((3, width), value))
    told = Sequences(model, clips, SequencesConfig(tmp_path, 0.0))
    for index, value in enumerate((1.0, 2.0)):
        context = told.lay_out([clips.clip(index)], [3], np.random.default_rng(0)).context
        assert torch.equal(context[0, :3], torch.full((3, width), value))
        assert not bool(context[0, 3:].any())
    dropped = Sequences(model, clips, SequencesConfig(tmp_path, 1.0))
    empty = dropped.lay_out([clips.clip(0)], [3], np.random.default_rng(0)).context
    assert torch.equal(
        empty, Sequences(model, clips).lay_out([clips.clip(0)], [3], np.random.default_rng(0)).context
    )
    (tmp_path / "a.safetensors").unlink()
    with pytest.raises(FileFormatError, match=r"a\.safetensors must be a stored embedding"):
        Sequences(model, clips, SequencesConfig(tmp_path))


def test_bad_input_is_told(files, tmp_path):
    model, clips = opened(files)
    with pytest.raises(InputError, match="stage must be one of"):
        train_full_size("finetune", model, clips, None, CONFIG, tmp_path)
    with pytest.raises(InputError, match="height and width must be those of"):
        Sequences(model.with_settings(height=32), clips)
    with pytest.raises(InputError, match="must hold clips of 10 latent frames for segment_length 9, got 9"):
        Sequences(model.with_settings(segment_length=9), clips)
    with pytest.raises(InputError, match="drop_prompt must be in"):
        SequencesConfig(drop_prompt=2.0)
    with pytest.raises(InputError, match="prompts must be a file or a folder"):
        SequencesConfig(tmp_path / "none")
    averaged = replace(CONFIG, ema=0.9)
    with pytest.raises(InputError, match="ema must be 0 where weights are divided"):
        train_full_size("branch", model, clips, None, averaged, tmp_path, FullSizeConfig(shard=True))
    with pytest.raises(InputError, match="rank and alpha must be at least 1"):
        LoRAConfig(rank=0)
    with pytest.raises(InputError, match="log_every must be at least 1"):
        StageConfig(1, log_every=0)
    with pytest.raises(InputError, match="shards must be left out with one process"):
        train_full_size("branch", model, clips, None, CONFIG, tmp_path, FullSizeConfig(shard=True))
    flat = encode(files[0], tmp_path / "flat.h5", room_clip("a", 0, depth=False))
    with pytest.raises(FileFormatError, match="must hold clips with depth, got"):
        Sequences(model, LatentFile(flat))
    with pytest.raises(StateError, match="opened to be trained"):
        model.depth_estimator.estimate(None)
