"""Loading: a full-size model from what is downloaded, ready to run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.checkpoints import Checkpoint, load_world_model, open_checkpoint, save_checkpoint
from mirage_sim.checkpoints.room import check_room, needed_bytes
from mirage_sim.checkpoints.shapes import codec_arguments
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.evaluation.full_size import full_size_codec
from mirage_sim.geometry import from_yaw_pitch
from mirage_sim.model.backbone import Attention
from mirage_sim.model.config import OFFLOADS, WAN_5B
from mirage_sim.model.full_size import full_size_config
from mirage_sim.model.generator import Generator
from mirage_sim.model.world_model import WorldModel
from mirage_sim.perception import DepthModel, MapAnythingModel
from mirage_sim.world import World
from tests.checkpoints.official import write_official
from tests.full_size import SMALL, write_full_size
from tests.map_anything import install_stand_in, write_stand_in
from tests.models import tiny_world_model

FLOAT = torch.float32
SIDES = ("height", "width")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_full_size(tmp_path_factory.mktemp("full") / "model")


def walk(model) -> np.ndarray:
    """Frames of a first view and a step beside it."""
    world = World(model)
    picture = np.random.default_rng(0).integers(0, 255, (1, 32, 64, 3), dtype=np.uint8)
    pose = from_yaw_pitch(torch.tensor([[0.0, 0.0, 1.4]]), torch.zeros(1))
    first = world.reset(picture, pose, seeds=[1], depth=np.full((1, 32, 64), 2.0, np.float32))
    aside = from_yaw_pitch(torch.tensor([[[0.0, 0.0, 1.4]] * 2]), torch.tensor([[0.1, 0.2]]))
    return np.concatenate([first.frames, world.step(aside).frames], axis=1)


def test_a_diffusers_folder_runs_as_it_is(folder):
    model = load_world_model(folder, dtype=FLOAT, **SMALL)
    assert (model.config.overlap, model.config.references, model.latent_shape) == (1, 4, (4, 4, 8))
    frames = walk(model)
    assert frames.shape == (1, 4 + 8, 32, 64, 3)
    assert frames[:, 4:].std() > 0


def test_every_layout_of_the_same_weights_is_the_same_model(folder, tmp_path):
    checkpoint = open_checkpoint(folder)
    save_checkpoint(checkpoint, tmp_path / "ours")
    beside = {"depth": folder / "depth_estimator", "segmenter": folder / "segmenter"}
    first = load_world_model(folder, dtype=FLOAT, **SMALL)
    second = load_world_model(tmp_path / "ours", dtype=FLOAT, **beside, **SMALL)
    assert first.weights_hash == second.weights_hash != ""
    assert second.text_encoder is None
    first.text_encoder = None
    assert np.array_equal(walk(first), walk(second))


def test_the_published_branch_and_adapters_change_what_is_seen(folder, tmp_path):
    official = write_official(tmp_path / "official")
    files = {"branch": official / "branch.safetensors", "adapters": official / "adapters.safetensors"}
    plain, branched = (load_world_model(folder, dtype=FLOAT, **some, **SMALL) for some in ({}, files))
    assert branched.config.published_condition
    assert branched.config.generator.condition_channels == 2 * plain.config.generator.channels
    assert not np.array_equal(walk(plain), walk(branched))
    assert plain.weights_hash != branched.weights_hash


def test_official_files_without_their_codec(tmp_path):
    official = write_official(tmp_path / "official")
    (official / "Wan2.2_VAE.pth").unlink()
    with pytest.raises(FileFormatError, match="must hold the codec"):
        load_world_model(official, **SMALL)


def test_without_a_depth_estimator_nothing_can_be_remembered(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "depth_estimator")
    with pytest.raises(InputError, match="depth must be the folder of a depth estimator"):
        load_world_model(tmp_path / "model", **SMALL)
    told = load_world_model(tmp_path / "model", depth=folder / "depth_estimator", **SMALL)
    assert told.depth_estimator.needs_frames


def test_the_folder_of_depth_tells_which_estimator_it_holds(folder, tmp_path, monkeypatch):
    install_stand_in(monkeypatch)
    model = load_world_model(folder, dtype=FLOAT, depth=str(write_stand_in(tmp_path)), **SMALL)
    assert isinstance(model.depth_estimator, MapAnythingModel)
    assert walk(model)[:, 4:].std() > 0
    assert isinstance(load_world_model(folder, **SMALL).depth_estimator, DepthModel)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heigth": 32}, r"settings must be among .*height.*got .*heigth"),
        ({"height": 40}, r"height and width must be multiples of \[16, 16\], got 40"),
        ({"overlap": 2}, "overlap must be 0 or 1"),
        ({"preceding_with_memory": False}, "hint_preceding must be False"),
        ({"prompt_tokens": -1}, "prompt_tokens at least 0"),
        ({"hint_scale": float("nan")}, "hint_scale must be a finite number"),
    ],
)
def test_settings_that_do_not_fit(folder, settings, message):
    with pytest.raises(InputError, match=message):
        load_world_model(folder, **{**SMALL, **settings})


def test_tiles_larger_than_the_picture_change_nothing_and_smaller_ones_little(folder):
    plain, tiled = (load_world_model(folder, dtype=FLOAT, tiling=tiling, **SMALL) for tiling in (False, True))
    assert np.array_equal(walk(plain), walk(tiled))
    latents = torch.randn(1, 2, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    small = {
        f"tile_sample_{kind}_{side}": size for kind, size in (("min", 80), ("stride", 40)) for side in SIDES
    }
    tiled.codec.autoencoder.enable_tiling(**small)
    with torch.no_grad():
        whole, pieces = (model.codec.decode(latents) for model in (plain, tiled))
    assert pieces.shape == whole.shape
    assert 0 < float((pieces - whole).abs().mean()) < 0.2 * float(whole.std())


@pytest.mark.slow
def test_compiled_blocks_compute_the_same(folder):
    plain, compiled = (load_world_model(folder, dtype=FLOAT, compiled=c, **SMALL) for c in (False, True))
    config = plain.config.generator
    rng = torch.Generator().manual_seed(0)
    target = torch.randn(1, 2, config.channels, 4, 6, generator=rng)
    context = torch.randn(1, 3, config.context_dim, generator=rng)
    first, second = (m.generator(target, torch.ones(1, 2, 2, 3), context) for m in (plain, compiled))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_offload_is_refused_where_it_is_of_no_use(folder):
    with pytest.raises(InputError, match="offload must be None but for a CUDA device"):
        load_world_model(folder, offload="blocks", **SMALL)
    with pytest.raises(InputError, match="offload must be None or one of"):
        load_world_model(folder, offload="disk", **SMALL)


def test_attention_is_computed_as_asked_for_in_backbone_and_branch(folder):
    plain, other = (
        load_world_model(folder, dtype=FLOAT, attention=name, **SMALL) for name in (None, "_native_math")
    )
    assert np.abs(walk(plain).astype(int) - walk(other)).max() <= 1
    for part in (other.generator.backbone, other.generator.branch):
        chosen = [m.backend for m in part.modules() if isinstance(m, Attention)]
        assert chosen
        assert set(chosen) == {"_native_math"}
    for name, message in (("flash_hub", "not downloaded"), ("magic", "must be a back end that works here")):
        with pytest.raises(InputError, match=message):
            load_world_model(folder, attention=name, **SMALL)


@pytest.mark.slow
def test_what_does_not_fit_is_told_in_figures(folder):
    checkpoint = open_checkpoint(folder)
    model = load_world_model(folder, dtype=FLOAT, **SMALL)
    networks = (model.generator, model.codec.autoencoder)
    weights = 4 * sum(weight.numel() for part in networks for weight in part.parameters())
    plain = needed_bytes(checkpoint, model.config, FLOAT)
    assert weights < plain < 20 * weights
    by_kind = {kind: needed_bytes(checkpoint, model.config, FLOAT, offload=kind) for kind in OFFLOADS}
    assert by_kind["blocks"] < plain
    assert by_kind["networks"] <= plain
    larger = replace(model.config, height=256, width=256)
    assert needed_bytes(checkpoint, larger, FLOAT) > 4 * (plain - weights)
    check_room(plain, plain, model.config)
    told = r"device must have 10\.00 GiB free for weights and 2 latent frames of 32x64, got 8\.00 GiB"
    with pytest.raises(InputError, match=told):
        check_room(10 * 2**30, 8 * 2**30, model.config)


@pytest.mark.slow
def test_the_published_size_needs_about_what_was_measured():
    """Peaks of an H100 with random weights: 25.8 GiB, and 12.0 where all but two blocks wait."""
    with torch.device("meta"):
        generator = Generator(WAN_5B)
    autoencoder = full_size_codec("meta").autoencoder
    checkpoint = Checkpoint(
        WAN_5B,
        generator.backbone.state_dict(),
        generator.branch.state_dict(),
        codec=autoencoder.state_dict(),
        codec_config=codec_arguments(autoencoder.config),
    )
    config = full_size_config(WAN_5B)
    for kind, measured in ((None, 25.8), ("blocks", 12.0)):
        needed = needed_bytes(checkpoint, config, torch.bfloat16, offload=kind) / 2**30
        assert 0.95 < needed / measured < 1.0


def test_parts_of_the_full_size_do_not_go_with_the_embedded_model(folder):
    with pytest.raises(InputError, match="must be left out but for full-size"):
        load_world_model("embedded", depth=folder / "depth_estimator")
    with pytest.raises(InputError, match="must be left out but for full-size"):
        load_world_model("embedded", tiling=True)
    with pytest.raises(InputError, match="settings must be among"):
        load_world_model("embedded", heigth=3)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(FileFormatError, match=r"must hold model\.json or full-size weights"):
        load_world_model(tmp_path)


def test_a_saved_model_may_lack_resampler_and_refiner(tmp_path):
    """Known cells start as they were read then, and drafts are shown."""
    model = tiny_world_model()
    config = replace(model.config, resampler=None, refiner=None)
    bare = WorldModel(config)
    bare.load_state_dict(model.state_dict(), strict=False)
    bare.save(tmp_path)
    loaded = load_world_model(tmp_path, dtype=FLOAT)
    assert loaded.config == config
    world = World(loaded)
    picture = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    pose = from_yaw_pitch(torch.tensor([[0.0, 0.0, 1.4]]), torch.zeros(1))
    first = world.reset(picture, pose, depth=np.full((1, 32, 32), 2.0, np.float32))
    again = world.step(pose[:, None])
    assert again.known.all()
    assert torch.equal(again.latents, first.latents.half().float())
